//! The pool of trees: finds the one that is nearest to what is wanted, or makes a new one; throws away what is worth
//! nothing or too much.
//!
//! No lock is waited for: a tree that somebody uses is passed over, if need be for a new one.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Context as _, Result, StoreError};
use crate::layer::Layer;
use crate::session::{is_still, lock_exclusive};
use crate::store::Store;
use crate::toc::TocEntry;
use crate::view::ChainView;

use super::checkout::{Checkout, ReadCheckout, fd};
use super::index::{Index, IndexNode};
use super::state::{State, TreeLayer, TreePaths, boot};
use super::{Progress, apply, disk};

/// Seconds that a ctime may be in the future before a tree is given up: the clock was set back.
const FUTURE: i64 = 2;

impl State {
    /// Says whether the tree is exactly what `layers` make.
    pub(super) fn is_chain(&self, layers: &[Layer]) -> bool {
        self.layers.len() == layers.len() && self.common(layers) == layers.len()
    }

    /// How many layers are the same, from the bottom.
    fn common(&self, layers: &[Layer]) -> usize {
        self.layers
            .iter()
            .zip(layers)
            .take_while(|(a, b)| a.diff_id == b.diff_id)
            .count()
    }
}

impl Store {
    /// Returns a tree of exactly these layers, bottom first, that is the caller's alone: an idle one that is
    /// transformed, or a new one.
    ///
    /// # Errors
    /// A layer is not in the store or damaged, or the tree cannot be written.
    pub fn checkout(&self, layers: &[Layer], progress: &dyn Progress) -> Result<Checkout<'_>> {
        let checkout = match self.nearest(layers)? {
            Some(tree) if tree.state.is_chain(layers) => tree,
            nearest => {
                // What cannot be laid out at all is found before any tree is touched.
                let view = self.chain_view(layers)?;
                let tree = match nearest {
                    Some(tree) => tree,
                    None => self.new_tree()?,
                };
                self.transform(tree, &view, progress)?
            }
        };
        self.trim_trees();
        Ok(checkout)
    }

    /// Returns a tree of exactly these layers that is only read, by any number of readers.
    ///
    /// # Errors
    /// As for [`Store::checkout`].
    pub fn checkout_read(&self, layers: &[Layer], progress: &dyn Progress) -> Result<ReadCheckout> {
        loop {
            for paths in self.trees() {
                if let Some(found) = self.open_shared(&paths, layers)? {
                    return Ok(found);
                }
            }
            if let Some(read) = self.checkout(layers, progress)?.into_read(layers)? {
                return Ok(read);
            }
        }
    }

    /// The trees that there are.
    pub(crate) fn trees(&self) -> Vec<TreePaths> {
        let names = fs::read_dir(self.paths().trees());
        names
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| TreePaths(e.path()))
            .collect()
    }

    /// Locks the idle tree that takes the least to become `layers`, unless a new one takes less.
    fn nearest(&self, layers: &[Layer]) -> Result<Option<Checkout<'_>>> {
        let mut best: Option<(u64, SystemTime, Checkout<'_>)> = None;
        let mut sizes = None;
        for paths in self.trees() {
            let Some(tree) = self.take(paths)? else {
                continue;
            };
            let used = tree
                .lock
                .metadata()
                .and_then(|m| m.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            let common = tree.state.common(layers);
            let undo: u64 = tree.state.layers[common..].iter().map(|l| l.entries).sum();
            let cost = if tree.state.is_chain(layers) {
                0
            } else {
                let sizes = match &sizes {
                    Some(sizes) => sizes,
                    None => sizes.insert(self.entries_of(layers)?),
                };
                let (shared, missing) = (&sizes[..common], &sizes[common..]);
                let missing = missing.iter().sum::<u64>();
                // A new tree costs what is shared, this one what it has too much; both cost what is missing.
                match self.difference(&tree.state, layers)? {
                    Some(difference) if difference < missing => 1 + difference,
                    _ if undo > shared.iter().sum() => continue,
                    _ => 1 + undo + missing,
                }
            };
            let is_better = best
                .as_ref()
                .is_none_or(|(c, u, _)| (cost, used) < (*c, *u) || cost == *c && used > *u);
            if is_better {
                best = Some((cost, used, tree));
            }
        }
        let Some((_, _, mut tree)) = best else {
            return Ok(None);
        };
        if self.is_sound(&mut tree)? {
            crate::store::touch(&tree.lock);
            return Ok(Some(tree));
        }
        tree.abandon()?;
        self.nearest(layers)
    }

    /// How many entries differ between a tree of one layer and another layer: copies of the same files as they were before
    /// and as they are now (for `RUN --mount`) are alike, although no layer is the same.
    fn difference(&self, tree: &State, layers: &[Layer]) -> Result<Option<u64>> {
        let ([was], [wanted]) = (&tree.layers[..], layers) else {
            return Ok(None);
        };
        let Some(was) = self.known_toc(&was.diff_id) else {
            return Ok(None);
        };
        let old: HashMap<&[u8], &TocEntry> =
            was.entries.iter().map(|e| (&e.entry.path[..], e)).collect();
        let wanted = self.toc(wanted)?;
        let is_same = |new: &&TocEntry| {
            old.get(&new.entry.path[..])
                .is_some_and(|old| old.entry == new.entry && old.digest == new.digest)
        };
        let same = wanted.entries.iter().filter(is_same).count();
        Ok(Some((wanted.entries.len() + old.len() - 2 * same) as u64))
    }

    fn entries_of(&self, layers: &[Layer]) -> Result<Vec<u64>> {
        layers
            .iter()
            .map(|l| Ok(self.toc(l)?.entries.len() as u64))
            .collect()
    }

    /// Locks a tree; none where somebody uses it.  One that is worth nothing is thrown away.
    fn take(&self, paths: TreePaths) -> Result<Option<Checkout<'_>>> {
        let path = paths.lock();
        let lock = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(lock) => lock,
            // Gone meanwhile, or another user's.
            Err(_) => return Ok(None),
        };
        if !lock_exclusive(&lock, &path)? {
            return Ok(None);
        }
        let Some(state) = paths.read_state() else {
            let discard = |paths: &TreePaths| match self.empty_of_loans(paths)? {
                true => self.session().discard(&paths.0),
                false => Ok(()),
            };
            if let Err(error) = discard(&paths) {
                tracing::debug!(%error, "a tree that is worth nothing stays for now");
            }
            return Ok(None);
        };
        if state.ids != self.ids() {
            return Ok(None);
        }
        self.handle(paths, lock, state).map(Some)
    }

    fn handle(&self, paths: TreePaths, lock: File, state: State) -> Result<Checkout<'_>> {
        let root_path = paths.root();
        let root_path = fs::canonicalize(&root_path).context("open", &root_path)?;
        let root =
            Dir::open_ambient_dir(&root_path, ambient_authority()).context("open", &root_path)?;
        let (store, index, is_dirty) = (self, Index::default(), false);
        Ok(Checkout {
            store,
            paths,
            lock,
            root,
            root_path,
            state,
            index,
            is_dirty,
        })
    }

    fn open_shared(&self, paths: &TreePaths, layers: &[Layer]) -> Result<Option<ReadCheckout>> {
        // A look without a lock tells most of the trees that are not meant.
        let is_it = |state: &State| state.ids == self.ids() && state.is_chain(layers);
        if !paths
            .read_state()
            .is_some_and(|s| is_it(&s) && s.boot == boot() && !s.has_strays)
        {
            return Ok(None);
        }
        let path = paths.lock();
        let Ok(lock) = OpenOptions::new().read(true).write(true).open(&path) else {
            return Ok(None);
        };
        if !lock_shared(&lock, &path)? {
            return Ok(None);
        }
        let Some(state) = paths.read_state().filter(is_it) else {
            return Ok(None);
        };
        crate::store::touch(&lock);
        let kept = lock.try_clone().context("duplicate", &path)?;
        let checkout = self.handle(paths.clone(), lock, state)?;
        let Some(index) = checkout.read_index() else {
            return Ok(None);
        };
        let side = Arc::new(index.side);
        let root = checkout
            .root
            .try_clone()
            .context("open", &checkout.root_path)?;
        let (root_path, ids) = (checkout.root_path.clone(), checkout.state.ids);
        Ok(Some(ReadCheckout {
            _lock: kept,
            root,
            root_path,
            side,
            ids,
        }))
    }

    /// Makes a tree with nothing in it.  It gets its place when it is locked, so that nobody takes it for a dead one.
    fn new_tree(&self) -> Result<Checkout<'_>> {
        // A name that nothing had before: it decides which part of the disk ext4 takes (see `spread`).
        let made = TreePaths(self.session().unique_path()?);
        for (dir, mode) in [(made.0.clone(), 0o700), (made.root(), 0o755)] {
            fs::DirBuilder::new()
                .mode(mode)
                .create(&dir)
                .context("create", &dir)?;
        }
        let path = made.lock();
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context("create", &path)?;
        if !lock_exclusive(&lock, &path)? {
            return Err(StoreError::io("lock", path.display(), Errno::BUSY));
        }
        let name = made.0.file_name().unwrap_or_default();
        let paths = TreePaths(self.paths().trees().join(name));
        fs::rename(&made.0, &paths.0).context("rename", &paths.0)?;
        let (ids, newest) = (self.ids(), (0, 0));
        let state = State {
            generation: 0,
            ids,
            boot: boot(),
            layers: Vec::new(),
            bytes: 0,
            newest,
            has_strays: false,
        };
        let mut checkout = self.handle(paths, lock, state)?;
        checkout.is_dirty = true;
        let stat = disk::stat_fd(fd(&checkout.root)).entry("stat", b"")?;
        let entry = stepwell_image::Entry::new("", stepwell_image::Kind::Dir, disk::mode(&stat));
        let entry = stepwell_image::Entry {
            mtime: disk::mtime(&stat),
            ..entry
        };
        let node = IndexNode {
            entry,
            digest: None,
            stamp: disk::stamp(&stat),
        };
        let index = Index {
            nodes: vec![node],
            ..Index::default()
        };
        checkout.save(index, Vec::new())?;
        Ok(checkout)
    }

    fn transform<'a>(
        &'a self,
        mut tree: Checkout<'a>,
        view: &ChainView,
        progress: &dyn Progress,
    ) -> Result<Checkout<'a>> {
        tree.forget()?;
        let index = std::mem::take(&mut tree.index);
        let ids = tree.state.ids;
        let index = apply::transform(self, fd(&tree.root), index, view, ids, progress)?;
        let entries = self.entries_of(view.layers())?;
        let layers = view.layers().iter().zip(entries);
        let layers = layers
            .map(|(l, entries)| TreeLayer {
                diff_id: l.diff_id,
                entries,
            })
            .collect();
        tree.save(index, layers)?;
        Ok(tree)
    }

    /// Reads a tree's index and says whether the tree can be believed: after a crash of the machine what is on disk
    /// must be what the index says, because nothing is synced.
    fn is_sound(&self, tree: &mut Checkout<'_>) -> Result<bool> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Some(index) = tree.read_index() else {
            return Ok(false);
        };
        tree.index = index;
        if tree.state.newest.0 > now.as_secs() as i64 + FUTURE {
            return Ok(false);
        }
        let boot = boot();
        if tree.state.boot == boot {
            return Ok(true);
        }
        let is_same = tree.is_as_indexed()?;
        if is_same {
            tree.state.boot = boot;
            tree.paths.write_state(&tree.state)?;
        }
        Ok(is_same)
    }

    /// Throws a tree away, where nobody uses it; whoever holds its owners.
    pub(crate) fn remove_tree(&self, paths: &TreePaths) -> Result<bool> {
        let path = paths.lock();
        let Ok(lock) = OpenOptions::new().read(true).write(true).open(&path) else {
            return Ok(false);
        };
        if !lock_exclusive(&lock, &path)? {
            return Ok(false);
        }
        paths.forget_state()?;
        if !self.empty_of_loans(paths)? {
            return Ok(false);
        }
        self.session().discard(&paths.0).map(|()| true)
    }

    /// Throws idle trees away that are more than may lie idle.
    fn trim_trees(&self) {
        let trees = self.trees();
        let too_many = trees.len().saturating_sub(self.options().idle_trees);
        if too_many == 0 {
            return;
        }
        let used = |tree: &TreePaths| fs::metadata(tree.lock()).and_then(|m| m.modified()).ok();
        let mut trees: Vec<_> = trees.into_iter().map(|t| (used(&t), t)).collect();
        trees.sort_by_key(|(used, _)| *used);
        for (_, paths) in trees.into_iter().take(too_many) {
            if let Err(error) = self.remove_tree(&paths) {
                tracing::debug!(%error, "an idle tree stays for now");
            }
        }
    }
}

/// Locks for reading without waiting, and says whether it is locked and still the file at `path`.
pub(super) fn lock_shared(file: &File, path: &std::path::Path) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => is_still(file, path),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(StoreError::io("lock", path.display(), errno)),
    }
}
