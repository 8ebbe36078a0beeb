//! Carries out a [`Plan`]: deletes, makes directories, reads layers and creates what they hold, sets metadata.
//!
//! Layers stream: one thread decompresses and reads, others create files; small files travel in memory (a bounded
//! number of them), large ones are written as they come.  Every name is reached through a handle on its directory,
//! which was opened beneath the root with no symbolic link on the way.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use stepwell_image::{Entry, Kind};

use crate::error::{Context as _, Result, StoreError};
use crate::interrupt::Interrupt;
use crate::layer::Layer;
use crate::store::{Ids, Store};
use crate::view::{ChainView, split};

use super::create::Creator;
use super::donor::Donor;
use super::index::{Index, IndexNode, Stamp};
use super::plan::{Action, Plan, Wanted};
use super::{Progress, disk, remove};

/// Largest file that is read into memory before it is created.
const SMALL: u64 = 128 << 10;

/// Files that wait to be created; with [`SMALL`] this bounds the memory.
const QUEUE: usize = 128;

/// Carries a plan out on one tree.
pub(crate) struct Apply<'a> {
    pub(crate) store: &'a Store,
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) view: &'a ChainView,
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) creator: Creator<'a>,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) done: AtomicU64,
    pub(crate) total: u64,
    pub(crate) interrupt: Interrupt,
}

/// A stamp of a wanted entry, by its number.
type Made = (u32, Stamp);

/// By layer and entry of the layer: the number in the plan of a file with contents.
type Contents = BTreeMap<u32, BTreeMap<u32, u32>>;

/// A small file on its way to the disk.
struct Job {
    number: u32,
    dir: Arc<OwnedFd>,
    content: Vec<u8>,
}

/// Brings the tree at `root` from what `index` says to what `view` says, and returns the new index.
pub(crate) fn transform(
    store: &Store,
    root: BorrowedFd<'_>,
    mut index: Index,
    view: &ChainView,
    ids: Ids,
    progress: &dyn Progress,
) -> Result<Index> {
    let mut side = std::mem::take(&mut index.side);
    let plan = Plan::new(&index, view);
    let stamps = {
        let (total, done) = (plan.bytes(), AtomicU64::new(0));
        let creator = Creator::new(ids, &mut side);
        Apply {
            store,
            root,
            view,
            plan: &plan,
            creator,
            progress,
            done,
            total,
            interrupt: store.interrupt(),
        }
        .run(&index)?
    };
    let nodes = plan
        .wanted
        .iter()
        .zip(stamps)
        .map(|(wanted, stamp)| {
            let kept = match wanted.action {
                Action::Keep(node) => Some(&index.nodes[node as usize]),
                _ => None,
            };
            let entry = Entry {
                path: wanted.path.to_vec(),
                ..wanted.node.entry().clone()
            };
            let stamp = stamp.or(kept.map(|k| k.stamp)).unwrap_or_default();
            IndexNode {
                entry,
                digest: wanted.node.digest(),
                stamp,
            }
        })
        .collect();
    Ok(Index {
        generation: index.generation + 1,
        side,
        nodes,
    })
}

