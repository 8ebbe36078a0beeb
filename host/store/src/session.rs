//! A process's own corner for what is not finished: temporary files, and trees on their way out.
//!
//! Nothing is cleaned up when a store is opened, because a build that finds everything in its cache must not pay for
//! it.  The first process that writes something makes its corner, and then removes what dead ones left behind.
//!
//! # Locks
//! `tmp/NAME.lock` is held exclusively (flock) as long as the process lives, and is made *before* `tmp/NAME/`; whoever
//! can take the lock of another knows that its owner is dead, removes the directory first and the lock last.  A
//! process that finds its lock file gone or replaced after locking it (a sweeper was quicker) takes another name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use rustix::fs::FlockOperation;

use crate::error::{Context as _, Result, StoreError};
use crate::spread::spread;
use crate::tree::remove;

/// The corner of this process; made when it is first needed.
#[derive(Debug)]
pub(crate) struct Session {
    tmp: PathBuf,
    corner: OnceLock<Corner>,
    counter: AtomicU64,
}

#[derive(Debug)]
struct Corner {
    dir: PathBuf,
    lock_path: PathBuf,
    /// Dropping it would release the lock.
    _lock: File,
}

impl Session {
    pub(crate) fn new(tmp: PathBuf) -> Self {
        Self {
            tmp,
            corner: OnceLock::new(),
            counter: AtomicU64::new(0),
        }
    }

    /// Returns a path in the corner that nothing has yet.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(self.corner()?.dir.join(number.to_string()))
    }

    /// Returns a path in the corner whose name no other process ever takes.
    pub(crate) fn unique_path(&self) -> Result<PathBuf> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let name = format!("{:x}-{}-{number}", now.as_nanos(), std::process::id());
        Ok(self.corner()?.dir.join(name))
    }

    /// Makes a file in the corner.
    pub(crate) fn file(&self) -> Result<(PathBuf, File)> {
        let path = self.path()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context("create", &path)?;
        Ok((path, file))
    }

    /// Writes a whole file under its final name: it is there completely or not at all.
    pub(crate) fn publish(&self, target: &Path, content: &[u8]) -> Result<()> {
        let (path, mut file) = self.file()?;
        let written = io::Write::write_all(&mut file, content)
            .context("write", &path)
            .and_then(|()| fs::rename(&path, target).context("rename", target));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Moves a directory into the corner and removes it there, in the background.
    pub(crate) fn discard(&self, dir: &Path) -> Result<()> {
        let path = self.path()?;
        fs::rename(dir, &path).context("rename", dir)?;
        thread::spawn(move || {
            // What is left is removed by the next process that writes.
            if let Err(error) = remove::remove_all(&path) {
                tracing::debug!(%error, "a discarded tree stays for now");
            }
        });
        Ok(())
    }

    fn corner(&self) -> Result<&Corner> {
        if let Some(corner) = self.corner.get() {
            return Ok(corner);
        }
        let made = Corner::make(&self.tmp)?;
        // Two threads may both have made one; the loser's is removed when it is dropped.
        let corner = self.corner.get_or_init(|| made);
        let (tmp, own) = (self.tmp.clone(), corner.lock_path.clone());
        thread::spawn(move || sweep(&tmp, &own));
        Ok(corner)
    }
}

impl Corner {
    fn make(tmp: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let lock_path = tmp.join(format!("{name}.lock"));
            let Some(lock) = try_lock(&lock_path)? else {
                continue;
            };
            let dir = tmp.join(name);
            // A leftover of a dead process that had the same pid.
            if dir.exists() {
                remove::remove_all(&dir)?;
            }
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&dir)
                .context("create", &dir)?;
            spread(&dir);
            return Ok(Self {
                dir,
                lock_path,
                _lock: lock,
            });
        }
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        // Whatever is still being removed in the background stays, with the lock file, for a sweeper.
        if fs::remove_dir(&self.dir).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// Takes the lock file at `path`; none where another process has it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .context("open", path)?;
    Ok(lock_exclusive(&file, path)?.then_some(file))
}

/// Locks `file` without waiting and says whether it is locked and still the file at `path`.
pub(crate) fn lock_exclusive(file: &File, path: &Path) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => is_still(file, path),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(StoreError::io("lock", path.display(), errno)),
    }
}

/// Says whether `path` still names the open file.
pub(crate) fn is_still(file: &File, path: &Path) -> Result<bool> {
    let own = file.metadata().context("stat", path)?;
    Ok(fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino())))
}

/// Removes the corners of dead processes.
fn sweep(tmp: &Path, own: &Path) {
    let Ok(names) = fs::read_dir(tmp) else { return };
    for path in names.flatten().map(|e| e.path()) {
        if path.extension().is_none_or(|e| e != "lock") || path == own {
            continue;
        }
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if lock_exclusive(&file, &path).unwrap_or(false)
            && remove::remove_all(&path.with_extension("")).is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}
