//! Where a target lies: links in it are followed as the step would follow them, beneath the tree's root, and
//! what is missing on the way is made while the step runs.
//!
//! No process of the step is alive here, so nothing changes between two looks.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use stepwell_sys::error::Context;
use stepwell_sys::resolve::{self, Links};
use stepwell_sys::{SysError, SysResult};

use crate::run::supervisor::keeping_times;

/// As many links as the kernel follows on one path.
const MAX_LINKS: usize = 40;

/// A name in a directory of the tree.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    /// The names of the way, without links; the last one is the place's own.  Empty for the root.
    names: Vec<Vec<u8>>,
    /// How many of the names, from the top, are those of directories that were made for it.
    made: std::ops::Range<usize>,
}

impl Place {
    /// Follows a path from the root of a tree.
    ///
    /// # Errors
    /// Links lead in a circle, or something on the way is no directory.
    pub fn find(root: &OwnedFd, path: &[u8]) -> SysResult<Self> {
        let failed = |errno| SysError::new("openat2", String::from_utf8_lossy(path), errno);
        let names = follow(root, path).map_err(failed)?;
        Ok(Self {
            root: root.try_clone().context("dup", "root of the tree")?,
            names,
            made: 0..0,
        })
    }

    /// Says whether it lies where the supervisor makes everything up.
    pub fn is_made_up(&self) -> bool {
        self.names
            .first()
            .is_none_or(|top| [&b"proc"[..], b"sys"].contains(&&top[..]))
    }

    /// Returns the last name.
    pub fn name(&self) -> &[u8] {
        self.names.last().map_or(b"", |name| name)
    }

    /// Returns the absolute path in the step.
    pub fn path(&self) -> Vec<u8> {
        self.names
            .iter()
            .flat_map(|name| [b"/", &name[..]].concat())
            .collect()
    }

    /// Returns the way from another place down to this one; none where it does not lie below.
    pub fn below(&self, other: &Self) -> Option<Vec<u8>> {
        let rest = self.names.strip_prefix(&other.names[..])?;
        Some(rest.join(&b'/'))
    }

    /// Opens the directory; none where it is not there.
    pub fn parent(&self) -> Option<OwnedFd> {
        self.directory(self.names.len().checked_sub(1)?).ok()
    }

    /// Opens the directory, and makes it and what is above it where they are missing.
    pub fn make_parents(&mut self) -> SysResult<OwnedFd> {
        let last = self.names.len().saturating_sub(1);
        let mut dir = self.directory(0).context("openat2", "root of the tree")?;
        for depth in 0..last {
            match self.directory(depth + 1) {
                Ok(next) => dir = next,
                Err(Errno::NOENT) => {
                    let name = &self.names[depth][..];
                    keeping_times(dir.as_fd(), || {
                        fs::mkdirat(&dir, name, Mode::RWXU).context("mkdirat", "mount point")?;
                        let mode = Mode::from_raw_mode(0o755);
                        fs::chmodat(&dir, name, mode, AtFlags::empty())
                            .context("fchmodat", "mount point")
                    })?;
                    if self.made.is_empty() {
                        self.made.start = depth;
                    }
                    self.made.end = depth + 1;
                    dir = self
                        .directory(depth + 1)
                        .context("openat2", "mount point")?;
                }
                Err(errno) => return Err(SysError::new("openat2", "mount point", errno)),
            }
        }
        Ok(dir)
    }

    /// Removes the directories that were made, from the lowest, up to one that holds something.
    pub fn remove_parents(&self) -> SysResult<()> {
        for depth in self.made.clone().rev() {
            let Ok(dir) = self.directory(depth) else {
                continue;
            };
            let removed = keeping_times(dir.as_fd(), || {
                match fs::unlinkat(&dir, &self.names[depth][..], AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => Ok(true),
                    Err(Errno::NOTEMPTY | Errno::NOTDIR) => Ok(false),
                    Err(errno) => Err(SysError::new("unlinkat", "mount point", errno)),
                }
            })?;
            if !removed {
                break;
            }
        }
        Ok(())
    }

    /// Opens the directory that the first `depth` names lead to.
    fn directory(&self, depth: usize) -> Result<OwnedFd, Errno> {
        let path = self.names[..depth].join(&b'/');
        let path = if path.is_empty() { b".".to_vec() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        resolve::open(&self.root, &path, flags, Links::None)
    }
}

/// Resolves a path to names without links; what is missing stays as it is written.
fn follow(root: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let mut rest: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            here.pop();
            continue;
        }
        let mut next = here.clone();
        next.push(name);
        match resolve::handle(root, &next.join(&b'/'), Links::FollowButLast) {
            Ok(handle) => match fs::readlinkat(&handle, c"", Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    if target.as_bytes().starts_with(b"/") {
                        here.clear();
                    }
                    rest.extend(names(target.as_bytes()).rev().map(<[u8]>::to_vec));
                }
                Err(_) => here = next,
            },
            Err(Errno::NOENT) => here = next,
            Err(errno) => return Err(errno),
        }
    }
    Ok(here)
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_the_step_would_see_them_lead() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("run/lock")).expect("directories");
        for (target, link) in [
            ("/run", "var-run"),
            ("../../../../run", "up"),
            ("circle", "circle"),
            ("/not/there", "dangling"),
        ] {
            symlink(target, at(link)).expect("link");
        }
        std::fs::write(at("file"), "").expect("file");
        let root: OwnedFd = std::fs::File::open(dir.path()).expect("root").into();
        let found = |path: &str| {
            Place::find(&root, path.as_bytes())
                .map(|p| String::from_utf8(p.path()).expect("text"))
                .map_err(|e| e.errno)
        };
        assert_eq!(found("/var-run/lock/x/y"), Ok("/run/lock/x/y".into()));
        assert_eq!(found("/up/secret"), Ok("/run/secret".into()));
        assert_eq!(found("/a/../../b/./c"), Ok("/b/c".into()));
        assert_eq!(found("/dangling/x"), Ok("/not/there/x".into()));
        assert_eq!(found("/circle/x"), Err(Errno::LOOP));
        assert_eq!(found("/file/x"), Err(Errno::NOTDIR));
    }

    #[test]
    fn parents_that_were_made_go_again_unless_something_is_in_them() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        let root: OwnedFd = std::fs::File::open(dir.path()).expect("root").into();
        let before = std::fs::metadata(dir.path()).expect("stat").modified().ok();
        let mut place = Place::find(&root, b"/a/b/c").expect("place");
        place.make_parents().expect("parents");
        assert!(dir.path().join("a/b").is_dir() && !dir.path().join("a/b/c").exists());
        place.remove_parents().expect("removed");
        assert!(!dir.path().join("a").exists());
        assert_eq!(
            std::fs::metadata(dir.path()).expect("stat").modified().ok(),
            before
        );
        place.make_parents().expect("parents");
        std::fs::write(dir.path().join("a/kept"), "").expect("the step's file");
        place.remove_parents().expect("removed");
        assert!(dir.path().join("a/kept").exists() && !dir.path().join("a/b").exists());
    }
}
