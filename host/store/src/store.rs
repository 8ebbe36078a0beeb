//! A store: opening it, and what its parts share.
//!
//! # Locks
//! In the order in which they may be taken; none of them is ever waited for while another is held.
//! 1. `lock`: every process holds it shared while it has the store open; [`Store::prune`](crate::prune) takes it
//!    exclusively where it can, and else leaves everything alone that was used within its lease.
//! 2. `trees/NAME/lock`: exclusive while a tree is transformed or a step runs in it, shared while it is only read.
//! 3. `caches/NAME/lock`: exclusive while a step uses a cache.  Callers wait for caches before they take trees, and for several
//!    in one order; what looks after a tree that it has locked never waits for one.
//! 4. `tmp/NAME.lock`: see [`session`](crate::session).
//!
//! All are `flock`s on descriptors that are closed on exec, so they end with the process, however it ends.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};
use stepwell_model::Digest;

use crate::blobs::Blobs;
use crate::error::{Context as _, Result};
use crate::interrupt::Interrupt;
use crate::paths::Paths;
use crate::records::Records;
use crate::session::Session;
use crate::spread::spread;
use crate::toc::Toc;

/// Who holds the owners of files in trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    /// The kernel: this process may change owners and make devices; what is on disk is the truth.
    Real,
    /// One id is mapped: owners, devices and refused attributes are kept by `stepwell_sys::meta`.
    Emulated,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Who holds the owners of files in trees.
    pub ids: Ids,
    /// Trees that may lie idle; more are removed, the longest unused first.
    pub idle_trees: usize,
}

impl StoreOptions {
    /// The usual options.
    pub fn new(ids: Ids) -> Self {
        Self { ids, idle_trees: 6 }
    }
}

/// An open store; share it between threads by reference.
#[derive(Debug)]
pub struct Store {
    paths: Paths,
    options: StoreOptions,
    session: Session,
    /// By diff id, and by the blob that was found to have it.
    pub(crate) tocs: Mutex<HashMap<(Digest, Digest), Arc<Toc>>>,
    pub(crate) interrupt: Mutex<Interrupt>,
    /// Dropping it would release the shared lock.
    pub(crate) lock: File,
}

impl Store {
    /// Opens the store below `root`, and makes it where there is none.
    ///
    /// # Errors
    /// The directories or the lock file cannot be made.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self> {
        let paths = Paths::new(root);
        let lock = match open_lock(&paths) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(&paths)?;
                open_lock(&paths)
            }
            other => other,
        };
        let lock = lock.context("open", &paths.lock())?;
        rustix::fs::flock(&lock, FlockOperation::LockShared).context("lock", &paths.lock())?;
        let session = Session::new(paths.tmp());
        Ok(Self {
            paths,
            options,
            session,
            tocs: Mutex::default(),
            interrupt: Mutex::default(),
            lock,
        })
    }

    /// Returns the blobs.
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(self)
    }

    /// Returns the cache records.
    pub fn records(&self) -> Records<'_> {
        Records::new(self)
    }

    /// Returns who holds the owners of files in trees.
    pub fn ids(&self) -> Ids {
        self.options.ids
    }

    /// Returns the directory of the store's current format: a place for files of the caller's own, such as caches of
    /// digests, under names that the table in this crate's documentation does not have.
    pub fn directory(&self) -> &Path {
        self.paths.base()
    }

    /// Writes a file of the caller's own below [`Store::directory`]: completely or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn publish(&self, name: &str, content: &[u8]) -> Result<()> {
        self.session.publish(&self.paths.base().join(name), content)
    }

    /// Makes a private file that nobody else can open, and that is gone with its handle.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn nameless_file(&self) -> Result<File> {
        let (path, file) = self.session.file()?;
        fs::remove_file(&path).context("remove", &path)?;
        Ok(file)
    }

    /// Makes an empty private directory that is removed when the process ends or soon after.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<std::path::PathBuf> {
        let path = self.session.path()?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context("create", &path)?;
        Ok(path)
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(crate) fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}

fn open_lock(paths: &Paths) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(paths.lock())
}

fn create(paths: &Paths) -> Result<()> {
    for dir in paths.directories() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .context("create", &dir)?;
    }
    spread(&paths.tmp());
    let path = paths.lock();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .context("create", &path)?;
    Ok(())
}

/// Notes that a file was used, by its mtime: that is what pruning goes by.  Failing to note it is no failure.
pub(crate) fn touch(file: &File) {
    let time = |nsec| Timespec {
        tv_sec: 0,
        tv_nsec: nsec,
    };
    let times = Timestamps {
        last_access: time(UTIME_OMIT as _),
        last_modification: time(UTIME_NOW as _),
    };
    let _ = rustix::fs::futimens(file, &times);
}
