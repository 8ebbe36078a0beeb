//! What a path of a step means: a place in the tree, or something in a graft.
//!
//! Most paths are settled by the kernel: it resolves them with the tree's root as `/`, and the handle says where
//! they lead.  What leads into a graft, or through one, is walked here name by name, because the grafts' links
//! and directories exist only in [`super::nodes`].  A wrong answer makes a step see something wrong; it never
//! lets anything out of the tree, since whatever is opened afterwards is opened beneath the tree's root or is on
//! the lists of the grafts.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs;
use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};

use super::call::{Call, Stop};
use super::nodes::{self, Node};
use super::step::Step;

/// The value of a directory descriptor that stands for the working directory.
pub const AT_FDCWD: i32 = libc::AT_FDCWD;

/// As many links as the kernel follows on one path.
const MAX_LINKS: usize = 40;

/// How many calls are looked at for the directory that the step begins in: those of its init and its first program.
const FIRST_CALLS: u64 = 16;

/// Where a path leads.
#[derive(Debug)]
pub enum Place {
    /// A place in the tree.
    Tree(TreePlace),
    /// Something in a graft.
    Graft(GraftPlace),
    /// The descriptor itself: the path was empty.
    Descriptor(i32),
}

/// A place in the tree.
#[derive(Debug)]
pub struct TreePlace {
    /// Absolute path in the step; free of links when `redirected`.
    pub path: Vec<u8>,
    /// The inode, or why there is none.
    pub handle: Result<OwnedFd, Errno>,
    /// Whether the way led through a graft's link, so that the kernel would not find it by the step's own path.
    pub redirected: bool,
}

/// Something in a graft.
#[derive(Debug)]
pub struct GraftPlace {
    /// Absolute path in the step, without links.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Whether the path ended in a slash, so that only a directory will do.
    pub slash: bool,
}

