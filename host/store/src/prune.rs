//! Makes room in a store.
//!
//! # Locks
//! When no other process has the store open (its lock could be taken exclusively), anything may go.  While others are
//! at work only what was not used for [`LEASE`] goes, and trees that nobody has locked: a build notes the use of
//! whatever it relies on.  A record goes before the layers that it names, so that no record is ever without its layers.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use stepwell_model::Digest;

use crate::error::{Context as _, Result, StoreError};
use crate::store::Store;
use crate::tree::TreePaths;
use crate::usage::{UsageItem, UsageKind, list};

/// How long something that was used is left alone while other processes are at work: longer than a build takes.
pub const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// Cache records and all that they hold too, not only what can be made again from them (trees) and what no record
    /// holds.
    pub all: bool,
    /// Only until no more than this many bytes are left, the longest unused first; records count too then.
    pub keep_bytes: Option<u64>,
    /// Only what was not used for this long.
    pub older_than: Option<Duration>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// What it was.
    pub removed: Vec<UsageItem>,
    /// How many items it were.
    pub items: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Whether other processes were at work, so that what they may rely on was left alone.
    pub others_at_work: bool,
}

impl Store {
    /// Removes what the options say and nobody uses.
    ///
    /// # Errors
    /// The store cannot be read, or something cannot be removed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        let alone = self.lock_alone()?;
        let pruned = self.prune_locked(options, alone);
        self.lock_again()?;
        pruned
    }

    fn prune_locked(&self, options: &PruneOptions, alone: bool) -> Result<Pruned> {
        let items = self.usage()?.items;
        let mut left: u64 = items.iter().map(|item| item.size).sum();
        let mut due: Vec<UsageItem> = items
            .into_iter()
            .filter(|item| is_due(item, options, alone))
            .collect();
        due.sort_by_key(|item| item.last_used);
        let mut pruned = Pruned {
            others_at_work: !alone,
            ..Pruned::default()
        };
        for item in due {
            if options.keep_bytes.is_some_and(|keep| left <= keep) {
                break;
            }
            if self.remove_item(&item)? {
                left = left.saturating_sub(item.size);
                pruned.bytes += item.size;
                pruned.items += 1;
                pruned.removed.push(item);
            }
        }
        self.remove_leftovers()?;
        Ok(pruned)
    }

    /// Removes one item and what is worth nothing without it; says whether it was there and free.
    fn remove_item(&self, item: &UsageItem) -> Result<bool> {
        match item.kind {
            UsageKind::Tree => self.remove_tree(&TreePaths(item.path.clone())),
            UsageKind::Cache => self.remove_cache(&item.path),
            UsageKind::Temporary => crate::tree::remove::remove_all(&item.path).map(|()| true),
            UsageKind::Layer | UsageKind::Blob | UsageKind::Record | UsageKind::Other => {
                for key in &item.needed_by {
                    self.records().remove(key);
                }
                if item.path.is_dir() {
                    return crate::tree::remove::remove_all(&item.path).map(|()| true);
                }
                match fs::remove_file(&item.path) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
                    other => other.context("remove", &item.path).map(|()| true),
                }
            }
        }
    }

    /// Removes names of blobs and records that are gone.
    fn remove_leftovers(&self) -> Result<()> {
        let mut kept: HashSet<String> = HashSet::new();
        for (path, digest) in self.known_layers()? {
            if self.blobs().size(&digest).is_some() {
                kept.extend(stem(&path));
            } else {
                let _ = fs::remove_file(&path);
            }
        }
        for path in list(&self.paths().layers())? {
            if path.extension().is_some_and(|e| e == "toc")
                && !stem(&path).is_some_and(|s| kept.contains(&s))
            {
                let _ = fs::remove_file(&path);
            }
        }
        if let Ok(mut tocs) = self.tocs.lock() {
            tocs.clear();
        }
        for path in list(&self.paths().slots())? {
            let key = fs::read_to_string(&path)
                .ok()
                .and_then(|text| text.parse::<Digest>().ok());
            if !key.is_some_and(|key| self.paths().record(&key).exists()) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Takes the store's lock exclusively, if nobody else has it.
    fn lock_alone(&self) -> Result<bool> {
        match rustix::fs::flock(&self.lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => self.lock_again().map(|()| false),
            Err(errno) => Err(StoreError::io("lock", self.paths().lock().display(), errno)),
        }
    }

    /// Shares the lock again; trying to convert it may have lost it (flock(2)).
    fn lock_again(&self) -> Result<()> {
        rustix::fs::flock(&self.lock, FlockOperation::LockShared)
            .context("lock", &self.paths().lock())
    }
}

fn is_due(item: &UsageItem, options: &PruneOptions, alone: bool) -> bool {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let unused = Duration::from_secs(now.as_secs().saturating_sub(item.last_used));
    let records_too = options.all || options.keep_bytes.is_some();
    let is_meant = match item.kind {
        // Of a process that lives, or swept by the next one that writes.
        UsageKind::Temporary => false,
        UsageKind::Tree => true,
        UsageKind::Layer => records_too || item.needed_by.is_empty(),
        // Nothing can make it again.
        UsageKind::Cache => records_too,
        UsageKind::Blob | UsageKind::Record => records_too,
        UsageKind::Other => options.all,
    };
    let is_free = !item.in_use && (alone || item.kind == UsageKind::Tree || unused >= LEASE);
    is_meant && is_free && options.older_than.is_none_or(|limit| unused >= limit)
}

fn stem(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_string_lossy().into_owned())
}
