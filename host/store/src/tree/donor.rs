//! Takes the content of a new tree's files from a tree that is there already, where the file system lets files share extents
//! (`FICLONE` on xfs and btrfs): nothing is decompressed then, and no content is written.
//!
//! # Why a clone never holds what a running step wrote
//! The donor may be anybody's: idle, read, lent to a hostile step.  No lock on it is taken, so nobody is kept from it.  What is
//! believed is its index, and of that only files of which the kernel says, *after* they were cloned, that inode, length and
//! ctime are those of the index:
//!
//! 1. the clock of the file system is past the newest ctime in the index before it is seen that nothing was changed yet
//!    (`state`), or that the clock was waited for before anything was (`begun`, see [`super::Checkout::begin`]).  So whatever is done to
//!    the tree afterwards, by whomever, gives what it changes a ctime that the index does not have;
//! 2. the index is whole, and the one that belongs to that state: it is rewritten only when neither file is there, and both are
//!    looked for again after it was read;
//! 3. the kernel sets the ctime before a write is done, and before a page becomes writable through a shared mapping: no
//!    mapping is older than the step, since no process of an earlier one is left.  A clone and a truncation exclude each
//!    other.  So a file with the index's ctime after the clone had the index's content in the clone.  Requests
//!    that change contents without a ctime are refused to steps (`CONTROLS` in `host/steps/src/run/walls.rs`).
//!
//! Of a donor only contents are taken, by their digests.  Paths, owners, modes, times and attributes are those of the layers, so that the
//! tree is the same whichever way it was made.  What cannot be taken is read from the layer.
//!
//! Decision: `host/docs/decisions/0036-roots-stay-trees.md`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::io::Errno;
use stepwell_model::Digest;

use crate::error::Result;
use crate::store::Store;

use super::checkout::wait_for_clock;
use super::disk;
use super::index::{Index, Stamp};
use super::state::{State, TreePaths, boot};

/// File systems that share extents, and whose ctimes are known to be exact enough: `f_type` of statfs(2).  Those of the network
/// show a ctime that others gave, some time later.
const SHARING: [i64; 2] = [
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
];

/// A tree whose files are cloned.
pub(super) struct Donor {
    root: OwnedFd,
    index: Index,
    /// Nodes of the index by the digests of their contents.
    contents: HashMap<Digest, u32>,
    /// Whether the file system answered that it cannot.
    refused: AtomicBool,
}

/// A file of a donor, open.
pub(super) struct Content<'a> {
    file: File,
    stamp: Stamp,
    size: u64,
    refused: &'a AtomicBool,
}

impl Store {
    /// Finds the tree that has the most of some layers in it, for a tree that lies at `root`; none where the file system shares no
    /// extents.  That a tree cannot be used is no failure, since there are the layers.
    pub(super) fn donor(&self, root: BorrowedFd<'_>, layers: &HashSet<Digest>) -> Option<Donor> {
        let is_sharing = rustix::fs::fstatfs(root).is_ok_and(|s| SHARING.contains(&s.f_type));
        if !is_sharing || layers.is_empty() {
            return None;
        }
        let worth = |(_, state): &(TreePaths, State)| -> u64 {
            let useful = state.layers.iter().filter(|l| layers.contains(&l.diff_id));
            useful.map(|l| l.entries).sum()
        };
        let mut trees: Vec<_> = self
            .trees()
            .into_iter()
            .filter_map(|paths| Some((paths.read_indexed_state()?, paths)))
            .map(|(state, paths)| (paths, state))
            .filter(|tree| tree.1.ids == self.ids() && tree.1.boot == boot() && worth(tree) > 0)
            .collect();
        trees.sort_by_key(|tree| std::cmp::Reverse(worth(tree)));
        trees
            .iter()
            .find_map(|(paths, state)| match self.open_donor(paths, state) {
                Ok(donor) => donor,
                Err(error) => {
                    tracing::debug!(%error, "nothing is cloned from a tree");
                    None
                }
            })
    }

    /// Opens a tree that was in `state`; none where it is no more, or is not known to be.
    fn open_donor(&self, paths: &TreePaths, state: &State) -> Result<Option<Donor>> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // The clock was set back.
        if state.newest.0 > now.as_secs() as i64 {
            return Ok(None);
        }
        let (probe, file) = self.session().file()?;
        let waited = wait_for_clock(&file, &probe, state.newest);
        let _ = fs::remove_file(&probe);
        waited?;
        let (Ok(root), Ok(index)) = (File::open(paths.root()), fs::read(paths.index())) else {
            return Ok(None);
        };
        let Some(index) = Index::decode(&index) else {
            return Ok(None);
        };
        let is_still = paths.read_indexed_state().is_some_and(|s| s == *state);
        if !is_still || index.generation != state.generation {
            return Ok(None);
        }
        Ok(Some(Donor::new(root.into(), index)))
    }
}

impl Donor {
    fn new(root: OwnedFd, index: Index) -> Self {
        let numbered = index.nodes.iter().enumerate();
        let contents = numbered
            .filter(|(_, node)| node.entry.size() > 0 && node.stamp.ino != 0)
            .filter_map(|(number, node)| Some((node.digest?, number as u32)))
            .collect();
        Self {
            root,
            index,
            contents,
            refused: AtomicBool::new(false),
        }
    }