impl Apply<'_> {
    /// Does everything and returns the stamps of what was made or touched.
    fn run(&self, index: &Index) -> Result<Vec<Option<Stamp>>> {
        self.progress.unpacked(0, self.total);
        self.open_dirs()?;
        self.delete()?;
        self.make_dirs()?;
        let mut made = self.make_empty()?;
        let mut layers = self.content_by_layer();
        let cloned = self.clone_files(&layers)?;
        leave_out(&mut layers, &cloned);
        made.extend(cloned);
        for (layer, wanted) in layers {
            made.extend(self.read_layer(&self.view.layers()[layer as usize], &wanted)?);
        }
        made.extend(self.mend_files(index)?);
        made.extend(self.link()?);
        made.extend(self.finish_dirs(index)?);
        let mut stamps = vec![None; self.plan.wanted.len()];
        for (number, stamp) in made {
            stamps[number as usize] = Some(stamp);
        }
        Ok(stamps)
    }

    /// Lets their owner write to the directories in which something changes; [`Self::finish_dirs`] sets their modes.
    fn open_dirs(&self) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let mut paths: Vec<_> = self.plan.touched.iter().collect();
        paths.sort_unstable();
        paths.into_iter().try_for_each(|path| {
            match disk::open_to_owner(self.root, path) {
                // It is yet to be made.
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
                other => other.entry("open to its owner", path),
            }
        })
    }

    fn delete(&self) -> Result<()> {
        self.plan.deleted.par_iter().try_for_each(|path| {
            self.interrupt.check()?;
            let (parent, name) = split(path);
            let dir = self.dir(parent)?;
            remove::remove_at(dir.as_fd(), name).entry("delete", path)
        })
    }

    fn make_dirs(&self) -> Result<()> {
        let mut parents = Parents::new(self.root);
        let dirs = self
            .plan
            .wanted
            .iter()
            .filter(|w| w.node.is_dir() && w.action == Action::Make);
        for wanted in dirs.filter(|w| !w.path.is_empty()) {
            let (parent, name) = split(wanted.path);
            let dir = parents.get(parent)?;
            retry(dir.as_fd(), name, || {
                self.creator.dir(dir.as_fd(), name, wanted.path)
            })?;
        }
        Ok(())
    }

    /// Makes links, devices, fifos and empty files: no layer has to be read for them.
    fn make_empty(&self) -> Result<Vec<Made>> {
        let numbers: Vec<u32> = self
            .first_names()
            .filter(|n| self.wanted(*n).node.entry().size() == 0)
            .collect();
        let chunk = |numbers: &[u32]| {
            let mut parents = Parents::new(self.root);
            let make = |number: &u32| {
                self.interrupt.check()?;
                let wanted = self.wanted(*number);
                let (parent, name) = split(wanted.path);
                let dir = parents.get(parent)?;
                let entry = wanted.node.entry();
                let stamp = retry(dir.as_fd(), name, || {
                    self.creator.special(dir.as_fd(), name, entry)
                })?;
                Ok((*number, stamp))
            };
            numbers.iter().map(make).collect::<Result<Vec<Made>>>()
        };
        let made = numbers
            .par_chunks(128)
            .map(chunk)
            .collect::<Result<Vec<_>>>()?;
        Ok(made.into_iter().flatten().collect())
    }

    /// Makes the files whose contents another tree has, where the file system lets them be shared.
    fn clone_files(&self, layers: &Contents) -> Result<Vec<Made>> {
        let diff_id = |layer: &u32| self.view.layers()[*layer as usize].diff_id;
        let Some(donor) = self
            .store
            .donor(self.root, &layers.keys().map(diff_id).collect())
        else {
            return Ok(Vec::new());
        };
        let numbers: Vec<u32> = layers
            .values()
            .flat_map(BTreeMap::values)
            .copied()
            .collect();
        let made = numbers
            .par_chunks(128)
            .map(|numbers| self.clone_some(&donor, numbers))
            .collect::<Result<Vec<_>>>()?;
        Ok(made.into_iter().flatten().collect())
    }

    fn clone_some(&self, donor: &Donor, numbers: &[u32]) -> Result<Vec<Made>> {
        let (mut parents, mut made) = (Parents::new(self.root), Vec::new());
        for number in numbers {
            self.interrupt.check()?;
            let wanted = self.wanted(*number);
            let entry = wanted.node.entry();
            let Some(content) = donor.content(wanted.node.digest(), entry.size()) else {
                continue;
            };
            let (parent, name) = split(wanted.path);
            let dir = parents.get(parent)?;
            let clone = || self.creator.clone_file(dir.as_fd(), name, entry, &content);
            if let Some(stamp) = retry(dir.as_fd(), name, clone)? {
                self.note(entry.size());
                made.push((*number, stamp));
            }
        }
        Ok(made)
    }

    /// Which entries of which layers hold the contents that are not there yet.
    fn content_by_layer(&self) -> Contents {
        let mut layers = Contents::new();
        for number in self.first_names() {
            let node = self.wanted(number).node;
            if node.entry().size() > 0 {
                let place = node.place();
                layers
                    .entry(place.layer)
                    .or_default()
                    .insert(place.entry, number);
            }
        }
        layers
    }

    /// Streams a layer up to the last entry that is wanted of it.
    fn read_layer(&self, layer: &Layer, wanted: &BTreeMap<u32, u32>) -> Result<Vec<Made>> {
        let (sender, receiver) = bounded::<Job>(QUEUE);
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .clamp(1, 8);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    let receiver = receiver.clone();
                    scope.spawn(move || self.work(receiver))
                })
                .collect();
            drop(receiver);
            let read = self.feed(layer, wanted, sender);
            let mut made = Vec::new();
            for worker in workers {
                // A worker's own error says more than that nobody takes jobs any more.
                let part = worker
                    .join()
                    .unwrap_or_else(|p| std::panic::resume_unwind(p));
                made.extend(part?);
            }
            made.extend(read?);
            Ok(made)
        })
    }

    fn feed(
        &self,
        layer: &Layer,
        wanted: &BTreeMap<u32, u32>,
        jobs: Sender<Job>,
    ) -> Result<Vec<Made>> {
        let failed = |source| StoreError::read(layer, source);
        let mut reader = self.store.read_layer(layer)?;
        let mut parents = Parents::new(self.root);
        let mut made = Vec::new();
        let mut at = 0;
        for (entry, number) in wanted {
            while at < *entry {
                reader
                    .next_entry()
                    .map_err(failed)?
                    .ok_or_else(|| damaged(layer))?;
                at += 1;
            }
            at += 1;
            let (found, mut content) = reader
                .next_entry()
                .map_err(failed)?
                .ok_or_else(|| damaged(layer))?;
            let node = self.wanted(*number);
            let expected = node.node.entry();
            if found.path != expected.path || found.size() != expected.size() {
                return Err(damaged(layer));
            }
            let (parent, name) = split(node.path);
            let dir = parents.get(parent)?;
            if expected.size() <= SMALL {
                let mut bytes = Vec::with_capacity(expected.size() as usize);
                content.read_to_end(&mut bytes).entry("read", node.path)?;
                let job = Job {
                    number: *number,
                    dir,
                    content: bytes,
                };
                if jobs.send(job).is_err() {
                    break;
                }
            } else {
                let stamp = self
                    .creator
                    .file(dir.as_fd(), name, expected, &mut content)?;
                self.note(expected.size());
                made.push((*number, stamp));
            }
        }
        Ok(made)
    }

    fn work(&self, jobs: Receiver<Job>) -> Result<Vec<Made>> {
        let mut made = Vec::new();
        for job in jobs {
            self.interrupt.check()?;
            let wanted = self.wanted(job.number);
            let (_, name) = split(wanted.path);
            let entry = wanted.node.entry();
            let dir = job.dir.as_fd();
            let stamp = retry(dir, name, || {
                self.creator.small_file(dir, name, entry, &job.content)
            })?;
            self.note(entry.size());
            made.push((job.number, stamp));
        }
        Ok(made)
    }

    fn mend_files(&self, index: &Index) -> Result<Vec<Made>> {
        let mut made = Vec::new();
        for (number, wanted) in self.plan.wanted.iter().enumerate() {
            let Action::Mend(old) = wanted.action else {
                continue;
            };
            if !matches!(wanted.node.entry().kind, Kind::File { .. }) {
                continue;
            }
            let fd = disk::open(self.root, wanted.path, OFlags::RDONLY | OFlags::NONBLOCK)
                .entry("open", wanted.path)?;
            let old = &index.nodes[old as usize].entry;
            let stamp = self
                .creator
                .mend(fd.as_fd(), wanted.node.entry(), Some(old))?;
            made.push((number as u32, stamp));
        }
        Ok(made)
    }

    /// Gives files their other names.
    fn link(&self) -> Result<Vec<Made>> {
        let mut made = Vec::new();
        for group in self.made_groups() {
            let (first, others) = (self.wanted(group[0]), &group[1..]);
            let (from_parent, from) = split(first.path);
            let from_dir = self.dir(from_parent)?;
            for other in others {
                let path = self.wanted(*other).path;
                let (parent, name) = split(path);
                let dir = self.dir(parent)?;
                let link = || {
                    rustix::fs::linkat(&from_dir, from, &dir, name, AtFlags::empty())
                        .entry("link", path)
                };
                retry(dir.as_fd(), name, link)?;
            }
            // Each new name changed the inode's ctime.
            let stat = disk::stat(from_dir.as_fd(), from).entry("stat", first.path)?;
            made.extend(group.iter().map(|n| (*n, disk::stamp(&stat))));
        }
        Ok(made)
    }

    /// Sets the metadata of directories when nothing changes in them any more, the deepest first.
    fn finish_dirs(&self, index: &Index) -> Result<Vec<Made>> {
        let mut made = Vec::new();
        for (number, wanted) in self.plan.wanted.iter().enumerate().rev() {
            let is_due = match wanted.action {
                Action::Make | Action::Mend(_) => true,
                Action::Keep(_) => self.plan.touched.contains(wanted.path),
            };
            if !wanted.node.is_dir() || !is_due {
                continue;
            }
            let old = match wanted.action {
                Action::Mend(old) => Some(&index.nodes[old as usize].entry),
                Action::Make | Action::Keep(_) => None,
            };
            let fd = self.dir(wanted.path)?;
            let entry = wanted.node.entry();
            let stamp = self.creator.mend(fd.as_fd(), entry, old)?;
            made.push((number as u32, stamp));
        }
        Ok(made)
    }

    /// What is not a directory and has to be made, each file once however many names it has.
    fn first_names(&self) -> impl Iterator<Item = u32> {
        let others: HashSet<u32> = self
            .made_groups()
            .flat_map(|g| g[1..].iter().copied())
            .collect();
        (0..self.plan.wanted.len() as u32).filter(move |n| {
            let wanted = self.wanted(*n);
            wanted.action == Action::Make && !wanted.node.is_dir() && !others.contains(n)
        })
    }

    fn made_groups(&self) -> impl Iterator<Item = &Vec<u32>> {
        self.plan
            .links
            .iter()
            .filter(|g| self.wanted(g[0]).action == Action::Make)
    }

    fn wanted(&self, number: u32) -> &Wanted<'_> {
        &self.plan.wanted[number as usize]
    }

    fn dir(&self, path: &[u8]) -> Result<OwnedFd> {
        disk::open_dir(self.root, path).entry("open", path)
    }

    fn note(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.progress.unpacked(done, self.total);
    }
}

