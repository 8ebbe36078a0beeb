//! The handles on trees that callers hold.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cap_std::fs::Dir;
use stepwell_image::Entry;
use stepwell_sys::meta::SideTable;

use crate::error::{Context as _, Result, StoreError};
use crate::layer::Layer;
use crate::store::{Ids, Store};
use crate::view::split;

use super::capture::{Capture, CaptureOptions, Captured, Differences};
use super::index::{Ctime, Index, Stamp};
use super::state::{State, TreeLayer, TreePaths, boot};
use super::walk::{Walk, What};
use super::{create, disk, remove, unshare};

/// How long the clock of a file system may take for one tick.
const CLOCK_WAIT: Duration = Duration::from_secs(5);

/// A tree that is this process's alone.
///
/// [`begin`](Self::begin) before anything is changed, [`capture`](Self::capture) after; a tree that was begun and not
/// captured is thrown away when the handle is dropped, any other is idle then and can be had again.
#[derive(Debug)]
pub struct Checkout<'a> {
    pub(super) store: &'a Store,
    pub(super) paths: TreePaths,
    /// Dropping it would release the lock.
    pub(super) lock: File,
    pub(super) root: Dir,
    pub(super) root_path: PathBuf,
    pub(super) state: State,
    /// Empty until the tree is handed out.
    pub(super) index: Index,
    pub(super) is_dirty: bool,
}

/// A tree that is read; others may read it too, nobody changes it.
#[derive(Debug)]
pub struct ReadCheckout {
    pub(super) _lock: File,
    pub(super) root: Dir,
    pub(super) root_path: PathBuf,
    pub(super) side: Arc<SideTable>,
    pub(super) ids: Ids,
}

impl ReadCheckout {
    /// Returns the path of the root on the host: absolute, without symbolic links.
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Returns the root.
    pub fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// Returns the metadata of inodes that take no extended attribute.
    pub fn side_table(&self) -> Arc<SideTable> {
        self.side.clone()
    }

    /// Returns a handle of the caller's own on the root.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn root_fd(&self) -> Result<OwnedFd> {
        self.root
            .as_fd()
            .try_clone_to_owned()
            .context("open", &self.root_path)
    }

    /// Returns who holds the owners of files.
    pub fn ids(&self) -> Ids {
        self.ids
    }
}

impl<'a> Checkout<'a> {
    /// Returns the path of the root on the host: absolute, without symbolic links.
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Returns the root.
    pub fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// Returns who holds the owners of files.
    pub fn ids(&self) -> Ids {
        self.state.ids
    }

    /// Returns the metadata of inodes that take no extended attribute.
    pub fn side_table(&self) -> SideTable {
        self.index.side.clone()
    }

