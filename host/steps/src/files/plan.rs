//! What the new layer will have in it, as a tree of changes on top of the base.
//!
//! Actions change the plan one after the other, and later ones see what earlier ones did; only the finished plan is
//! written ([`super::emit`]).  Looks up paths the way the image would: symbolic links of the base and of the plan are
//! followed inside the image's root.  Reads no content.

use std::collections::{BTreeMap, VecDeque};

use stepwell_image::layer::{Entry, Kind as EntryKind, Mtime};
use stepwell_image::whiteout;

use super::base::Base;
use super::error::FilesError;
use super::owner::OwnerIds;
use crate::source::path;

/// Links followed in one look-up, as the kernel's limit.
const MAX_LINKS: usize = 40;

/// Mode of directories that are made because they are missing.
const PARENT_MODE: u32 = 0o755;

/// Changes on top of a base.
pub struct Plan<'a> {
    base: Base<'a>,
    root: Directory,
    /// Time that new directories get.
    now: Mtime,
}

/// A directory that the layer has an entry for.
pub(super) struct Directory {
    pub(super) meta: Meta,
    pub(super) items: BTreeMap<Vec<u8>, Item>,
    /// Nothing of the base is seen below: it was removed, or was never there.
    pub(super) hides_base: bool,
    /// The base has a directory here that has to be hidden by a marker.
    pub(super) opaque: bool,
}

/// What a plan has at a path.
pub(super) enum Item {
    Directory(Directory),
    Leaf(Leaf),
    /// Removed from the base.
    Gone,
}

/// Anything that is not a directory.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Mode, owner, time.
    pub meta: Meta,
    /// What it is.
    pub content: Content,
}

/// Metadata of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner; where none, as in the source.
    pub owner: Option<OwnerIds>,
    /// Time of the last modification.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the rest of the metadata is read from when the entry is written.
    pub source: Option<SourceRef>,
}

/// A file of a source tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRef {
    /// Index of the input.
    pub input: u32,
    /// Path in it, without links.
    pub path: Vec<u8>,
}

/// What a leaf is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of a source tree, with what tells that it is still the same.
    Source {
        /// What it was when it was selected.
        node: Box<crate::source::node::Node>,
        /// Equal for names that are hard links to each other.
        group: Option<(usize, u64, u64)>,
    },
    /// Bytes.
    Inline(Vec<u8>),
    /// A regular file in an archive: number of the archive and of the entry in it.
    Archived {
        /// The archive.
        archive: usize,
        /// The entry.
        ordinal: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// Something without content.
    Special(EntryKind),
}

/// What is at a path, in the plan or the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A directory.
    Directory,
    /// A symbolic link and its text.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
}

impl<'a> Plan<'a> {
    /// Starts without changes; directories that are made get the time `now`.
    pub fn new(base: Base<'a>, now: Mtime) -> Self {
        Self {
            base,
            root: Directory::over_base(Meta::default()),
            now,
        }
    }

    /// Returns the time that new directories get.
    pub fn now(&self) -> Mtime {
        self.now
    }

    /// Ends the planning.
    pub(super) fn into_root(self) -> Directory {
        self.root
    }

    /// Says what is at `path`, which has no links before its last element.
    pub fn look(&self, path: &[u8]) -> Option<Seen> {
        let mut directory = &self.root;
        let mut visible = true;
        let mut elements = path::elements_of(path).peekable();
        while let Some(name) = elements.next() {
            visible &= !directory.hides_base;
            match directory.items.get(name) {
                Some(Item::Directory(next)) => directory = next,
                Some(Item::Leaf(leaf)) if elements.peek().is_none() => return Some(leaf.seen()),
                Some(Item::Leaf(_) | Item::Gone) => return None,
                None if visible => return self.base_entry(path).map(seen),
                None => return None,
            }
        }
        Some(Seen::Directory)
    }

