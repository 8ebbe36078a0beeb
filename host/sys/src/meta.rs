//! What an inode really is where the file system cannot say it: owner, device and extended attributes.
//!
//! With one mapped id every file on disk belongs to that id.  The true owner, the number of a device node
//! that may not be made, and attributes that the kernel refuses are kept in one extended attribute of the
//! file itself ([`XATTR`]), so that they live and die with the inode, move with a rename and are shared by
//! hard links.  Inodes that take no such attribute (symlinks, fifos, a file system without them) have their
//! entry in a [`SideTable`], which is kept with the tree's index.  Absent means: owner 0:0, the rest as on
//! disk.  A device node is a regular empty file with [`Meta::device`] set, also where owners are real; nothing else has the
//! attribute there.
//!
//! It must not decide who may change an owner: `stepwell-steps`, `run/supervisor/owner.rs` does.
//!
//! # Format
//! Version 1, little endian: `01`, uid `u32`, gid `u32`, device kind `u8` (0 none, `c`, `b`), with a device
//! major `u32` and minor `u32`, number of attributes `u16`, then each attribute by name: length of the name
//! `u8`, name, length of the value `u32`, value.  Nothing follows.

mod encoding;
mod side;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Statx, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, SysError};

pub use side::{InodeId, SideTable};

/// The extended attribute; it never appears in a layer, and a step never sees it.
pub const XATTR: &str = "user.stepwell.meta";

/// The name space that [`XATTR`] is in, kept from images and steps.
pub const XATTR_PREFIX: &str = "user.stepwell.";

/// Longest encoding: what the kernel takes as the value of one attribute (`XATTR_SIZE_MAX`).
pub const MAX_ENCODED: usize = 65_536;

/// Longest name of an attribute (`XATTR_NAME_MAX`).
const MAX_NAME: usize = 255;

const VERSION: u8 = 1;

/// What an inode is, beyond what the disk says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device, where the inode stands for a device node.
    pub device: Option<Device>,
    /// Attributes that the kernel would not take, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// Why emulated metadata could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The attribute is not what [`Meta::encode`] writes.
    #[error("`{XATTR}` of `{subject}` is malformed: {what}")]
    Malformed {
        /// The file.
        subject: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The metadata is larger than what one attribute holds.
    #[error("metadata of `{subject}` takes {size} bytes, more than {MAX_ENCODED}")]
    TooLarge {
        /// The file.
        subject: String,
        /// Size of the encoding in bytes.
        size: usize,
    },
}

impl Meta {
    /// Says whether there is nothing to keep: owner 0:0 and the rest as on disk.
    pub fn is_default(&self) -> bool {
        self.uid == 0 && self.gid == 0 && self.device.is_none() && self.xattrs.is_empty()
    }
}

/// Reads the attribute of an open file, also of one opened with `O_PATH`; `None` where there is none or the
/// inode cannot have one.
///
/// # Errors
/// A system call that failed, or bytes that are no encoding.
pub fn read(fd: BorrowedFd<'_>) -> Result<Option<Meta>, MetaError> {
    read_path(&fd_path(fd))
}

/// Writes the attribute of an open file (also `O_PATH`), or removes it when there is nothing to keep.
/// Returns false where the inode or its file system takes no such attribute: a [`SideTable`]'s case.
///
/// # Errors
/// A system call that failed, or metadata that is too large.
pub fn write(fd: BorrowedFd<'_>, meta: &Meta) -> Result<bool, MetaError> {
    write_path(&fd_path(fd), meta)
}

/// Removes the attribute of an open file (also `O_PATH`); none being there is fine.
///
/// # Errors
/// A system call that failed.
pub fn remove(fd: BorrowedFd<'_>) -> Result<(), MetaError> {
    remove_path(&fd_path(fd))
}

/// Like [`read`], of `name` in `dir`; a symlink is not followed.
///
/// # Errors
/// As [`read`].
pub fn read_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<Option<Meta>, MetaError> {
    read(open_at(dir.as_fd(), name.as_ref())?.as_fd())
}

/// Like [`write`], of `name` in `dir`; a symlink is not followed.
///
/// # Errors
/// As [`write`].
pub fn write_at(dir: impl AsFd, name: impl AsRef<Path>, meta: &Meta) -> Result<bool, MetaError> {
    write(open_at(dir.as_fd(), name.as_ref())?.as_fd(), meta)
}