    /// Opens the file that has this content; none where there is none that is as it was.
    pub(super) fn content(&self, digest: Option<Digest>, size: u64) -> Option<Content<'_>> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let node = &self.index.nodes[*self.contents.get(&digest?)? as usize];
        // The tree is somebody else's: no mode in it is changed for a moment, and no device opened that took the file's place.
        let found = disk::open_beneath(self.root.as_fd(), &node.entry.path, OFlags::PATH).ok()?;
        if !is_untouched(found.as_fd(), node.stamp, size) {
            return None;
        }
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        Some(Content {
            file: File::open(link).ok()?,
            stamp: node.stamp,
            size,
            refused: &self.refused,
        })
    }
}

fn is_untouched(file: BorrowedFd<'_>, stamp: Stamp, size: u64) -> bool {
    disk::stat_fd(file).is_ok_and(|stat| disk::stamp(&stat) == stamp && stat.stx_size == size)
}

impl Content<'_> {
    /// Has an empty file share the content; says whether it does, and holds what the index says.  Where not, the file may
    /// hold anything, and has to go.
    pub(super) fn clone_to(&self, file: &File) -> bool {
        match rustix::fs::ioctl_ficlone(file, &self.file) {
            Ok(()) => is_untouched(self.file.as_fd(), self.stamp, self.size),
            Err(errno) => {
                if matches!(errno, Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY) {
                    self.refused.store(true, Ordering::Relaxed);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use stepwell_image::{Entry, Kind};

    use super::super::index::IndexNode;
    use super::*;
    use crate::store::{Ids, StoreOptions};

    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("stepwell-store-")
            .tempdir_in("/var/tmp")
            .unwrap()
    }

    /// An index of one file in a directory, as it is now.
    fn index(root: &Path, content: &[u8]) -> Index {
        let stat = disk::stat_fd(File::open(root.join("file")).unwrap().as_fd()).unwrap();
        let size = content.len() as u64;
        let node = IndexNode {
            entry: Entry::new("file", Kind::File { size }, 0o644),
            digest: Some(Digest::of(content)),
            stamp: disk::stamp(&stat),
        };
        Index {
            generation: 3,
            nodes: vec![node],
            ..Index::default()
        }
    }

    /// The look before a clone is for speed; this one is what counts.
    #[test]
    fn a_file_that_changes_at_the_last_moment_is_not_taken() {
        let dir = directory();
        let (path, content) = (dir.path().join("file"), [7; 5000]);
        fs::write(&path, content).unwrap();
        let index = index(dir.path(), &content);
        let probe = dir.path().join("probe");
        wait_for_clock(&File::create(&probe).unwrap(), &probe, index.newest()).unwrap();
        let donor = Donor::new(File::open(dir.path()).unwrap().into(), index);
        let new = |name: &str| File::create(dir.path().join(name)).unwrap();
        let open = || donor.content(Some(Digest::of(&content)), 5000).unwrap();
        if !open().clone_to(&new("as it was")) {
            assert!(donor.refused.load(Ordering::Relaxed));
            println!("NOT RUN: this file system shares no contents");
            return;
        }
        assert_eq!(fs::read(dir.path().join("as it was")).unwrap(), content);
        let opened = open();
        let writer = File::options().write(true).open(&path).unwrap();
        writer.write_all_at(b"changed", 0).unwrap();
        assert!(!opened.clone_to(&new("changed")));
        assert!(donor.content(Some(Digest::of(&content)), 5000).is_none());
    }

    #[test]
    fn a_tree_gives_nothing_where_its_index_may_be_about_something_else() {
        let dir = directory();
        let store =
            Store::open(&dir.path().join("store"), StoreOptions::new(Ids::Emulated)).unwrap();
        let paths = TreePaths(dir.path().join("tree"));
        fs::create_dir_all(paths.root()).unwrap();
        fs::write(paths.root().join("file"), "content").unwrap();
        let index = index(&paths.root(), b"content");
        fs::write(paths.index(), index.encode()).unwrap();
        let state = State {
            generation: 3,
            ids: Ids::Emulated,
            boot: boot(),
            layers: Vec::new(),
            bytes: 7,
            newest: index.newest(),
            has_strays: false,
        };
        let is_donor = |state: &State| store.open_donor(&paths, state).unwrap().is_some();
        assert!(!is_donor(&state), "without a state");
        paths.write_state(&state).unwrap();
        assert!(is_donor(&state));
        paths.begin().unwrap();
        assert!(is_donor(&state), "a step is at work in it");
        let (mut other, mut future) = (state.clone(), state.clone());
        other.generation = 4;
        assert!(!is_donor(&other), "it was saved meanwhile");
        paths.write_state(&other).unwrap();
        assert!(!is_donor(&other), "its index is an older one");
        paths.write_state(&state).unwrap();
        fs::write(paths.index(), &index.encode()[..40]).unwrap();
        assert!(!is_donor(&state), "its index is being written");
        fs::write(paths.index(), index.encode()).unwrap();
        future.newest.0 += 1000;
        paths.write_state(&future).unwrap();
        assert!(!is_donor(&future), "the clock was set back");
    }
}
