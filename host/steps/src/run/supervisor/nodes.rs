//! What a name in a graft stands for.  Each graft has its own list: [`super::procfs`], [`super::dev`],
//! [`super::sysfs`].  What is on no list does not exist for the step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::step::Step;
use super::{dev, procfs, sysfs};

/// What a name stands for.
#[derive(Debug)]
pub enum Node {
    /// A directory, of which a skeleton is kept in the tree.
    Directory,
    /// Whatever is really there in the tree.
    Native,
    /// A file of the machine's.
    File(HostFile),
    /// A file whose content is made up.
    Text(Text),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A link of `/proc` that leads to an open file or a directory rather than to a path.
    Magic(Magic),
    /// Opens a new pseudo-terminal.
    PtyMaster,
    /// The terminal that controls the caller.
    Terminal,
    /// Nothing.
    Missing,
}

/// Which directory of the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// `/proc`.
    Proc,
    /// `/sys`.
    Sys,
    /// `/dev`.
    Dev,
}

/// A file of the machine's that a step may open.
#[derive(Debug)]
pub struct HostFile {
    /// The directory.
    pub within: Within,
    /// The path beneath it.
    pub path: String,
    /// Whether it may be written.
    pub writable: bool,
}

/// A link of `/proc/PID`.
#[derive(Debug)]
pub struct Magic {
    /// Path beneath the machine's `/proc`.
    pub link: String,
    /// What readlink(2) says in the step.
    pub text: Vec<u8>,
    /// Whether it leads to a directory of the tree, and so can be followed by its text.
    pub directory: bool,
}

/// A file whose content is made up when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `/proc/PID/mounts`.
    Mounts,
    /// `/proc/PID/mountinfo`.
    MountInfo,
    /// Nothing at all.
    Empty,
    /// `/proc/PID/uid_map` and the like: every id is itself.
    IdMap,
    /// `/proc/PID/setgroups`.
    SetGroups,
    /// `/proc/PID/status` of an outer pid.
    Status(u32),
    /// `/proc/PID/stat` of an outer pid.
    Stat(u32),
    /// `/proc/PID/limits` of an outer pid.
    Limits(u32),
    /// A file of an outer pid in which paths of the tree occur: maps and the like.
    Paths(u32, &'static str),
}

/// Says what a path in a graft, without links, stands for.
pub fn lookup(step: &mut Step, tid: u32, path: &[u8]) -> Node {
    let Ok(path) = std::str::from_utf8(path) else {
        return if path.starts_with(b"/dev/") {
            Node::Native
        } else {
            Node::Missing
        };
    };
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let top = names.next();
    let names: Vec<&str> = names.collect();
    match top {
        Some("proc") => procfs::lookup(step, tid, &names),
        Some("dev") => dev::lookup(step, &names),
        Some("sys") => sysfs::lookup(step, &names),
        _ => Node::Missing,
    }
}

/// Returns a handle on one of the machine's directories.
pub fn host(step: &Step, within: Within) -> Result<BorrowedFd<'_>, Errno> {
    match within {
        Within::Proc => Ok(step.host.proc.as_fd()),
        Within::Sys => step.host.sys.as_ref().map(AsFd::as_fd).ok_or(Errno::NOENT),
        Within::Dev => step.host.dev.as_ref().map(AsFd::as_fd).ok_or(Errno::NOENT),
    }
}

/// Opens something beneath a directory of the machine's; no link is followed.
pub fn open_host(step: &Step, within: Within, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // openat2 refuses flags that O_PATH has no use for.
    let flags = if flags.contains(OFlags::PATH) {
        flags & (OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    } else {
        flags | OFlags::NOCTTY
    };
    let open = |beneath: BorrowedFd<'_>, path: &str| {
        let flags = flags | OFlags::CLOEXEC;
        fs::openat2(beneath, path, flags, Mode::empty(), resolve)
    };
    match process_of(path).filter(|_| within == Within::Proc) {
        Some((number, rest)) => open(process(step, number)?.as_fd(), rest),
        None => open(host(step, within)?, path),
    }
}

/// Splits a path beneath `/proc` that begins with the number of a process.
fn process_of(path: &str) -> Option<(u32, &str)> {
    let (number, rest) = path.split_once('/').unwrap_or((path, "."));
    Some((number.parse().ok()?, rest))
}

/// Opens the directory of a process of the step: between the look at a number and its use the process may end, and the
/// number may become that of a process of the machine.
fn process(step: &Step, number: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::openat(&step.host.proc, number.to_string(), flags, Mode::empty())?;
    if step.pids.owns(directory.as_fd()) {
        Ok(directory)
    } else {
        Err(Errno::NOENT)
    }
}

/// Opens what a link beneath the machine's `/proc` leads to.
pub fn follow(step: &Step, link: &str) -> Result<OwnedFd, Errno> {
    let open = |beneath: BorrowedFd<'_>, path: &str| {
        fs::openat(beneath, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    };
    match process_of(link) {
        Some((number, rest)) => open(process(step, number)?.as_fd(), rest),
        None => open(step.host.proc.as_fd(), link),
    }
}

/// Says what a path beneath `/sys` or `/proc/sys` of the machine's stands for: read-only, as it is there.
pub fn mirror(step: &Step, within: Within, path: &str) -> Node {
    let Ok(handle) = open_host(step, within, path, OFlags::PATH | OFlags::NOFOLLOW)
        .or_else(|_| open_link(step, within, path))
    else {
        return Node::Missing;
    };
    let Ok(stat) = fs::statx(&handle, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE) else {
        return Node::Missing;
    };
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => Node::Directory,
        FileType::RegularFile => Node::File(HostFile {
            within,
            path: path.to_owned(),
            writable: false,
        }),
        FileType::Symlink => match fs::readlinkat(&handle, c"", Vec::new()) {
            Ok(target) => Node::Link(target.into_bytes()),
            Err(_) => Node::Missing,
        },
        _ => Node::Missing,
    }
}

/// Opens a link itself: only the last name may be one.
fn open_link(step: &Step, within: Within, path: &str) -> Result<OwnedFd, Errno> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = open_host(step, within, directory, OFlags::PATH | OFlags::DIRECTORY)?;
    fs::openat(
        &parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