/// Like [`remove`], of `name` in `dir`; a symlink is not followed.
///
/// # Errors
/// As [`remove`].
pub fn remove_at(dir: impl AsFd, name: impl AsRef<Path>) -> Result<(), MetaError> {
    remove(open_at(dir.as_fd(), name.as_ref())?.as_fd())
}

/// Reads what is kept of an inode, wherever it is kept; `stat` is its own, with [`InodeId::STATX`].
///
/// # Errors
/// As [`read`].
pub fn load(fd: BorrowedFd<'_>, stat: &Statx, side: &SideTable) -> Result<Option<Meta>, MetaError> {
    load_path(&fd_path(fd), stat, side)
}

/// Keeps `meta` for an inode: on it where it can be, else in `side`.
///
/// # Errors
/// As [`write`].
pub fn save(
    fd: BorrowedFd<'_>,
    stat: &Statx,
    meta: &Meta,
    side: &mut SideTable,
) -> Result<(), MetaError> {
    save_path(&fd_path(fd), stat, meta, side)
}

/// Like [`save`], of `name` in `dir`, whose `statx` it makes itself; a symlink is not followed.
///
/// # Errors
/// As [`write`].
pub fn save_at(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    meta: &Meta,
    side: &mut SideTable,
) -> Result<(), MetaError> {
    let name = name.as_ref();
    let fd = open_at(dir.as_fd(), name)?;
    let stat = fs::statx(&fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX)
        .context("statx", name.to_string_lossy())?;
    save(fd.as_fd(), &stat, meta, side)
}

/// [`load`], with a `statx` of its own only where it is needed.
///
/// # Errors
/// As [`read`].
pub fn load_handle(fd: BorrowedFd<'_>, side: &SideTable) -> Result<Option<Meta>, MetaError> {
    if side.is_empty() {
        return read(fd);
    }
    let stat = fs::statx(fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX).context("statx", "")?;
    load(fd, &stat, side)
}

/// Like [`load_handle`], of the entry at a path; a link as its last name is not followed.
///
/// # Errors
/// As [`read`].
pub fn load_entry(path: &Path, side: &SideTable) -> Result<Option<Meta>, MetaError> {
    if !side.is_empty() {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat =
            fs::statx(fs::CWD, path, flags, InodeId::STATX).context("statx", subject(path))?;
        if let Some(meta) = side.get(InodeId::of(&stat)) {
            return Ok(Some(meta.clone()));
        }
    }
    read_by(path, |buffer| {
        whatever_the_mode(path, false, || fs::lgetxattr(path, XATTR, &mut *buffer))
    })
}

/// [`load`] through a path that ends in a magic link, such as `/proc/PID/fd/N`, and is nobody else's.
///
/// # Errors
/// As [`read`].
pub fn load_path(path: &Path, stat: &Statx, side: &SideTable) -> Result<Option<Meta>, MetaError> {
    if let Some(meta) = (!side.is_empty())
        .then(|| side.get(InodeId::of(stat)))
        .flatten()
    {
        return Ok(Some(meta.clone()));
    }
    if takes_xattr(stat) {
        read_path(path)
    } else {
        Ok(None)
    }
}

/// [`save`] through a path that ends in a magic link, such as `/proc/PID/fd/N`, and is nobody else's.
///
/// # Errors
/// As [`write`].
pub fn save_path(
    path: &Path,
    stat: &Statx,
    meta: &Meta,
    side: &mut SideTable,
) -> Result<(), MetaError> {
    let inode = InodeId::of(stat);
    if takes_xattr(stat) && write_path(path, meta)? {
        side.remove(inode);
    } else {
        side.set(inode, meta.clone());
    }
    Ok(())
}

/// Says whether the kernel lets inodes of this type have `user.` attributes at all.
fn takes_xattr(stat: &Statx) -> bool {
    matches!(
        FileType::from_raw_mode(stat.stx_mode.into()),
        FileType::RegularFile | FileType::Directory
    )
}

fn read_path(path: &Path) -> Result<Option<Meta>, MetaError> {
    read_by(path, |buffer| {
        whatever_the_mode(path, true, || fs::getxattr(path, XATTR, &mut *buffer))
    })
}

