//! Makes one inode of a tree with its metadata, and mends the metadata of one that is there.
//!
//! Creating files is what unpacking costs, so calls are counted here: a plain file of root's takes open, write, utimens,
//! statx and close.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use stepwell_image::{Entry, Kind, Mtime};
use stepwell_sys::meta::{self, Device, DeviceKind, InodeId, Meta, SideTable};

use crate::error::{Context as _, Result};
use crate::store::Ids;

use super::disk;
use super::donor::Content;
use super::index::Stamp;

/// Zeros of at least this length, aligned, become a hole.
const HOLE: usize = 64 << 10;

/// Makes inodes in one tree.
pub(crate) struct Creator<'a> {
    pub(crate) ids: Ids,
    /// Bits that the kernel takes off the modes of new files.
    umask: u32,
    /// Who new files belong to.
    own: (u32, u32),
    side: Mutex<&'a mut SideTable>,
}

impl<'a> Creator<'a> {
    pub(crate) fn new(ids: Ids, side: &'a mut SideTable) -> Self {
        let own = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Self {
            ids,
            umask: umask(),
            own,
            side: Mutex::new(side),
        }
    }

    /// Makes a regular file with the bytes of `content`.
    pub(crate) fn file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        content: &mut dyn Read,
    ) -> Result<Stamp> {
        let plain = entry.mode & 0o777;
        let file = self.new_file(dir, name, plain, &entry.path)?;
        write_sparse(&file, entry.size(), content).entry("write", &entry.path)?;
        self.finish_fd(file.as_fd(), entry, plain & !self.umask)
    }

    /// Makes a regular file that shares its content with another; none where that cannot be.
    pub(crate) fn clone_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        content: &Content<'_>,
    ) -> Result<Option<Stamp>> {
        let plain = entry.mode & 0o777;
        let file = self.new_file(dir, name, plain, &entry.path)?;
        if !content.clone_to(&file) {
            fs::unlinkat(dir, name, AtFlags::empty()).entry("delete", &entry.path)?;
            return Ok(None);
        }
        self.finish_fd(file.as_fd(), entry, plain & !self.umask)
            .map(Some)
    }

    /// Makes a regular file whose content is in memory.
    pub(crate) fn small_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        content: &[u8],
    ) -> Result<Stamp> {
        let plain = entry.mode & 0o777;
        let mut file = self.new_file(dir, name, plain, &entry.path)?;
        file.write_all(content).entry("write", &entry.path)?;
        self.finish_fd(file.as_fd(), entry, plain & !self.umask)
    }

    /// Makes what has no content: links, devices, fifos.
    pub(crate) fn special(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<Stamp> {
        let path = &entry.path;
        match &entry.kind {
            Kind::Symlink { target } => {
                fs::symlinkat(&target[..], dir, name).entry("make link", path)?;
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode((entry.mode & 0o777) as RawMode);
                fs::mknodat(dir, name, FileType::Fifo, mode, 0).entry("make fifo", path)?;
            }
            Kind::Char { major, minor } => {
                return self.device(dir, name, entry, DeviceKind::Char, *major, *minor);
            }
            Kind::Block { major, minor } => {
                return self.device(dir, name, entry, DeviceKind::Block, *major, *minor);
            }
            Kind::File { .. } | Kind::Dir | Kind::Hardlink { .. } => {
                return self.small_file(dir, name, entry, &[]);
            }
        }
        self.finish_at(dir, name, entry)
    }

    /// Makes a directory that only its owner may use; its metadata are set when all is in it.
    pub(crate) fn dir(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        fs::mkdirat(dir, name, Mode::from_raw_mode(0o700 as RawMode)).entry("make directory", path)
    }

    /// Sets all metadata of an open file or directory.
    pub(crate) fn mend(
        &self,
        fd: BorrowedFd<'_>,
        entry: &Entry,
        old: Option<&Entry>,
    ) -> Result<Stamp> {
        for name in old.iter().flat_map(|o| o.xattrs.keys()) {
            if !entry.xattrs.contains_key(name) && self.is_kernel_xattr(name) {
                match fs::fremovexattr(fd, &name[..]) {
                    Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
                    Err(errno) => return Err(errno).entry("remove an attribute of", &entry.path),
                }
            }
        }
        if self.ids == Ids::Emulated {
            // What was kept of the old one must not stay where the new one needs nothing kept.
            let stat = disk::stat_fd(fd).entry("stat", &entry.path)?;
            let had = old.is_some_and(|o| !self.kept(o).is_default());
            if had && self.kept(entry).is_default() {
                let _ = fs::fremovexattr(fd, meta::XATTR);
                self.side(|side| side.remove(InodeId::of(&stat)));
            }
        }
        self.finish_fd(fd, entry, u32::MAX)
    }

    fn new_file(&self, dir: BorrowedFd<'_>, name: &[u8], mode: u32, path: &[u8]) -> Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode as RawMode);
        let fd: OwnedFd = fs::openat(dir, name, flags, mode).entry("create", path)?;
        Ok(File::from(fd))
    }

    /// Owner, attributes, mode and time of an open file whose permission bits are `have`.
    fn finish_fd(&self, fd: BorrowedFd<'_>, entry: &Entry, have: u32) -> Result<Stamp> {
        let path = &entry.path;
        let mut have = have;
        match self.ids {
            Ids::Real => {
                if have == u32::MAX || (entry.uid, entry.gid) != self.own {
                    fs::fchown(fd, Some(uid(entry)), Some(gid(entry)))
                        .entry("change the owner of", path)?;
                    have = u32::MAX;
                }
            }
            Ids::Emulated => self.keep(fd, &self.kept(entry), path)?,
        }
        for (name, value) in entry.xattrs.iter().filter(|(n, _)| self.is_kernel_xattr(n)) {
            match fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
                Ok(()) => {}
                // A file system without attributes, or a container that may not set this one: as with docker and
                // Buildah the file is unpacked without it.
                Err(Errno::OPNOTSUPP | Errno::PERM) => {
                    tracing::debug!(
                        path = entry.display(),
                        "an extended attribute cannot be set here"
                    );
                }
                Err(errno) => return Err(errno).entry("set an attribute of", path),
            }
        }
        if have != entry.mode {
            let mode = Mode::from_raw_mode(entry.mode as RawMode);
            fs::fchmod(fd, mode).entry("change the mode of", path)?;
        }
        fs::futimens(fd, &times(entry.mtime)).entry("set the time of", path)?;
        Ok(disk::stamp(&disk::stat_fd(fd).entry("stat", path)?))
    }

    /// Owner and time of what cannot be opened.
    fn finish_at(&self, dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<Stamp> {
        let path = &entry.path;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if self.ids == Ids::Real && (entry.uid, entry.gid) != self.own {
            fs::chownat(dir, name, Some(uid(entry)), Some(gid(entry)), nofollow)
                .entry("change the owner of", path)?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            let mode = Mode::from_raw_mode(entry.mode as RawMode);
            fs::chmodat(dir, name, mode, AtFlags::empty()).entry("change the mode of", path)?;
        }
        fs::utimensat(dir, name, &times(entry.mtime), nofollow).entry("set the time of", path)?;
        let stat = disk::stat(dir, name).entry("stat", path)?;
        if self.ids == Ids::Emulated {
            let kept = self.kept(entry);
            if !kept.is_default() {
                self.side(|side| side.set(InodeId::of(&stat), kept));
            }
        }
        Ok(disk::stamp(&stat))
    }

    /// Makes an empty file that stands for a device node: a real one would be a way to the machine's disks, wherever no device
    /// control group is in between.
    fn device(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        kind: DeviceKind,
        major: u32,
        minor: u32,
    ) -> Result<Stamp> {
        let file = self.new_file(dir, name, 0o600, &entry.path)?;
        let device = Some(Device { kind, major, minor });
        let kept = Meta {
            uid: entry.uid,
            gid: entry.gid,
            device,
            ..self.kept(entry)
        };
        let path = &entry.path;
        self.keep(file.as_fd(), &kept, path)?;
        if self.ids == Ids::Real {
            fs::fchown(&file, Some(uid(entry)), Some(gid(entry)))
                .entry("change the owner of", path)?;
        }
        let mode = Mode::from_raw_mode(entry.mode as RawMode);
        fs::fchmod(&file, mode).entry("change the mode of", path)?;
        fs::futimens(&file, &times(entry.mtime)).entry("set the time of", path)?;
        Ok(disk::stamp(
            &disk::stat_fd(file.as_fd()).entry("stat", path)?,
        ))
    }

    /// Keeps beside an inode what the kernel does not take.
    fn keep(&self, fd: BorrowedFd<'_>, kept: &Meta, path: &[u8]) -> Result<()> {
        if kept.is_default() {
            return Ok(());
        }
        match fs::fsetxattr(fd, meta::XATTR, &kept.encode(), XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC | Errno::RANGE | Errno::TOOBIG) => {
                let stat = disk::stat_fd(fd).entry("stat", path)?;
                self.side(|side| side.set(InodeId::of(&stat), kept.clone()));
                Ok(())
            }
            Err(errno) => Err(errno).entry("keep the owner of", path),
        }
    }

    /// What the kernel does not take of an entry.
    fn kept(&self, entry: &Entry) -> Meta {
        let xattrs = entry
            .xattrs
            .iter()
            .filter(|(name, _)| !self.is_kernel_xattr(name));
        Meta {
            uid: entry.uid,
            gid: entry.gid,
            device: None,
            xattrs: xattrs.map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }

    /// Says whether an attribute is set on the file itself.
    fn is_kernel_xattr(&self, name: &[u8]) -> bool {
        !name.starts_with(meta::XATTR_PREFIX.as_bytes())
            && (self.ids == Ids::Real || name.starts_with(b"user."))
    }

    fn side<T>(&self, use_it: impl FnOnce(&mut SideTable) -> T) -> T {
        // Nothing that is done under this lock can panic half-way.
        use_it(
            &mut self
                .side
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

/// Writes content, leaving holes where there are long runs of zeros.
fn write_sparse(mut file: &File, size: u64, content: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; HOLE];
    let mut hole = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match content.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let piece = &buffer[..filled];
        if filled == HOLE && piece.iter().all(|b| *b == 0) {
            hole += filled as u64;
        } else if filled > 0 {
            if hole > 0 {
                io::Seek::seek_relative(&mut file, hole as i64)?;
                hole = 0;
            }
            file.write_all(piece)?;
        }
        if filled < HOLE {
            break;
        }
    }
    if hole > 0 || io::Seek::stream_position(&mut file)? < size {
        file.set_len(size)?;
    }
    Ok(())
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

/// Times for a file: the access time is that of the last change too, so that equal layers give equal trees.
pub(crate) fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.secs,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The process's umask, which can only be read here without changing it for other threads.
fn umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        // Unknown: every mode is set explicitly.
        .unwrap_or(0o777)
}
