//! The way to what a call means: from the root of the tree, or from the caller's directories, and never out.
//!
//! The kernel resolves, for the supervisor: beneath the tree's root, links and `..` inside (openat2(2),
//! `RESOLVE_IN_ROOT`); or one name in a directory that is open already.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stepwell_sys::resolve::{self, Links};

use super::super::call::{Call, Stop};
use super::super::path::{AT_FDCWD, squeeze};
use super::super::step::Step;

/// Number of CAP_DAC_OVERRIDE.
const CAP_DAC_OVERRIDE: u32 = 1;

/// Where a path starts, and the rest.
#[derive(Debug)]
pub struct Way {
    /// An open directory, for a single name in it; none for what starts at the root.
    base: Option<Arc<OwnedFd>>,
    /// One name, or an absolute path in the tree.
    path: Vec<u8>,
}

/// An entry of a directory, there or not.
#[derive(Debug)]
pub struct Entry {
    /// The directory.
    pub parent: Arc<OwnedFd>,
    /// The last name, with a slash after it if the path had one.
    name: Vec<u8>,
    /// Whether it is `.`, `..` or the root, which can be neither made nor removed.
    pub fixed: bool,
}

impl Entry {
    /// Returns the name for a call on the directory's handle.  No such call follows a link.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

/// Says where a path of the caller's starts.
///
/// # Errors
/// `ENOENT` for an empty path and in directories that were removed, `EBADF`, `ENOTDIR`.
pub fn way(step: &Step, call: &Call<'_>, dirfd: i32, path: &[u8]) -> Result<Way, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path.starts_with(b"/") {
        return Ok(Way {
            base: None,
            path: path.to_vec(),
        });
    }
    let base = directory(step, call.tid(), dirfd)?;
    if !path.contains(&b'/') && path != b".." {
        return Ok(Way {
            base: Some(base),
            path: path.to_vec(),
        });
    }
    // One that is too deep to have a path serves as a start for paths without links and dots.
    let Some(text) = resolve::path_of(&base) else {
        return Ok(Way {
            base: Some(base),
            path: path.to_vec(),
        });
    };
    let inside = step.inside(&text).ok_or(Errno::NOENT)?;
    Ok(Way {
        base: None,
        path: [inside, b"/", path].concat(),
    })
}

/// Opens the directory that a relative path starts in.
///
/// # Errors
/// `EBADF`, `ENOTDIR`.
pub fn directory(step: &Step, tid: u32, dirfd: i32) -> Result<Arc<OwnedFd>, Errno> {
    let mediated = step.mediated.as_ref().ok_or(Errno::NOSYS)?;
    if dirfd == AT_FDCWD {
        return Ok(mediated.processes.of(tid).cwd.clone());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(format!("/proc/{tid}/fd/{dirfd}"), flags, Mode::empty()) {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(Errno::NOENT | Errno::ACCESS) => Err(Errno::BADF),
        Err(errno) => Err(errno),
    }
}

/// Opens what a descriptor of the caller's stands for, whatever it is.
///
/// # Errors
/// `EBADF`.
pub fn descriptor(call: &Call<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    fs::open(
        format!("/proc/{}/fd/{fd}", call.tid()),
        flags,
        Mode::empty(),
    )
    .map_err(|_| Errno::BADF)
}

/// Opens what a way leads to.
///
/// # Errors
/// What the kernel answers.
pub fn open(
    step: &Step,
    way: &Way,
    flags: OFlags,
    mode: Mode,
    follow: bool,
) -> Result<OwnedFd, Errno> {
    let Some(base) = &way.base else {
        return open_from_root(step, &way.path, flags, mode, follow);
    };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut own = flags | OFlags::CLOEXEC;
    if !own.contains(OFlags::PATH) {
        own |= OFlags::NOCTTY;
    }
    if !follow {
        own |= OFlags::NOFOLLOW;
    }
    if way.path == b".." {
        // Only of what is too deep to have a path, and so far below the root.
        return fs::openat(base, c"..", own, mode);
    }
    loop {
        return match fs::openat2(base, &way.path[..], own, mode, beneath) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // The name is a link.
            Err(Errno::LOOP) if follow => {
                let text = resolve::path_of(base).ok_or(Errno::NAMETOOLONG)?;
                let inside = step.inside(&text).ok_or(Errno::NOENT)?;
                let path = [inside, b"/", &way.path].concat();
                open_from_root(step, &path, flags, mode, follow)
            }
            other => other,
        };
    }
}

fn open_from_root(
    step: &Step,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
    follow: bool,
) -> Result<OwnedFd, Errno> {
    let links = if follow {
        Links::Follow
    } else {
        Links::FollowButLast
    };
    resolve::create(&step.root, path, flags, mode, links)
}