fn read_by(
    path: &Path,
    mut get: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Option<Meta>, MetaError> {
    // Most entries are owners alone, so that one call is enough.
    let mut small = [0; 256];
    let bytes = match get(&mut small) {
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; MAX_ENCODED];
            let length = get(&mut large).context("getxattr", subject(path))?;
            large.truncate(length);
            large
        }
        Err(errno) if absent(errno) => return Ok(None),
        Err(errno @ Errno::NOENT) if is_unmounted(path) => {
            let way = "`/proc/self/fd`, by which attributes are read: `/proc` is not mounted here";
            return Err(SysError::new("open", way, errno).into());
        }
        // Programs look for many files that are not there; to name them all would cost more than to look.
        Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => {
            return Err(SysError::new("getxattr", "", errno).into());
        }
        Err(errno) => return Err(SysError::new("getxattr", subject(path), errno).into()),
    };
    let malformed = |what| MetaError::Malformed {
        subject: subject(path),
        what,
    };
    Ok(Some(Meta::decode(&bytes).map_err(malformed)?))
}

fn write_path(path: &Path, meta: &Meta) -> Result<bool, MetaError> {
    if meta.is_default() {
        return remove_path(path).map(|()| true);
    }
    let bytes = meta.encode();
    if bytes.len() > MAX_ENCODED {
        return Err(MetaError::TooLarge {
            subject: subject(path),
            size: bytes.len(),
        });
    }
    let set = || fs::setxattr(path, XATTR, &bytes, XattrFlags::empty());
    match whatever_the_mode(path, true, set) {
        Ok(()) => Ok(true),
        Err(errno) if absent(errno) => Ok(false),
        // What is too large for this file system's attributes goes beside; the old value must not stay.
        Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) if bytes.len() > 1024 => {
            remove_path(path).map(|()| false)
        }
        Err(errno) => Err(SysError::new("setxattr", subject(path), errno).into()),
    }
}

fn remove_path(path: &Path) -> Result<(), MetaError> {
    match whatever_the_mode(path, true, || fs::removexattr(path, XATTR)) {
        Err(errno) if !absent(errno) => {
            Err(SysError::new("removexattr", subject(path), errno).into())
        }
        _ => Ok(()),
    }
}

/// Calls `work`, and calls it again with the file's mode opened for a moment where the mode keeps its own owner out:
/// a process that is root in no namespace keeps files as images have them, of whatever mode.
fn whatever_the_mode<T>(
    path: &Path,
    follow: bool,
    mut work: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match work() {
        Err(Errno::ACCESS) => {}
        other => return other,
    }
    let flags = if follow {
        OFlags::PATH | OFlags::CLOEXEC
    } else {
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
    };
    // By a handle, so that it is one file whose mode is changed.
    let file = fs::open(path, flags, Mode::empty()).map_err(|_| Errno::ACCESS)?;
    let mode = fs::fstat(&file)?.st_mode;
    if !matches!(
        FileType::from_raw_mode(mode),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(Errno::ACCESS);
    }
    let link = fd_path(file.as_fd());
    let set = |mode| fs::chmodat(fs::CWD, &link, Mode::from_raw_mode(mode), AtFlags::empty());
    set(mode & 0o7777 | 0o600).map_err(|_| Errno::ACCESS)?;
    let result = work();
    set(mode & 0o7777)?;
    result
}

/// The answers for an attribute that is not there, and for an inode or a file system that has none.
fn absent(errno: Errno) -> bool {
    matches!(errno, Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM)
}

/// The path by which calls reach an inode opened with `O_PATH`, a symlink included.
fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Says whether a magic link leads nowhere for want of `/proc`.
fn is_unmounted(path: &Path) -> bool {
    path.starts_with("/proc/self/fd") && !Path::new("/proc/self/fd").exists()
}

/// Names the file behind a magic link, for messages.
fn subject(path: &Path) -> String {
    std::fs::read_link(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .to_string_lossy()
        .into_owned()
}

fn open_at(dir: BorrowedFd<'_>, name: &Path) -> Result<std::os::fd::OwnedFd, SysError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).context("openat", name.to_string_lossy())
}

#[cfg(test)]
mod tests;
