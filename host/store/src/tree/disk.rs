//! Reads inodes of a tree with their metadata, wherever that is kept.
//!
//! Nothing is followed: directories are opened beneath the root without any symbolic link on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;
use stepwell_image::layer::entry::display_path;
use stepwell_image::{Entry, Kind, Mtime};
use stepwell_model::{Digest, Hasher};
use stepwell_sys::meta::{self, DeviceKind, InodeId, Meta, MetaError, SideTable};

use crate::error::{Context as _, Result};
use crate::store::Ids;

use super::index::Stamp;

/// Largest list of attribute names, and largest value (the kernel's own limits).
const XATTR_MAX: usize = 64 << 10;

/// Opens a directory of the tree for listing.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens something of the tree; there must be no symbolic link in the path.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    match open_beneath(root, path, flags) {
        Err(Errno::ACCESS) => open_as_owner(root, path, flags),
        other => other,
    }
}

/// Opens what modes keep even its owner from, as images have it: where this process is root in no namespace, the
/// modes on the way are opened for a moment.
fn open_as_owner(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    // One at a time, so that nobody takes another one's moment for the true mode.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let set = |file: &OwnedFd, mode: u32| {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::chmodat(fs::CWD, link, Mode::from_raw_mode(mode), AtFlags::empty())
    };
    let mut opened = Vec::new();
    let ends = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at);
    for end in [0].into_iter().chain(ends).chain([path.len()]) {
        let Ok(file) = open_beneath(root, &path[..end], OFlags::PATH) else {
            break;
        };
        let mode = fs::fstat(&file)?.st_mode;
        let wanted = match FileType::from_raw_mode(mode) {
            FileType::Directory => 0o700,
            FileType::RegularFile => 0o600,
            _ => continue,
        };
        if mode & wanted != wanted && set(&file, mode & 0o7777 | wanted).is_ok() {
            opened.push((file, mode & 0o7777));
        }
    }
    let result = open_beneath(root, path, flags);
    for (file, mode) in opened.iter().rev() {
        set(file, *mode)?;
    }
    result
}

/// Gives a directory's owner the right to list, enter and change it.
pub(crate) fn open_to_owner(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    let dir = open_beneath(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    let mode = fs::fstat(&dir)?.st_mode & 0o7777;
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    fs::chmodat(
        fs::CWD,
        link,
        Mode::from_raw_mode(mode | 0o700),
        AtFlags::empty(),
    )
}

/// Opens something of the tree as far as its modes allow.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
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
    let (mut kept, xattrs) = match file_type(stat) {
        FileType::RegularFile | FileType::Directory => attributes(root, path, ids)?,
        _ => Default::default(),
    };
    let beside = side.get(InodeId::of(stat));
    if beside.is_some() {
        kept = beside.cloned();
    }
    let Some(kind) = kind(root, path, stat, kept.as_ref())? else {
        return Ok(None);
    };
    let is_link = matches!(kind, Kind::Symlink { .. });
    let mut entry = Entry::new(path, kind, if is_link { 0o777 } else { mode(stat) });
    entry.mtime = mtime(stat);
    (entry.uid, entry.gid) = match (ids, &kept) {
        (Ids::Real, _) if beside.is_none() => (stat.stx_uid, stat.stx_gid),
        (_, Some(meta)) => (meta.uid, meta.gid),
        (_, None) => (0, 0),
    };
    entry.xattrs = xattrs;
    entry
        .xattrs
        .extend(kept.map(|m| m.xattrs).unwrap_or_default());
    Ok(Some(entry))
}

pub(crate) fn mode(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

fn kind(
    root: BorrowedFd<'_>,
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
            let link = open(root, path, OFlags::PATH).entry("open", path)?;
            let target = fs::readlinkat(&link, c"", Vec::new()).entry("read link", path)?;
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

/// Extended attributes by their names.
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads the attributes of a regular file or a directory: what is kept on it in place of the kernel, and those that
/// belong into a layer.  Most have none: one open and one list are all that those cost.
fn attributes(root: BorrowedFd<'_>, path: &[u8], ids: Ids) -> Result<(Option<Meta>, Xattrs)> {
    let (mut kept, mut found) = (None, Xattrs::new());
    let fd = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK).entry("open", path)?;
    let mut names = vec![0; 1024];
    let length = loop {
        match fs::flistxattr(&fd, &mut names[..]) {
            Err(Errno::RANGE) if names.len() < XATTR_MAX => names.resize(XATTR_MAX, 0),
            Err(Errno::OPNOTSUPP) => return Ok((None, found)),
            other => break other.entry("list the attributes of", path)?,
        }
    };
    let is_own = |name: &[u8]| name == meta::XATTR.as_bytes();
    for name in names[..length]
        .split(|b| *b == 0)
        .filter(|n| belongs(n) || is_own(n))
    {
        let mut value = vec![0; XATTR_MAX];
        match fs::fgetxattr(&fd, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno).entry("read an attribute of", path),
        }
        if is_own(name) {
            kept = own_notes(&value, path, ids)?;
        } else {
            found.insert(name.to_vec(), value);
        }
    }
    Ok((kept, found))
}

/// What is kept on an inode in place of the kernel.  Where the kernel holds owners that is only the number of a device
/// node that could not be made, and a step may have written anything there.
fn own_notes(value: &[u8], path: &[u8], ids: Ids) -> Result<Option<Meta>> {
    match (ids, Meta::decode(value)) {
        (Ids::Emulated, Ok(meta)) => Ok(Some(meta)),
        (Ids::Emulated, Err(what)) => {
            let subject = display_path(path);
            Err(MetaError::Malformed { subject, what }.into())
        }
        (Ids::Real, decoded) => Ok(decoded.ok().filter(|meta| meta.device.is_some())),
    }
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
