//! Writes what a step changed in its tree as a layer, and the tree's new index in the same pass.
//!
//! A layer stands on its own: tools lay it into an empty directory first (overlay drivers do), so that every changed
//! entry brings the directories above it, unchanged ones too, and all names of a file are in it when one is.  What
//! is in a layer depends on paths and contents alone, never on inode numbers, so that every tier gives equal digests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use stepwell_image::layer::entry::display_path;
use stepwell_image::{Entry, Kind, LayerOptions, Mtime};
use stepwell_model::Digest;
use stepwell_sys::meta::SideTable;

use crate::error::{Context as _, Result};
use crate::layer::Layer;
use crate::sink::LayerSink;
use crate::store::Ids;
use crate::view::split;

use super::index::{Index, IndexNode, Stamp};
use super::walk::{Found, Walk, Walked, What};
use super::{create, disk, remove, unshare};

/// How a step's changes become a layer.
#[derive(Debug, Clone, Default)]
pub struct CaptureOptions {
    /// How the layer is written.
    pub layer: LayerOptions,
    /// Metadata of inodes that take no extended attribute, as the step's supervisor left it; none means that it is as
    /// it was.
    pub side: Option<SideTable>,
    /// Paths below the root that are left as they were, whatever the step did to them.
    pub ignore: Vec<Vec<u8>>,
}

/// What a capture resulted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The layer.
    pub layer: Layer,
    /// Number of its entries; with none, the step changed nothing.
    pub entries: usize,
    /// What no layer can hold and was left out: path and reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// What a capture leaves besides the layer.
pub(super) struct Differences {
    /// The tree as it is now.
    pub(super) index: Index,
    /// What no layer can hold.
    pub(super) left_out: Vec<(String, &'static str)>,
    /// Whether the sandbox left something in the tree.
    pub(super) has_strays: bool,
}

/// A tree that is being compared and written.
pub(super) struct Capture<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) ids: Ids,
    pub(super) index: Index,
    pub(super) side: SideTable,
    pub(super) clamp: Option<i64>,
    pub(super) ignore: Vec<Vec<u8>>,
}