    /// Follows the links on the way to `path` and the one it may be; what is missing is taken as it is written.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, FilesError> {
        let mut pending: VecDeque<Vec<u8>> = path::elements_of(path).map(<[u8]>::to_vec).collect();
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                done = path::split(&done).0.to_vec();
                continue;
            }
            let here = path::join(&done, &name);
            let Some(Seen::Symlink(target)) = self.look(&here) else {
                done = here;
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(FilesError::TooManyLinks {
                    path: path::show_absolute(path),
                });
            }
            if target.first() == Some(&b'/') {
                done.clear();
            }
            path::elements_of(&target)
                .rev()
                .for_each(|e| pending.push_front(e.to_vec()));
        }
        Ok(done)
    }

    /// Makes the directory `path` (without links) and what is missing above it; what is there stays as it is.
    pub fn make_directories(
        &mut self,
        path: &[u8],
        owner: Option<OwnerIds>,
    ) -> Result<(), FilesError> {
        let mut here = Vec::new();
        for name in path::elements_of(path) {
            here = path::join(&here, name);
            match self.look(&here) {
                Some(Seen::Directory) => {}
                Some(_) => return Err(blocked(path, &here)),
                None => {
                    let owner = Some(owner.unwrap_or_default());
                    let meta = Meta {
                        mode: PARENT_MODE,
                        owner,
                        mtime: self.now,
                        ..Meta::default()
                    };
                    self.put_directory(&here, meta)?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directory `path`, or gives the one that is there other metadata; what is above it has to be there.
    pub fn put_directory(&mut self, path: &[u8], meta: Meta) -> Result<(), FilesError> {
        let existing = self.look(path);
        let in_base = self.base_entry(path).is_some_and(Entry::is_dir);
        let (parent, name) = self.parent(path)?;
        match parent.items.get_mut(name) {
            Some(Item::Directory(directory)) => directory.meta = meta,
            _ => {
                let mut made = Directory::over_base(meta);
                if existing != Some(Seen::Directory) {
                    made.hides_base = true;
                    made.opaque = in_base && !parent.hides_base;
                }
                parent.items.insert(name.to_vec(), Item::Directory(made));
            }
        }
        Ok(())
    }

    /// Puts `leaf` at `path` in place of whatever is there; what is above it has to be there.
    pub fn put(&mut self, path: &[u8], leaf: Leaf) -> Result<(), FilesError> {
        let (parent, name) = self.parent(path)?;
        parent.items.insert(name.to_vec(), Item::Leaf(leaf));
        Ok(())
    }

    /// Removes what is at `path` (without links before its last element), and everything below it.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), FilesError> {
        let in_base = self.base_entry(path).is_some();
        let (parent, name) = self.parent(path)?;
        if in_base && !parent.hides_base {
            parent.items.insert(name.to_vec(), Item::Gone);
        } else {
            parent.items.remove(name);
        }
        Ok(())
    }

    /// Returns the leaf that the plan has at `path`.
    pub fn leaf(&self, path: &[u8]) -> Option<&Leaf> {
        let (dir, name) = path::split(path);
        let mut directory = &self.root;
        for element in path::elements_of(dir) {
            let Some(Item::Directory(next)) = directory.items.get(element) else {
                return None;
            };
            directory = next;
        }
        match directory.items.get(name) {
            Some(Item::Leaf(leaf)) => Some(leaf),
            _ => None,
        }
    }

    /// Finds the directory that `path` is in, taking over from the base what leads there: a layer without the entries
    /// of its parents would make some unpackers invent their modes.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(&mut Directory, &'p [u8]), FilesError> {
        let (dir, name) = path::split(path);
        if whiteout::is_reserved(name) {
            return Err(FilesError::ReservedName {
                path: path::show_absolute(path),
            });
        }
        let base = self.base;
        let mut directory = &mut self.root;
        let mut here = Vec::new();
        for element in path::elements_of(dir) {
            here = path::join(&here, element);
            if !directory.items.contains_key(element) {
                let entry = base
                    .entry(&here)
                    .filter(|entry| entry.is_dir() && !directory.hides_base);
                let entry = entry.ok_or_else(|| blocked(dir, &here))?;
                let taken_over = Directory::over_base(Meta::of(entry));
                directory
                    .items
                    .insert(element.to_vec(), Item::Directory(taken_over));
            }
            let Some(Item::Directory(next)) = directory.items.get_mut(element) else {
                return Err(blocked(dir, &here));
            };
            next.hides_base |= directory.hides_base;
            directory = next;
        }
        Ok((directory, name))
    }

    fn base_entry(&self, path: &[u8]) -> Option<&'a Entry> {
        self.base.entry(path)
    }
}

fn blocked(path: &[u8], blocker: &[u8]) -> FilesError {
    FilesError::Blocked {
        path: path::show_absolute(path),
        blocker: path::show_absolute(blocker),
    }
}

impl Directory {
    fn over_base(meta: Meta) -> Self {
        Self {
            meta,
            items: BTreeMap::new(),
            hides_base: false,
            opaque: false,
        }
    }
}

impl Leaf {
    fn seen(&self) -> Seen {
        match &self.content {
            Content::Special(EntryKind::Symlink { target }) => Seen::Symlink(target.clone()),
            _ => Seen::Other,
        }
    }
}

impl Meta {
    fn of(entry: &Entry) -> Self {
        let owner = Some(OwnerIds {
            uid: entry.uid,
            gid: entry.gid,
        });
        Self {
            mode: entry.mode,
            owner,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
            source: None,
        }
    }
}

fn seen(entry: &Entry) -> Seen {
    match &entry.kind {
        EntryKind::Dir => Seen::Directory,
        EntryKind::Symlink { target } => Seen::Symlink(target.clone()),
        _ => Seen::Other,
    }
}