/// Finds out what `path` means to the caller; `follow` says whether a link as the last name is followed.
///
/// # Errors
/// The path fails (`ELOOP`, `ENOTDIR`), or starts where only the kernel knows the way.
pub fn locate(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<Place, Stop> {
    if path.is_empty() {
        return Ok(Place::Descriptor(dirfd));
    }
    let absolute = squeeze(&absolute(step, call.tid(), dirfd, path)?);
    let follow = follow || absolute.ends_with(b"/");
    if !in_graft(&absolute) {
        let links = if follow {
            Links::Follow
        } else {
            Links::FollowButLast
        };
        if let Some(place) = by_kernel(step, &absolute, links) {
            return Ok(place);
        }
    }
    if step.kernel_world {
        return Err(Stop::CarryOn);
    }
    walk(step, call.tid(), &absolute, follow)
}

/// Lets the kernel resolve a path; `None` where it leads into a graft or might.
///
/// Without links on the way the path itself says where it leads, and one call is enough.
fn by_kernel(step: &Step, absolute: &[u8], links: Links) -> Option<Place> {
    let tree = |handle| {
        Some(Place::Tree(TreePlace {
            path: absolute.to_vec(),
            handle,
            redirected: false,
        }))
    };
    let plain = !has_parent(absolute);
    if plain && !step.starts_with_link(absolute) {
        match resolve::handle(&step.root, absolute, Links::None) {
            // The last name may be a link itself, which may not be followed.
            Err(Errno::LOOP) => {}
            other => return tree(other),
        }
    }
    match resolve::handle(&step.root, absolute, links) {
        Ok(handle) => {
            let target = resolve::path_of(&handle)?;
            match step.inside(&target) {
                Some(inside) if in_graft(inside) => None,
                _ => tree(Ok(handle)),
            }
        }
        Err(errno) => {
            let by_links =
                || resolve::handle(&step.root, absolute, Links::None).err() == Some(Errno::LOOP);
            if plain && !by_links() {
                tree(Err(errno))
            } else {
                None
            }
        }
    }
}

/// Settles the commonest case with hardly a look: one name in a directory that no graft can be.
///
/// Returns a path by which the supervisor reaches the same entry; when links are followed, it is none.
pub fn near(
    step: &mut Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Option<PathBuf> {
    let special = path.is_empty()
        || path.contains(&b'/')
        || [&b"."[..], b"..", b"proc", b"dev", b"sys"].contains(&path);
    if special || step.entered(call.tid()) {
        return None;
    }
    let mut entry = step.descriptor_link(call.tid(), dirfd).into_bytes();
    entry.push(b'/');
    entry.extend(path);
    let entry = PathBuf::from(OsString::from_vec(entry));
    let is_link = || fs::readlink(&entry, Vec::new()).is_ok();
    (!follow || !is_link()).then_some(entry)
}

/// Makes a path absolute, by the caller's working directory or descriptor.
///
/// # Errors
/// The directory is not in the tree, or was removed: the kernel knows what that means.
pub fn absolute(step: &Step, tid: u32, dirfd: i32, path: &[u8]) -> Result<Vec<u8>, Stop> {
    let link = match path.starts_with(b"/") {
        // A step that may use chroot(2) may have another root than the tree's.
        true if step.own_root => format!("/proc/{tid}/root"),
        true => return Ok(path.to_vec()),
        false => step.descriptor_link(tid, dirfd),
    };
    let base = resolve::read_magic(&link).map_err(|_| Stop::CarryOn)?;
    let base = match step.own_root {
        true => &base[..],
        false => step.inside(&base).ok_or(Stop::CarryOn)?,
    };
    Ok([base, b"/", path].concat())
}

/// Says whether a path without links lies in a graft.
pub fn in_graft(path: &[u8]) -> bool {
    [&b"/proc"[..], b"/dev", b"/sys"].iter().any(|top| {
        path.strip_prefix(*top)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

/// Removes doubled slashes and `.`; a slash at the end stays (one is put where `.` was the last name).
pub fn squeeze(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for name in elements(path) {
        out.push(b'/');
        out.extend(name);
    }
    let to_directory = path.ends_with(b"/") || path.ends_with(b"/.");
    if out.is_empty() || to_directory {
        out.push(b'/');
    }
    out
}

/// Removes what ends a path that asks for a directory: where something is made, a link as the last name is not followed for it.
pub fn without_slash(path: &[u8]) -> &[u8] {
    let slashes = path.iter().rev().take_while(|byte| **byte == b'/').count();
    &path[..path.len() - slashes]
}

/// Returns the directory part and the last name of a squeezed path; `None` for `/` and for `..`.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    let (directory, name) = (&path[..slash], &path[slash + 1..]);
    let valid = !name.is_empty() && name != b"..";
    valid.then_some((
        if directory.is_empty() {
            b"/"
        } else {
            directory
        },
        name,
    ))
}

impl Step {
    /// Returns the link that stands for a descriptor, or for the working directory.
    pub fn descriptor_link(&self, tid: u32, dirfd: i32) -> String {
        match &self.mediated {
            Some(mediated) if dirfd == AT_FDCWD => mediated.cwd_link(tid),
            None if dirfd == AT_FDCWD => format!("/proc/{tid}/cwd"),
            _ => format!("/proc/{tid}/fd/{dirfd}"),
        }
    }

    /// Says whether a relative path may start in a graft.
    pub fn entered(&mut self, tid: u32) -> bool {
        if self.counters.notified <= FIRST_CALLS && !self.entered {
            // A step may begin in a graft's directory.
            let cwd = resolve::read_magic(&self.descriptor_link(tid, AT_FDCWD)).unwrap_or_default();
            self.entered = self.inside(&cwd).is_none_or(in_graft);
        }
        self.entered
    }

    /// Says whether the first name of a path is known to be a link.
    fn starts_with_link(&self, absolute: &[u8]) -> bool {
        let first = elements(absolute).next().unwrap_or_default();
        self.top_links.iter().any(|link| link == first)
    }
}

/// The elements of a path that lead anywhere: names, and `..`.
pub fn elements(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

fn has_parent(path: &[u8]) -> bool {
    elements(path).any(|name| name == b"..")
}

/// Walks a path name by name.
fn walk(step: &mut Step, tid: u32, absolute: &[u8], follow: bool) -> Result<Place, Stop> {
    let mut walk = Walk {
        rest: elements(absolute).rev().map(<[u8]>::to_vec).collect(),
        here: Vec::new(),
        links: 0,
        redirected: false,
        slash: absolute.len() > 1 && absolute.ends_with(b"/"),
    };
    while let Some(name) = walk.rest.pop() {
        if name == b".." {
            let parent = walk
                .here
                .iter()
                .rposition(|byte| *byte == b'/')
                .unwrap_or(0);
            walk.here.truncate(parent);
            continue;
        }
        let next = [&walk.here[..], b"/", &name].concat();
        if let Some(place) = walk.step(step, tid, next, follow)? {
            return Ok(place);
        }
    }
    walk.arrive(step, tid)
}

/// Where a walk is.
struct Walk {
    /// The names that are left, the next one last.
    rest: Vec<Vec<u8>>,
    /// Without links; empty for the root.
    here: Vec<u8>,
    links: usize,
    redirected: bool,
    slash: bool,
}

impl Walk {
    /// Goes on to `next`; returns the place where the walk ends.
    fn step(
        &mut self,
        step: &mut Step,
        tid: u32,
        next: Vec<u8>,
        follow: bool,
    ) -> Result<Option<Place>, Stop> {
        let last = self.rest.is_empty();
        if in_graft(&next) {
            match nodes::lookup(step, tid, &next) {
                Node::Native => {}
                Node::Directory => {
                    self.here = next;
                    return Ok(None);
                }
                Node::Link(target) if !last || follow => return Ok(self.jump(&target)),
                Node::Magic(magic) if !last || (follow && magic.directory) => {
                    return Ok(self.jump(&magic.text));
                }
                Node::Missing => return Ok(Some(self.missing(&next))),
                node if last => {
                    return Ok(Some(Place::Graft(GraftPlace {
                        path: next,
                        node,
                        slash: self.slash,
                    })));
                }
                _ => return Err(Stop::Fail(Errno::NOTDIR)),
            }
        }
        self.tree_step(step, next, last, follow)
    }

    /// Goes on to a name that is really in the tree.
    fn tree_step(
        &mut self,
        step: &Step,
        next: Vec<u8>,
        last: bool,
        follow: bool,
    ) -> Result<Option<Place>, Stop> {
        let handle = match resolve::handle(&step.root, &next, Links::FollowButLast) {
            Ok(handle) => handle,
            Err(errno) => return Ok(Some(self.failed(&next, errno))),
        };
        if (!last || follow)
            && let Ok(target) = fs::readlinkat(handle.as_fd(), c"", Vec::new())
        {
            return Ok(self.jump(target.as_bytes()));
        }
        // What comes next may be `..`, which leads from nothing but a directory.
        if !last && !is_directory(&handle)? {
            return Ok(Some(self.failed(&next, Errno::NOTDIR)));
        }
        self.here = next;
        Ok(None)
    }

    /// Goes on at the target of a link; returns the place where the walk ends.
    fn jump(&mut self, target: &[u8]) -> Option<Place> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Some(self.failed(&self.here, Errno::LOOP));
        }
        if in_graft(&self.here) {
            self.redirected = true;
        }
        if target.starts_with(b"/") {
            self.here.clear();
        }
        // At the end of the last link a slash asks for a directory as one at the end of the path does.
        self.slash |= self.rest.is_empty() && target.ends_with(b"/");
        self.rest.extend(elements(target).rev().map(<[u8]>::to_vec));
        None
    }

    fn with_rest(&self, next: &[u8]) -> Vec<u8> {
        let mut path = next.to_vec();
        for name in self.rest.iter().rev() {
            path.push(b'/');
            path.extend(name);
        }
        path
    }

    /// The walk ends before the path does.
    fn failed(&self, next: &[u8], errno: Errno) -> Place {
        let mut path = self.with_rest(next);
        if self.slash {
            path.push(b'/');
        }
        Place::Tree(TreePlace {
            path,
            handle: Err(errno),
            redirected: self.redirected,
        })
    }

    fn missing(&self, next: &[u8]) -> Place {
        Place::Graft(GraftPlace {
            path: self.with_rest(next),
            node: Node::Missing,
            slash: self.slash,
        })
    }

    /// All names are used up: the walk ends in a directory, or at a file of the tree.
    fn arrive(self, step: &mut Step, tid: u32) -> Result<Place, Stop> {
        let path = if self.here.is_empty() {
            b"/".to_vec()
        } else {
            self.here
        };
        if in_graft(&path) {
            let node = nodes::lookup(step, tid, &path);
            if !matches!(node, Node::Native) {
                return Ok(Place::Graft(GraftPlace {
                    path,
                    node,
                    slash: self.slash,
                }));
            }
        }
        let handle = match resolve::handle(&step.root, &path, Links::FollowButLast) {
            Ok(handle) if self.slash && !is_directory(&handle)? => Err(Errno::NOTDIR),
            other => other,
        };
        Ok(Place::Tree(TreePlace {
            path,
            handle,
            redirected: self.redirected,
        }))
    }
}

fn is_directory(handle: &OwnedFd) -> Result<bool, Errno> {
    let mode = fs::fstat(handle)?.st_mode;
    Ok(fs::FileType::from_raw_mode(mode) == fs::FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(path: &str) -> String {
        String::from_utf8(squeeze(path.as_bytes())).expect("text")
    }

    #[test]
    fn paths_are_squeezed() {
        for (path, want) in [
            ("/", "/"),
            ("//a///b", "/a/b"),
            ("/a/./b/.", "/a/b/"),
            ("/./.", "/"),
            ("/a/", "/a/"),
            ("/a/../b", "/a/../b"),
            ("/.hidden/..x", "/.hidden/..x"),
        ] {
            assert_eq!(squeezed(path), want, "{path}");
        }
    }

    #[test]
    fn grafts_are_told_by_whole_names() {
        for path in ["/proc", "/proc/", "/dev/null", "/sys/class"] {
            assert!(in_graft(path.as_bytes()), "{path}");
        }
        for path in ["/", "/process", "/devices/x", "/a/proc", "/etc/hosts"] {
            assert!(!in_graft(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_last_name_is_split_off() {
        assert_eq!(split(b"/a/b"), Some((&b"/a"[..], &b"b"[..])));
        assert_eq!(split(b"/a/"), Some((&b"/"[..], &b"a"[..])));
        assert_eq!(split(b"/a/.."), None);
        assert_eq!(split(b"/"), None);
    }
}
