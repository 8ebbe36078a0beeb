//! The file system that layers make on top of each other, as a table in memory: looked up without unpacking anything.
//!
//! Layers come from anywhere.  Every path is resolved here, within the table, before anybody touches a disk: an entry
//! whose parent is a symbolic link lands where the link leads *inside the image* (as containerd and docker have it),
//! never outside.  What the table says is what [`tree`](crate::tree) puts on disk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::io::Read as _;
use std::ops::Bound;
use std::sync::Arc;

use stepwell_image::layer::entry::display_path;
use stepwell_image::whiteout::{self, Marker};
use stepwell_image::{Entry, Kind};
use stepwell_model::Digest;

use crate::error::{Context as _, Result, StoreError};
use crate::layer::Layer;
use crate::store::Store;
use crate::toc::{Toc, TocEntry};

/// Symbolic links followed for one path: stops circles (Linux allows 40).
const MAX_LINKS: usize = 40;

/// Where the entry of a path is: which layer, counted from the bottom, and which entry of it.  Names of the same file
/// (hard links) have the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Index of the layer.
    pub layer: u32,
    /// Index of the entry in its table of contents.
    pub entry: u32,
}

/// A directory that no layer has an entry for, but that something lies in.
const IMPLIED: Place = Place {
    layer: u32::MAX,
    entry: 0,
};

/// The file system of a chain of layers.
#[derive(Debug, Clone)]
pub struct ChainView {
    layers: Vec<Layer>,
    tocs: Vec<Arc<Toc>>,
    nodes: BTreeMap<Box<[u8]>, Place>,
    implied: Arc<TocEntry>,
}

/// What is at a path.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    item: &'a TocEntry,
    place: Place,
}

impl<'a> Node<'a> {
    /// The entry; of a file with several names it may be the one of another name.
    pub fn entry(&self) -> &'a Entry {
        &self.item.entry
    }

    /// Digest of the content of a regular file.
    pub fn digest(&self) -> Option<Digest> {
        self.item.digest
    }

    /// Where the entry is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Says whether it is a directory that no layer has an entry for.
    pub fn is_implied(&self) -> bool {
        self.place == IMPLIED
    }

    /// Says whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.item.entry.is_dir()
    }
}

/// Where a path leads when symbolic links are followed within the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links, `.` and `..`, relative to the root; empty is the root.
    pub path: Vec<u8>,
    /// Whether something is there; if not, nothing is at the path or one of its parents.
    pub exists: bool,
}

impl Store {
    /// Returns the file system that `layers` make, bottom first.
    ///
    /// # Errors
    /// A layer is not in the store, is damaged, or cannot be laid on the ones below.
    pub fn chain_view(&self, layers: &[Layer]) -> Result<ChainView> {
        let mut view = ChainView::empty();
        for layer in layers {
            view.push(*layer, self.toc(layer)?)?;
        }
        Ok(view)
    }
}

impl Default for ChainView {
    fn default() -> Self {
        Self::empty()
    }
}

impl ChainView {
    /// The file system without layers: nothing but the root.
    pub fn empty() -> Self {
        let entry = Entry::new("", Kind::Dir, 0o755);
        let implied = TocEntry {
            entry,
            digest: None,
            content: None,
        };
        Self {
            layers: Vec::new(),
            tocs: Vec::new(),
            nodes: [(Box::default(), IMPLIED)].into(),
            implied: Arc::new(implied),
        }
    }