    /// Returns what is in the tree as it is handed out, and the number of each inode (0 where it is not known).
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, u64)> {
        let nodes = self.index.nodes.iter();
        nodes.map(|node| (&node.entry, node.stamp.ino))
    }

    /// Allows changes: from now on the tree is worth nothing until it is captured.  Returns when the clock of the file
    /// system has passed everything in the index, so that each change shows.
    ///
    /// # Errors
    /// The tree's state cannot be removed, or the clock does not move.
    pub fn begin(&mut self) -> Result<()> {
        self.is_dirty = true;
        self.paths.begin()?;
        let probe = self.paths.clock();
        let file = File::create(&probe).context("create", &probe)?;
        wait_for_clock(&file, &probe, self.index.newest())
    }

    /// Writes what changed since [`begin`](Self::begin) as a layer; the tree then is what the old layers and the new
    /// one make.  No process may be at work in the tree any more.
    ///
    /// # Errors
    /// The tree cannot be read or the layer cannot be written; the tree is thrown away then.
    pub fn capture(&mut self, options: CaptureOptions) -> Result<Captured> {
        self.forget()?;
        let index = std::mem::take(&mut self.index);
        let side = options.side.unwrap_or_else(|| index.side.clone());
        let mut sink = self.store.layer_sink(options.layer)?;
        let capture = Capture {
            root: self.root.as_fd(),
            ids: self.state.ids,
            index,
            side,
            clamp: options.layer.clamp_mtime,
            ignore: options.ignore,
        };
        let Differences {
            index,
            left_out,
            has_strays,
        } = capture.run(&mut sink)?;
        let entries = sink.len();
        let layer = sink.finish()?;
        let mut layers = self.state.layers.clone();
        layers.push(TreeLayer {
            diff_id: layer.diff_id,
            entries: entries as u64,
        });
        self.state.has_strays |= has_strays;
        self.save(index, layers)?;
        Ok(Captured {
            layer,
            entries,
            left_out,
        })
    }

    /// Throws the tree away.
    ///
    /// # Errors
    /// It cannot be moved out of the way; then the next process finds it without a state and does it.
    pub fn abandon(mut self) -> Result<()> {
        self.is_dirty = false;
        self.discard()
    }

    pub(super) fn discard(&self) -> Result<()> {
        self.paths.forget_state()?;
        if !self.store.empty_of_loans(&self.paths)? {
            // Without a state it is thrown away by whoever finds it next.
            return Ok(());
        }
        self.store.session().discard(&self.paths.0)
    }

    pub(crate) fn paths(&self) -> &TreePaths {
        &self.paths
    }

    /// Ends a loan of the whole tree to a step that was only to read it: where everything is as it was, the tree is idle again,
    /// else it is thrown away.  Says which.  [`begin`](Self::begin) has to come before the loan, and the tree's root has to be
    /// back in its place.
    ///
    /// # Errors
    /// The tree cannot be read or written.
    pub fn settle(mut self) -> Result<bool> {
        self.forget()?;
        let mut index = std::mem::take(&mut self.index);
        let walked = Walk {
            root: self.root.as_fd(),
            ids: self.state.ids,
            index: &index,
            side: &index.side,
            clamp: None,
            ignore: &[],
        }
        .run()?;
        let is_same = walked.removed.is_empty()
            && walked.strays.is_empty()
            && walked
                .found
                .iter()
                .all(|f| matches!(f.what, What::Same { .. }))
            && unshare::foreign(&walked, &index).is_empty();
        if !is_same {
            return Ok(false);
        }
        for found in &walked.found {
            if let What::Same { node, stamp } = found.what {
                index.nodes[node as usize].stamp = stamp;
            }
        }
        index.generation += 1;
        let layers = self.state.layers.clone();
        self.save(index, layers)?;
        Ok(true)
    }

    /// Says that from now on the tree is worth nothing, until it is saved.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.is_dirty = true;
        self.paths.forget_state()
    }

    /// Reads the index; `None` where it is damaged or not the one that belongs to the state.
    pub(super) fn read_index(&self) -> Option<Index> {
        let index = Index::decode(&fs::read(self.paths.index()).ok()?)?;
        (index.generation == self.state.generation).then_some(index)
    }

    /// Says whether what is on disk is what the index says, by the stamps of all inodes.
    pub(super) fn is_as_indexed(&self) -> Result<bool> {
        let (index, root) = (&self.index, self.root.as_fd());
        let walk = Walk {
            root,
            ids: self.state.ids,
            index,
            side: &index.side,
            clamp: None,
            ignore: &[],
        };
        let walked = walk.run()?;
        let is_same = |what: &What| match what {
            What::Same { node, stamp } => {
                *stamp == index.nodes[*node as usize].stamp || *stamp == Stamp::default()
            }
            What::New { .. } | What::Unfit { .. } => false,
        };
        Ok(walked.removed.is_empty() && walked.found.iter().all(|f| is_same(&f.what)))
    }

    /// Removes what the sandbox left where it makes things up, so that whoever reads the tree does not see it.
    pub(super) fn clean(&mut self) -> Result<()> {
        if !self.state.has_strays {
            return Ok(());
        }
        self.forget()?;
        let mut index = std::mem::take(&mut self.index);
        let root = self.root.as_fd();
        let walk = Walk {
            root,
            ids: self.state.ids,
            index: &index,
            side: &index.side,
            clamp: None,
            ignore: &[],
        };
        let strays = walk.run()?.strays;
        for path in &strays {
            let (parent, name) = split(path);
            let dir = disk::open_dir(root, parent).entry("open", parent)?;
            remove::remove_at(dir.as_fd(), name).entry("delete", path)?;
        }
        let parents: HashSet<&[u8]> = strays.iter().map(|path| split(path).0).collect();
        for node in index
            .nodes
            .iter_mut()
            .filter(|n| parents.contains(&n.entry.path[..]))
        {
            let dir = disk::open_dir(root, &node.entry.path).entry("open", &node.entry.path)?;
            rustix::fs::futimens(&dir, &create::times(node.entry.mtime))
                .entry("set the time of", &node.entry.path)?;
            node.stamp = disk::stamp(&disk::stat_fd(dir.as_fd()).entry("stat", &node.entry.path)?);
        }
        index.generation += 1;
        self.state.has_strays = false;
        self.save(index, self.state.layers.clone())
    }

    /// Writes index and state: from now on the tree is what `layers` say.
    pub(super) fn save(&mut self, index: Index, layers: Vec<TreeLayer>) -> Result<()> {
        self.paths.forget_begun()?;
        let path = self.paths.index();
        fs::write(&path, index.encode()).context("write", &path)?;
        self.state = State {
            generation: index.generation,
            ids: self.state.ids,
            boot: boot(),
            layers,
            bytes: index.nodes.iter().map(|n| n.entry.size()).sum(),
            newest: index.newest(),
            has_strays: self.state.has_strays,
        };
        self.paths.write_state(&self.state)?;
        self.index = index;
        self.is_dirty = false;
        Ok(())
    }

    /// Gives the lock to readers too.  Between the two somebody else may take the tree: none then.
    pub(super) fn into_read(mut self, layers: &[Layer]) -> Result<Option<ReadCheckout>> {
        self.clean()?;
        let side = Arc::new(std::mem::take(&mut self.index.side));
        let lock = self
            .lock
            .try_clone()
            .context("duplicate", &self.paths.lock())?;
        if super::pool::lock_shared(&lock, &self.paths.lock())?
            && self
                .paths
                .read_state()
                .is_some_and(|s| s == self.state && s.is_chain(layers))
        {
            let root = self.root.try_clone().context("open", &self.root_path)?;
            let (root_path, ids) = (self.root_path.clone(), self.state.ids);
            return Ok(Some(ReadCheckout {
                _lock: lock,
                root,
                root_path,
                side,
                ids,
            }));
        }
        Ok(None)
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        if self.is_dirty
            && let Err(error) = self.discard()
        {
            tracing::debug!(%error, "a tree that is worth nothing stays for now");
        }
    }
}

/// Waits until a change made now gets a later time than `newest`.  A file is changed to see: a sleep is no proof.
pub(super) fn wait_for_clock(mut file: &File, probe: &Path, newest: Ctime) -> Result<()> {
    let start = Instant::now();
    loop {
        file.write_all(b".").context("write", probe)?;
        let stat = disk::stat_fd(file.as_fd()).context("stat", probe)?;
        if disk::stamp(&stat).ctime > newest {
            return Ok(());
        }
        if start.elapsed() > CLOCK_WAIT {
            return Err(StoreError::Clock {
                subject: probe.display().to_string(),
            });
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Borrows a directory's descriptor.
pub(super) fn fd(dir: &Dir) -> BorrowedFd<'_> {
    dir.as_fd()
}
