//! Metadata of inodes that take no extended attribute.

use std::collections::BTreeMap;

use rustix::fs::{Statx, StatxFlags};
use serde::{Deserialize, Serialize};

use super::Meta;

/// What tells an inode from every other that ever was on the same file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InodeId {
    /// Number of the inode.
    pub ino: u64,
    /// Time of birth, seconds; 0 where the file system keeps none.
    pub birth_sec: i64,
    /// Time of birth, nanoseconds.
    pub birth_nsec: u32,
}

impl InodeId {
    /// What `statx` has to be asked for.
    pub const STATX: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    /// Takes the identity from a `statx` with [`Self::STATX`].
    pub fn of(stat: &Statx) -> Self {
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let birth = if has_birth {
            (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
        } else {
            (0, 0)
        };
        Self {
            ino: stat.stx_ino,
            birth_sec: birth.0,
            birth_nsec: birth.1,
        }
    }
}

/// Metadata of inodes that take no extended attribute; of one file system, kept with a tree's index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(InodeId, Meta)>", into = "Vec<(InodeId, Meta)>")]
pub struct SideTable {
    entries: BTreeMap<InodeId, Meta>,
}

impl From<Vec<(InodeId, Meta)>> for SideTable {
    fn from(entries: Vec<(InodeId, Meta)>) -> Self {
        Self {
            entries: entries.into_iter().collect(),
        }
    }
}

impl From<SideTable> for Vec<(InodeId, Meta)> {
    fn from(table: SideTable) -> Self {
        table.entries.into_iter().collect()
    }
}

impl SideTable {
    /// Takes over what another table keeps.
    pub fn extend(&mut self, other: &Self) {
        let entries = other.entries.iter();
        self.entries
            .extend(entries.map(|(inode, meta)| (*inode, meta.clone())));
    }

    /// Returns what is kept of an inode.
    pub fn get(&self, inode: InodeId) -> Option<&Meta> {
        self.entries.get(&inode)
    }

    /// Keeps `meta`, or forgets the inode when there is nothing to keep.
    pub fn set(&mut self, inode: InodeId, meta: Meta) {
        if meta.is_default() {
            self.entries.remove(&inode);
        } else {
            self.entries.insert(inode, meta);
        }
    }

    /// Forgets an inode.
    pub fn remove(&mut self, inode: InodeId) {
        self.entries.remove(&inode);
    }

    /// Keeps only the inodes that `alive` says are still there.
    pub fn retain(&mut self, mut alive: impl FnMut(InodeId) -> bool) {
        self.entries.retain(|inode, _| alive(*inode));
    }

    /// Returns how many inodes are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