    /// Lays one more layer on top.
    ///
    /// # Errors
    /// An entry cannot be where it wants to be.
    pub fn push(&mut self, layer: Layer, toc: Arc<Toc>) -> Result<()> {
        let index = self.tocs.len() as u32;
        self.layers.push(layer);
        self.tocs.push(toc.clone());
        // Whiteouts hide what is *below*, wherever in the archive they stand (OCI image-spec, layer.md).
        for item in &toc.entries {
            match whiteout::classify(&item.entry.path) {
                Marker::Entry | Marker::Ignored => {}
                Marker::Removed(path) => {
                    if let Some(path) = self.destination(&path, false)? {
                        self.remove(&path);
                    }
                }
                Marker::Opaque(dir) => {
                    let resolved = self.resolve(&dir)?;
                    self.remove_below(&resolved.path);
                }
            }
        }
        for (number, item) in toc.entries.iter().enumerate() {
            if whiteout::classify(&item.entry.path) == Marker::Entry {
                self.insert(
                    &item.entry,
                    Place {
                        layer: index,
                        entry: number as u32,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Returns the layers, bottom first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns what is exactly at `path`; no link is followed.
    pub fn lookup(&self, path: &[u8]) -> Option<Node<'_>> {
        let place = *self.nodes.get(trimmed(path))?;
        Some(Node {
            item: self.item(place),
            place,
        })
    }

    /// Follows `path` from the root, all symbolic links included, the last one too.
    ///
    /// # Errors
    /// [`StoreError::Loop`].
    pub fn resolve(&self, path: &[u8]) -> Result<Resolved> {
        self.follow(path, true)
    }

    /// Follows `path` from the root; when its last element is a link, that is the result.
    ///
    /// # Errors
    /// [`StoreError::Loop`].
    pub fn resolve_parent(&self, path: &[u8]) -> Result<Resolved> {
        self.follow(path, false)
    }

    /// Returns the names in a directory with what they are, by name; nothing where `dir` is no directory.
    pub fn list(&self, dir: &[u8]) -> Vec<(&[u8], Node<'_>)> {
        let prefix = below(trimmed(dir));
        let mut names = Vec::new();
        let mut from: Bound<Box<[u8]>> = Bound::Excluded(prefix.clone().into());
        while let Some((path, place)) = self.nodes.range((from.clone(), Bound::Unbounded)).next() {
            let Some(rest) = path.strip_prefix(&prefix[..]) else {
                break;
            };
            from = match rest.iter().position(|b| *b == b'/') {
                None => {
                    names.push((
                        rest,
                        Node {
                            item: self.item(*place),
                            place: *place,
                        },
                    ));
                    Bound::Excluded(path.clone())
                }
                // Below a child: on to the first path behind all of that child's.
                Some(end) => {
                    Bound::Included([&prefix[..], &rest[..end], &[b'/' + 1]].concat().into())
                }
            };
        }
        names.sort_by_key(|(name, _)| *name);
        names
    }

    /// Returns every path with what is there; parents come before what lies in them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Node<'_>)> {
        self.nodes.iter().map(|(path, place)| {
            (
                &path[..],
                Node {
                    item: self.item(*place),
                    place: *place,
                },
            )
        })
    }

    /// Number of paths, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Says whether there is nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Reads a file of at most `max` bytes, links followed; nothing where there is none.
    ///
    /// # Errors
    /// It is not a regular file, is larger, or its layer cannot be read.
    pub fn read_file(&self, store: &Store, path: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        let resolved = self.resolve(path)?;
        let Some(node) = self.lookup(&resolved.path).filter(|_| resolved.exists) else {
            return Ok(None);
        };
        let refuse = |what| {
            Err(StoreError::ImageFile {
                path: display_path(trimmed(path)),
                what,
            })
        };
        match node.entry().kind {
            Kind::File { size: 0 } => return Ok(Some(Vec::new())),
            Kind::File { size } if size > max => return refuse("it is too large"),
            Kind::File { .. } => {}
            _ => return refuse("it is not a regular file"),
        }
        match &node.item.content {
            Some(content) => Ok(Some(content.clone())),
            None => self.extract(store, node.place).map(Some),
        }
    }

    pub(crate) fn item(&self, place: Place) -> &TocEntry {
        match self.tocs.get(place.layer as usize) {
            Some(toc) => &toc.entries[place.entry as usize],
            None => &self.implied,
        }
    }

    /// Reads the content of one entry out of its archive.
    fn extract(&self, store: &Store, place: Place) -> Result<Vec<u8>> {
        let layer = &self.layers[place.layer as usize];
        let failed = |source| StoreError::read(layer, source);
        let mut reader = store.read_layer(layer)?;
        for _ in 0..place.entry {
            reader.next_entry().map_err(failed)?;
        }
        let mut content = Vec::new();
        if let Some((entry, mut bytes)) = reader.next_entry().map_err(failed)? {
            bytes.read_to_end(&mut content).entry("read", &entry.path)?;
        }
        Ok(content)
    }

    fn insert(&mut self, entry: &Entry, place: Place) -> Result<()> {
        let Some(path) = self.destination(&entry.path, true)? else {
            return Ok(());
        };
        let place = match &entry.kind {
            Kind::Hardlink { target } => self.link_target(entry, target)?,
            _ => place,
        };
        let is_dir = entry.is_dir();
        let had_dir = match self.nodes.entry(path.clone().into()) {
            Slot::Vacant(slot) => {
                slot.insert(place);
                false
            }
            Slot::Occupied(mut slot) => {
                let old = slot.insert(place);
                self.tocs
                    .get(old.layer as usize)
                    .is_none_or(|t| t.entries[old.entry as usize].entry.is_dir())
            }
        };
        if had_dir && !is_dir {
            if path.is_empty() {
                return Err(self.unsound(entry, "replaces the root directory"));
            }
            self.remove_below(&path);
        }
        Ok(())
    }

    /// The place of the file that a hard link names.
    fn link_target(&self, entry: &Entry, target: &[u8]) -> Result<Place> {
        let missing = || self.unsound(entry, "is a hard link to something that is not there");
        let path = self.resolve_parent(target)?;
        let place = *self
            .nodes
            .get(&path.path[..])
            .filter(|_| path.exists)
            .ok_or_else(missing)?;
        if self.item(place).entry.is_dir() {
            return Err(self.unsound(entry, "is a hard link to a directory"));
        }
        Ok(place)
    }

    /// Where an entry goes: links in its parents followed, missing parents made where `make`, else `None`.
    fn destination(&mut self, path: &[u8], make: bool) -> Result<Option<Vec<u8>>> {
        let (parent, name) = split(path);
        if name.is_empty() || self.is_dir(parent) {
            return Ok(Some(path.to_vec()));
        }
        let resolved = self.resolve(parent)?;
        if !self.is_dir(&resolved.path) {
            if !make {
                return Ok(None);
            }
            self.make_dirs(&resolved.path);
        }
        Ok(Some([&below(&resolved.path)[..], name].concat()))
    }

    /// Makes a directory and its parents; what is in the way and is no directory goes.
    fn make_dirs(&mut self, path: &[u8]) {
        let ends = (0..path.len())
            .filter(|i| path[*i] == b'/')
            .chain([path.len()]);
        for end in ends {
            if !self.is_dir(&path[..end]) {
                self.nodes.insert(path[..end].into(), IMPLIED);
            }
        }
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        self.nodes
            .get(path)
            .is_some_and(|place| self.item(*place).entry.is_dir())
    }

    fn remove(&mut self, path: &[u8]) {
        if !path.is_empty() {
            self.nodes.remove(path);
        }
        self.remove_below(path);
    }

    fn remove_below(&mut self, dir: &[u8]) {
        let first: Box<[u8]> = below(dir).into();
        let bounds = if dir.is_empty() {
            (Bound::Excluded(first), Bound::Unbounded)
        } else {
            (
                Bound::Included(first),
                Bound::Excluded([dir, &[b'/' + 1]].concat().into()),
            )
        };
        let gone: Vec<_> = self
            .nodes
            .range(bounds)
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }

    fn follow(&self, path: &[u8], last: bool) -> Result<Resolved> {
        let mut links = 0;
        let mut at: Vec<u8> = Vec::new();
        // What is still to be walked, the next element last.
        let mut rest: Vec<&[u8]> = elements(path);
        let mut exists = true;
        while let Some(element) = rest.pop() {
            if element == b".." {
                at.truncate(split(&at).0.len());
                exists = self.nodes.contains_key(&at[..]);
                continue;
            }
            let next = [&below(&at)[..], element].concat();
            let Some(place) = self.nodes.get(&next[..]) else {
                (at, exists) = (next, false);
                continue;
            };
            match &self.item(*place).entry.kind {
                Kind::Symlink { target } if last || !rest.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(StoreError::Loop {
                            path: display_path(trimmed(path)),
                        });
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                        exists = true;
                    }
                    rest.extend(elements(target));
                }
                _ => (at, exists) = (next, true),
            }
        }
        Ok(Resolved { path: at, exists })
    }

    fn unsound(&self, entry: &Entry, what: &'static str) -> StoreError {
        let diff_id = self.layers.last().map_or(Digest::of(b""), |l| l.diff_id);
        StoreError::Unsound {
            diff_id,
            path: entry.display(),
            what,
        }
    }
}

/// The elements of a path, last first, without empty ones and `.`.
fn elements(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/')
        .rev()
        .filter(|e| !matches!(*e, b"" | b"."))
        .collect()
}

/// A path without slashes around it.
fn trimmed(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}

/// What all paths below `dir` begin with.
fn below(dir: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        Vec::new()
    } else {
        [dir, b"/"].concat()
    }
}

/// Parent and last element.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}
