//! Links and pipes in directories that strangers share (`/tmp`), where owners are real and ids are emulated.
//!
//! The kernel lets nobody follow such a link, or open such a pipe with O_CREAT, but who owns it (proc_sys_fs(5),
//! `protected_symlinks`, `protected_fifos`).  A step's processes are all root's, whoever they are thought to be, so they would be kept
//! from links of their own.  So these are root's on the disk, and whose they are is kept in the side table.

use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, Gid, Uid};
use stepwell_image::{Entry, Kind};
use stepwell_sys::error::{Context, SysResult};
use stepwell_sys::meta::{InodeId, Meta, SideTable};
use stepwell_sys::resolve::{self, Links};

use super::supervisor::is_shared;

/// Finds those of a tree that are not root's.
pub fn find<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    let entries: Vec<&Entry> = entries.collect();
    let is_dir = |entry: &&&Entry| entry.kind == Kind::Dir && is_shared(entry.mode);
    let dirs = entries.iter().filter(is_dir);
    let shared: HashSet<&[u8]> = dirs.map(|dir| &dir.path[..]).collect();
    let is_one = |entry: &&Entry| {
        let special = matches!(entry.kind, Kind::Symlink { .. } | Kind::Fifo);
        special && (entry.uid, entry.gid) != (0, 0) && shared.contains(split(&entry.path).0)
    };
    entries.into_iter().filter(is_one).collect()
}

/// Makes them root's, and keeps whose they were.
///
/// # Errors
/// One of them is not there any more, or may not be given away.
pub fn take_over(root: impl AsFd, found: &[&Entry], side: &mut SideTable) -> SysResult<()> {
    for entry in found {
        let (directory, name) = split(&entry.path);
        let path = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let directory = resolve::handle(root.as_fd(), path, Links::None)
            .context("open", String::from_utf8_lossy(path))?;
        let told = || String::from_utf8_lossy(name);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = fs::statx(&directory, name, flags, InodeId::STATX).context("statx", told())?;
        if side.get(InodeId::of(&stat)).is_some() {
            continue;
        }
        let owner = Meta {
            uid: entry.uid,
            gid: entry.gid,
            ..Meta::default()
        };
        fs::chownat(&directory, name, Some(Uid::ROOT), Some(Gid::ROOT), flags)
            .context("chown", told())?;
        side.set(InodeId::of(&stat), owner);
    }
    Ok(())
}

/// Splits a path of an archive into the directory's and the name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
