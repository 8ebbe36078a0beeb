//! Reads inodes of a tree with their metadata, wherever that is kept.
//!
//! Nothing is followed: directories are opened beneath the root without any symbolic link on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;
use stepwell_image::{Entry, Kind, Mtime};
use stepwell_model::{Digest, Hasher};
use stepwell_sys::meta::{self, DeviceKind, InodeId, Meta, SideTable};

use crate::error::{Context as _, Result};
use crate::store::Ids;
use crate::view::split;

use super::index::Stamp;

/// Largest list of attribute names, and largest value (the kernel's own limits).
const XATTR_MAX: usize = 64 << 10;

/// Opens a directory of the tree for listing.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens something of the tree; there must be no symbolic link in the path.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was renamed somewhere while `..` was checked, or a signal came.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Stats `name` in `dir`.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx, Errno> {
    fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, InodeId::STATX)
}

/// Stats an open file.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    fs::statx(fd, c"", AtFlags::EMPTY_PATH, InodeId::STATX)
}

/// What tells that the inode was not touched.
pub(crate) fn stamp(stat: &Statx) -> Stamp {
    Stamp {
        ino: stat.stx_ino,
        ctime: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
    }
}

pub(crate) fn mtime(stat: &Statx) -> Mtime {
    Mtime {
        secs: stat.stx_mtime.tv_sec,
        nanos: stat.stx_mtime.tv_nsec,
    }
}

pub(crate) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Reads what `path` is, whose `stat` was just made; `None` for what no layer can hold (a socket).
pub(crate) fn read(
    root: BorrowedFd<'_>,
    path: &[u8],
    stat: &Statx,
    ids: Ids,
    side: &SideTable,
) -> Result<Option<Entry>> {
    let (parent, name) = split(path);
    let name = if name.is_empty() { b"." } else { name };
    let dir = open(root, parent, OFlags::PATH | OFlags::DIRECTORY).entry("open", parent)?;
    let is_link = file_type(stat) == FileType::Symlink;
    let kept = match file_type(stat) {
        FileType::RegularFile | FileType::Directory => {
            let fd = open(root, path, OFlags::PATH).entry("open", path)?;
            match meta::load(fd.as_fd(), stat, side)? {
                // Where the kernel holds owners, only device nodes that could not be made are kept beside.
                Some(meta) if ids == Ids::Real && meta.device.is_none() => None,
                other => other,
            }
        }
        _ if ids == Ids::Emulated => side.get(InodeId::of(stat)).cloned(),
        _ => None,
    };
    let Some(kind) = kind(dir.as_fd(), name, path, stat, kept.as_ref())? else {
        return Ok(None);
    };
    let mut entry = Entry::new(path, kind, if is_link { 0o777 } else { mode(stat) });
    entry.mtime = mtime(stat);
    (entry.uid, entry.gid) = match (ids, &kept) {
        (Ids::Real, None) => (stat.stx_uid, stat.stx_gid),
        (_, Some(meta)) => (meta.uid, meta.gid),
        (Ids::Emulated, None) => (0, 0),
    };
    if !is_link {
        entry.xattrs = xattrs(root, path)?;
    }
    entry
        .xattrs
        .extend(kept.map(|m| m.xattrs).unwrap_or_default());
    Ok(Some(entry))
}

pub(crate) fn mode(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

fn kind(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    stat: &Statx,
    kept: Option<&Meta>,
) -> Result<Option<Kind>> {
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    Ok(Some(match (file_type(stat), kept.and_then(|m| m.device)) {
        (FileType::RegularFile, Some(device)) => match device.kind {
            DeviceKind::Char => Kind::Char {
                major: device.major,
                minor: device.minor,
            },
            DeviceKind::Block => Kind::Block {
                major: device.major,
                minor: device.minor,
            },
        },
        (FileType::RegularFile, None) => Kind::File {
            size: stat.stx_size,
        },
        (FileType::Directory, _) => Kind::Dir,
        (FileType::Symlink, _) => {
            let target = fs::readlinkat(dir, name, Vec::new()).entry("read link", path)?;
            Kind::Symlink {
                target: target.into_bytes(),
            }
        }
        (FileType::CharacterDevice, _) => Kind::Char { major, minor },
        (FileType::BlockDevice, _) => Kind::Block { major, minor },
        (FileType::Fifo, _) => Kind::Fifo,
        _ => return Ok(None),
    }))
}

/// Reads the attributes that belong into a layer.
fn xattrs(root: BorrowedFd<'_>, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    // The calls on descriptors do not take O_PATH ones, and opening a device or a fifo has effects.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let stat_flags = OFlags::PATH;
    let handle = open(root, path, stat_flags).entry("open", path)?;
    let kind = file_type(&stat_fd(handle.as_fd()).entry("stat", path)?);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(found);
    }
    let fd = open(root, path, flags).entry("open", path)?;
    let mut names = vec![0; 1024];
    let length = loop {
        match fs::flistxattr(&fd, &mut names[..]) {
            Err(Errno::RANGE) if names.len() < XATTR_MAX => names.resize(XATTR_MAX, 0),
            Err(Errno::OPNOTSUPP) => return Ok(found),
            other => break other.entry("list the attributes of", path)?,
        }
    };
    for name in names[..length].split(|b| *b == 0).filter(|n| belongs(n)) {
        let mut value = vec![0; XATTR_MAX];
        match fs::fgetxattr(&fd, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno).entry("read an attribute of", path),
        }
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

/// Says whether an attribute belongs into a layer: what programs and users set, not what this machine's own security
/// modules and file systems keep on it, and not our own notes.
fn belongs(name: &[u8]) -> bool {
    let own = meta::XATTR_PREFIX.as_bytes();
    match name {
        b"security.capability" => true,
        _ if name.starts_with(own) || name.starts_with(b"user.overlay.") => false,
        _ if name.starts_with(b"trusted.overlay.") => false,
        _ => name.starts_with(b"user.") || name.starts_with(b"trusted."),
    }
}

/// Opens a regular file of the tree for reading.
pub(crate) fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<File> {
    let fd = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK).entry("open", path)?;
    Ok(File::from(fd))
}

/// Computes the digest of a regular file of the tree.
pub(crate) fn digest(root: BorrowedFd<'_>, path: &[u8]) -> Result<Digest> {
    let mut file = open_file(root, path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).entry("read", path),
        }
    }
}
