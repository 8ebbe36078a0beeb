//! Removes whole directories, whatever their modes and however deep they are.
//!
//! Every step goes through a handle on the parent and follows no link, so that nothing outside the directory can be
//! reached by what lies in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;

use crate::error::{Context as _, Result};

/// Depth from which on directories are moved up before they are removed: handles and stack are limited.
const DEEP: usize = 64;

/// Removes `path` and all that is in it; nothing being there is fine.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent = match fs::openat(CWD, parent, directory(), Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.context("open", parent)?,
    };
    let name = std::os::unix::ffi::OsStrExt::as_bytes(name);
    remove_at(parent.as_fd(), name).context("remove", path)
}

/// Removes `name` in `dir` and all that is in it; nothing being there is fine.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let deep = Deep {
        top: dir,
        names: Mutex::default(),
    };
    remove_entry(dir, name, &deep, 0)?;
    while let Some(name) = deep.next() {
        remove_entry(dir, &name, &deep, 0)?;
    }
    Ok(())
}

/// Directories that were too deep and were moved beside the one that is removed.
struct Deep<'a> {
    top: BorrowedFd<'a>,
    names: Mutex<Vec<Vec<u8>>>,
}

impl Deep<'_> {
    fn lift(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lifted = format!(".stepwell-deep-{}-{number}", std::process::id()).into_bytes();
        fs::renameat(dir, name, self.top, &lifted[..])?;
        self.names.lock().map_err(|_| Errno::DEADLK)?.push(lifted);
        Ok(())
    }

    fn next(&self) -> Option<Vec<u8>> {
        self.names.lock().ok()?.pop()
    }
}

fn remove_entry(
    dir: BorrowedFd<'_>,
    name: &[u8],
    deep: &Deep<'_>,
    depth: usize,
) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) if depth >= DEEP => deep.lift(dir, name),
        Err(Errno::ISDIR | Errno::PERM) => remove_dir(dir, name, deep, depth + 1),
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn remove_dir(
    parent: BorrowedFd<'_>,
    name: &[u8],
    deep: &Deep<'_>,
    depth: usize,
) -> Result<(), Errno> {
    let dir = open_dir(parent, name)?;
    let mut sub = Vec::new();
    let mut others = Vec::new();
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        match entry.file_type() {
            _ if matches!(child, b"." | b"..") => {}
            FileType::Directory => sub.push(child.to_vec()),
            _ => others.push(child.to_vec()),
        }
    }
    let remove = |child: &Vec<u8>| remove_entry(dir.as_fd(), child, deep, depth);
    // Threads wait for a directory's own lock, so that only subdirectories are worth sharing out.
    if depth < 4 && sub.len() > 1 {
        sub.par_iter().try_for_each(remove)?;
    } else {
        sub.iter().try_for_each(remove)?;
    }
    others.iter().try_for_each(remove)?;
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Opens a directory for listing; one that its owner may not read is made readable first.
fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match fs::openat(parent, name, directory(), Mode::empty()) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(0o700 as RawMode);
            fs::chmodat(parent, name, mode, AtFlags::empty())?;
            fs::openat(parent, name, directory(), Mode::empty())
        }
        Ok(dir) if !rustix::process::geteuid().is_root() => {
            // As images have them: directories that not even their owner may change.
            if fs::fstat(&dir)?.st_mode & 0o300 != 0o300 {
                fs::fchmod(&dir, Mode::from_raw_mode(0o700 as RawMode))?;
            }
            Ok(dir)
        }
        other => other,
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
