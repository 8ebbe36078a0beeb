//! Looking into a step's tree from outside, with paths meant as the step means them: absolute symlinks of the
//! image resolve beneath the tree's root and nothing leads out (openat2(2), RESOLVE_IN_ROOT).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use stepwell_sys::SysError;
use stepwell_sys::error::Context;

/// An open tree.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Opens the tree whose root directory is `path`.
    pub fn open(path: &Path) -> Result<Self, SysError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = path.to_string_lossy();
        let root = rustix::fs::open(path, flags, Mode::empty()).context("open", name.as_ref())?;
        let path = path.canonicalize().context("realpath", name.as_ref())?;
        Ok(Self { root, path })
    }

    /// Absolute path of the root directory, without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another handle on the root directory.
    pub fn handle(&self) -> Result<OwnedFd, SysError> {
        self.root.try_clone().context("dup", "tree root")
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.trim_matches('/').is_empty() {
            "."
        } else {
            path
        };
        // EAGAIN: something was renamed meanwhile and the kernel will not say that the way is inside.
        loop {
            match rustix::fs::openat2(
                &self.root,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Describes what `path` leads to.
    pub fn stat(&self, path: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(self.open_at(path, OFlags::PATH)?, "", AtFlags::EMPTY_PATH)
    }

    /// Reads at most `limit` bytes of a regular file; anything else is EINVAL, so that no pipe is waited for.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        if FileType::from_raw_mode(self.stat(path)?.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let file = File::from(self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Reads a small text file; one that is missing or unreadable is empty, as for the C library's look-ups.
    pub fn read_text(&self, path: &str) -> String {
        // Stops an image from having the builder read its disk full of passwd.
        const LIMIT: u64 = 16 << 20;
        self.read(path, LIMIT)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Opens the directory `path`.
    pub fn directory(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