/// Handles on directories: neighbours in a layer mostly share theirs.
struct Parents<'a> {
    root: BorrowedFd<'a>,
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl<'a> Parents<'a> {
    fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, last: None }
    }

    fn get(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        match &self.last {
            Some((last, dir)) if last == path => Ok(dir.clone()),
            _ => {
                let dir = Arc::new(disk::open_dir(self.root, path).entry("open", path)?);
                self.last = Some((path.to_vec(), dir.clone()));
                Ok(dir)
            }
        }
    }
}

/// Makes something; what the sandbox left in its place (the index does not list grafts) is removed first.
fn retry<T>(dir: BorrowedFd<'_>, name: &[u8], make: impl Fn() -> Result<T>) -> Result<T> {
    match make() {
        Err(StoreError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            remove::remove_at(dir, name).entry("delete", name)?;
            make()
        }
        other => other,
    }
}

/// Takes out what is there now.
fn leave_out(layers: &mut Contents, made: &[Made]) {
    let has: HashSet<u32> = made.iter().map(|(number, _)| *number).collect();
    if !has.is_empty() {
        layers.retain(|_, wanted| {
            wanted.retain(|_, number| !has.contains(number));
            !wanted.is_empty()
        });
    }
}

fn damaged(layer: &Layer) -> StoreError {
    StoreError::Damaged {
        subject: format!("layer `{}`", layer.diff_id),
        what: "it is not what its table of contents says",
    }
}