/// Opens a handle on the inode that a path of the caller's means.
///
/// # Errors
/// What the kernel answers.
pub fn inode(
    step: &Step,
    call: &Call<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<OwnedFd, Errno> {
    let way = way(step, call, dirfd, path)?;
    as_root(step, call, &way, || {
        open(step, &way, OFlags::PATH, Mode::empty(), follow)
    })
}

/// Finds the directory and the name that a path of the caller's means; a link as the last name is not followed.
///
/// # Errors
/// What the kernel answers.
pub fn entry(step: &Step, call: &Call<'_>, dirfd: i32, path: &[u8]) -> Result<Entry, Errno> {
    let Way { base, path } = way(step, call, dirfd, path)?;
    let slash = path.ends_with(b"/");
    let names = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(&b""[..], |end| &path[..=end]);
    let start = names.iter().rposition(|byte| *byte == b'/');
    let (parent, last) = match start {
        Some(0) => (&b"/"[..], &names[1..]),
        Some(at) => (&names[..at], &names[at + 1..]),
        None if base.is_none() => (&b"/"[..], names),
        None => (&b""[..], names),
    };
    let parent = match base {
        Some(base) if parent.is_empty() => base,
        base => {
            let from = Way {
                base,
                path: parent.to_vec(),
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            Arc::new(as_root(step, call, &from, || {
                open(step, &from, flags, Mode::empty(), true)
            })?)
        }
    };
    let mut name = last.to_vec();
    if slash {
        name.push(b'/');
    }
    Ok(Entry {
        parent,
        fixed: [&b""[..], b".", b".."].contains(&last),
        name,
    })
}

/// Carries out what root may do whatever the modes say, although this process is not root: where it is refused, the
/// modes on the way are opened for a moment.
///
/// # Errors
/// What `work` answers.
pub fn as_root<T>(
    step: &Step,
    call: &Call<'_>,
    way: &Way,
    work: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match work() {
        Err(Errno::ACCESS) if step.identity(call.tid()).can(CAP_DAC_OVERRIDE) => {}
        other => return other,
    }
    let opened = Opened::along(step, way);
    let result = work();
    drop(opened);
    result
}

/// The same for a call on an entry of a directory that is open.
///
/// # Errors
/// What `work` answers.
pub fn as_root_in<T>(
    step: &Step,
    call: &Call<'_>,
    directories: &[&OwnedFd],
    work: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match work() {
        Err(Errno::ACCESS) if step.identity(call.tid()).can(CAP_DAC_OVERRIDE) => {}
        other => return other,
    }
    let mut opened = Opened::default();
    for directory in directories {
        opened.open(directory.as_fd());
    }
    let result = work();
    drop(opened);
    result
}

/// Inodes whose modes were opened for their owner, until this is dropped.
#[derive(Default)]
pub struct Opened(Vec<(OwnedFd, u32)>);

impl Opened {
    /// Opens every directory on a way, and what it leads to.
    fn along(step: &Step, way: &Way) -> Self {
        let mut opened = Self::default();
        let mut path = match &way.base {
            None => Vec::new(),
            Some(base) => {
                let text = resolve::path_of(base).unwrap_or_default();
                step.inside(&text).unwrap_or(b"/").to_vec()
            }
        };
        // Links on the way lead through directories that are opened by their own names.
        let rest = squeeze(&way.path);
        opened.handle(step, &path);
        for name in rest.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            path.push(b'/');
            path.extend(name);
            opened.handle(step, &path);
            if let Ok(handle) = resolve::handle(&step.root, &path, Links::Follow)
                && let Some(text) = resolve::path_of(&handle)
                && let Some(inside) = step.inside(&text)
            {
                path = inside.to_vec();
            }
        }
        opened
    }

    fn handle(&mut self, step: &Step, path: &[u8]) {
        let path = if path.is_empty() { b"/" } else { path };
        if let Ok(handle) = resolve::handle(&step.root, path, Links::Follow) {
            self.open(handle.as_fd());
        }
    }

    /// Opens one inode.
    pub fn open(&mut self, handle: BorrowedFd<'_>) {
        let Ok(stat) = fs::statat(handle, c"", AtFlags::EMPTY_PATH) else {
            return;
        };
        let wanted = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => 0o700,
            _ => 0o600,
        };
        let mode = stat.st_mode & 0o7777;
        if mode & wanted == wanted {
            return;
        }
        if change_mode(handle, mode | wanted).is_ok()
            && let Ok(handle) = handle.try_clone_to_owned()
        {
            self.0.push((handle, mode));
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        for (handle, mode) in self.0.drain(..).rev() {
            // What is gone needs no mode.
            let _ = change_mode(handle.as_fd(), mode);
        }
    }
}

/// Returns the link of ours that leads to a handle and nowhere else.
pub fn own_link(handle: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd()))
}

/// Changes the mode of an inode.
///
/// # Errors
/// What the file system answers.
pub fn change_mode(handle: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    fs::chmodat(fs::CWD, own_link(handle), mode, AtFlags::empty())
}

/// Reads a path argument for a handler that stands in for the kernel.
///
/// # Errors
/// `EFAULT`, `ENAMETOOLONG`.
pub fn path(call: &Call<'_>, index: usize) -> Result<Vec<u8>, Stop> {
    use stepwell_sys::memory;
    memory::read_string(call.tid(), call.arg(index), memory::MAX_PATH).map_err(|error| {
        Stop::Fail(match error.errno {
            Errno::NAMETOOLONG => Errno::NAMETOOLONG,
            _ => Errno::FAULT,
        })
    })
}