impl Capture<'_> {
    /// Writes the differences to `sink` and returns the new index and what was left out.
    pub(super) fn run(mut self, sink: &mut LayerSink<'_>) -> Result<Differences> {
        let mut walked = self.walk()?;
        let left_out = unfit(&walked);
        if !left_out.is_empty() {
            // Otherwise the next step would see what nobody sees who has the layers alone.
            self.remove(&left_out)?;
            walked = self.walk()?;
        }
        let foreign = unshare::foreign(&walked, &self.index);
        if !foreign.is_empty() {
            let (root, ids, side) = (self.root, self.ids, &mut self.side);
            unshare::unshare(root, ids, &self.index, side, &walked, &foreign)?;
            walked = self.walk()?;
        }
        let left_out = left_out
            .into_iter()
            .map(|(path, why)| (display_path(&path), why))
            .collect();
        let has_strays = !walked.strays.is_empty();
        let emitted = self.emitted(&walked);
        let alive: HashSet<_> = walked.found.iter().map(|f| f.inode).collect();
        let nodes = self.write(walked, &emitted, sink)?;
        self.side.retain(|inode| alive.contains(&inode));
        let generation = self.index.generation + 1;
        let index = Index {
            generation,
            side: self.side,
            nodes,
        };
        Ok(Differences {
            index,
            left_out,
            has_strays,
        })
    }

    fn walk(&self) -> Result<Walked> {
        Walk {
            root: self.root,
            ids: self.ids,
            index: &self.index,
            side: &self.side,
            clamp: self.clamp,
            ignore: &self.ignore,
        }
        .run()
    }

    /// Removes what no layer can hold, as if it had never been made.
    fn remove(&self, unfit: &[(Vec<u8>, &'static str)]) -> Result<()> {
        for (path, _) in unfit {
            let (parent, name) = split(path);
            let dir = match disk::open_dir(self.root, parent) {
                // It was removed with a directory above it.
                Err(Errno::NOENT) => continue,
                other => other.entry("open", parent)?,
            };
            let before = disk::stat_fd(dir.as_fd()).entry("stat", parent)?;
            remove::remove_at(dir.as_fd(), name).entry("delete", path)?;
            let time = Mtime {
                secs: before.stx_mtime.tv_sec,
                nanos: before.stx_mtime.tv_nsec,
            };
            rustix::fs::futimens(&dir, &create::times(time)).entry("set the time of", parent)?;
        }
        Ok(())
    }

    /// Which of the entries go into the layer.
    fn emitted(&self, walked: &Walked) -> Vec<bool> {
        let mut emitted: Vec<bool> = walked
            .found
            .iter()
            .map(|f| matches!(f.what, What::New { .. }))
            .collect();
        for names in names_of_files(walked).values() {
            if names.iter().any(|n| emitted[*n]) {
                names.iter().for_each(|n| emitted[*n] = true);
            }
        }
        let mut parents: HashSet<&[u8]> = HashSet::new();
        let changed = walked.found.iter().zip(&emitted).filter(|(_, e)| **e);
        for path in changed
            .map(|(f, _)| &f.path[..])
            .chain(removed_from(walked))
        {
            let mut parent = split(path).0;
            while !parent.is_empty() && parents.insert(parent) {
                parent = split(parent).0;
            }
        }
        parents.extend(removed_from(walked));
        for (found, emitted) in walked.found.iter().zip(&mut emitted) {
            // The root's own entry is left out, as docker and BuildKit do: its mtime says nothing.
            *emitted = !found.path.is_empty() && (*emitted || parents.contains(&found.path[..]));
        }
        emitted
    }

    fn write(
        &mut self,
        walked: Walked,
        emitted: &[bool],
        sink: &mut LayerSink<'_>,
    ) -> Result<Vec<IndexNode>> {
        let Walked { found, removed, .. } = walked;
        let mut nodes = Vec::with_capacity(found.len());
        let mut first_names: HashMap<u64, (Vec<u8>, Option<Digest>, Stamp)> = HashMap::new();
        let all_new = opaque_dirs(&found, &removed, &self.index);
        for (found, emit) in found.into_iter().zip(emitted) {
            let Found {
                path, what, links, ..
            } = found;
            let is_linked = links > 1;
            let mut node = match what {
                What::Same { node, stamp } => {
                    let old = &mut self.index.nodes[node as usize];
                    let entry = std::mem::replace(&mut old.entry, Entry::new("", Kind::Dir, 0));
                    IndexNode {
                        entry,
                        digest: old.digest,
                        stamp,
                    }
                }
                What::New { entry, stamp, .. } => IndexNode {
                    entry,
                    digest: None,
                    stamp,
                },
                What::Unfit { .. } => continue,
            };
            if *emit {
                let is_file = !node.entry.is_dir();
                match first_names
                    .get(&node.stamp.ino)
                    .filter(|_| is_linked && is_file)
                {
                    Some((target, digest, stamp)) => {
                        let mut link = node.entry.clone();
                        link.kind = Kind::Hardlink {
                            target: target.clone(),
                        };
                        sink.add(&link, None)?;
                        (node.digest, node.stamp) = (*digest, *stamp);
                        if let Some(secs) = self.clamp {
                            node.entry.mtime = node.entry.mtime.clamp_to(secs);
                        }
                    }
                    None => {
                        let ino = node.stamp.ino;
                        self.emit(&mut node, sink)?;
                        if is_linked && is_file {
                            first_names.insert(ino, (path.clone(), node.digest, node.stamp));
                        }
                    }
                }
            }
            if let Some(gone) = removed.get(&path) {
                let mtime = node.entry.mtime;
                if all_new.contains(&path) {
                    sink.opaque(&path, mtime)?;
                } else {
                    for old in gone {
                        sink.remove(&self.index.nodes[*old as usize].entry.path, mtime)?;
                    }
                }
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// Adds one entry to the layer, and makes the tree what the layer says.
    fn emit(&self, node: &mut IndexNode, sink: &mut LayerSink<'_>) -> Result<()> {
        let entry = &mut node.entry;
        match entry.kind {
            Kind::File { size } if size > 0 => {
                let mut file = disk::open_file(self.root, &entry.path)?;
                let mut content = Sparse::new(&mut file, size);
                sink.add(entry, Some(&mut content as &mut dyn Read))?;
            }
            _ => sink.add(entry, None)?,
        }
        node.digest = sink.last_digest();
        if let Some(secs) = self.clamp
            && entry.mtime > Mtime::from_secs(secs)
        {
            entry.mtime = Mtime::from_secs(secs);
            let (parent, name) = split(&entry.path);
            let dir = disk::open_dir(self.root, parent).entry("open", parent)?;
            let times = create::times(entry.mtime);
            rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .entry("set the time of", &entry.path)?;
            let stat = disk::stat(dir.as_fd(), name).entry("stat", &entry.path)?;
            node.stamp = disk::stamp(&stat);
        }
        Ok(())
    }
}

/// Paths of what no layer can hold, and why.
fn unfit(walked: &Walked) -> Vec<(Vec<u8>, &'static str)> {
    let unfit = walked.found.iter().filter_map(|found| match found.what {
        What::Unfit { why, .. } => Some((found.path.clone(), why)),
        _ => None,
    });
    unfit.collect()
}

/// Directories that something is gone from.
fn removed_from(walked: &Walked) -> impl Iterator<Item = &[u8]> {
    walked.removed.keys().map(|dir| &dir[..])
}

/// The names of each file that has several, as numbers in `found`.
fn names_of_files(walked: &Walked) -> HashMap<u64, Vec<usize>> {
    let mut names: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, found) in walked.found.iter().enumerate() {
        let (is_dir, ino) = match &found.what {
            What::New { entry, stamp, .. } => (entry.is_dir(), stamp.ino),
            // Directories have several links too, but of the index's nodes they are never asked for by inode.
            What::Same { stamp, .. } => (false, stamp.ino),
            What::Unfit { .. } => continue,
        };
        if found.links > 1 && !is_dir && ino != 0 {
            names.entry(ino).or_default().push(number);
        }
    }
    names.retain(|_, names| names.len() > 1);
    names
}

/// Directories whose old entries are all gone, at least two of them: one marker says it shorter than whiteouts.
fn opaque_dirs(
    found: &[Found],
    removed: &BTreeMap<Vec<u8>, Vec<u32>>,
    index: &Index,
) -> HashSet<Vec<u8>> {
    let mut kept: HashSet<&[u8]> = HashSet::new();
    for found in found {
        if let What::Same { node, .. }
        | What::New {
            node: Some(node), ..
        } = &found.what
        {
            kept.insert(split(&index.nodes[*node as usize].entry.path).0);
        }
    }
    removed
        .iter()
        .filter(|(dir, gone)| gone.len() > 1 && !dir.is_empty() && !kept.contains(&dir[..]))
        .map(|(dir, _)| dir.clone())
        .collect()
}

/// Reads a file, skipping the holes that the file system knows of.
struct Sparse<'a> {
    file: &'a mut File,
    size: u64,
    position: u64,
    /// End of the data or of the hole that `position` is in.
    end: u64,
    in_hole: bool,
    dense: bool,
}

impl<'a> Sparse<'a> {
    fn new(file: &'a mut File, size: u64) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let dense = file.metadata().is_ok_and(|m| m.blocks() * 512 >= size) || size < 1 << 20;
        Self {
            file,
            size,
            position: 0,
            end: 0,
            in_hole: false,
            dense,
        }
    }

    /// Finds out what is at the position, and how far it goes.
    fn advance(&mut self) -> std::io::Result<()> {
        use rustix::fs::{SeekFrom, seek};
        match seek(&*self.file, SeekFrom::Data(self.position)) {
            Ok(data) if data > self.position => {
                (self.in_hole, self.end) = (true, data.min(self.size));
            }
            Ok(_) => {
                let hole = seek(&*self.file, SeekFrom::Hole(self.position)).unwrap_or(self.size);
                (self.in_hole, self.end) = (false, hole.max(self.position + 1));
                seek(&*self.file, SeekFrom::Start(self.position))?;
            }
            // No data up to the end.
            Err(rustix::io::Errno::NXIO) => (self.in_hole, self.end) = (true, self.size),
            Err(_) => self.dense = true,
        }
        Ok(())
    }
}

impl Read for Sparse<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if !self.dense && self.position >= self.end && self.position < self.size {
            self.advance()?;
        }
        if self.dense {
            return self.file.read(buf);
        }
        if self.position >= self.size {
            // Over a hole at the end nobody has moved the file's own position; what is there now has come meanwhile.
            rustix::fs::seek(&*self.file, rustix::fs::SeekFrom::Start(self.position))?;
            return self.file.read(buf);
        }
        let want = buf
            .len()
            .min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
        let length = if self.in_hole {
            buf[..want].fill(0);
            want
        } else {
            self.file.read(&mut buf[..want])?
        };
        self.position += length as u64;
        Ok(length)
    }
}
