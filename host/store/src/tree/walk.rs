//! Compares a tree with its index, directory by directory on several threads.
//!
//! An entry whose inode and time of change are those of the index was not touched: that is all that is asked of most.
//! What else differs is decided by what can be seen in a layer (type, mode, owner, mtime, size, attributes, content),
//! never by the ctime alone: a `chown` to the same owner, which the kernel notes and an emulated one does not, is
//! no change.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use rayon::prelude::*;
use rustix::fs::{Dir, FileType, Statx};
use rustix::io::Errno;
use stepwell_image::layer::entry::display_path;
use stepwell_image::whiteout::{self, Marker};
use stepwell_image::{Entry, Kind, Mtime};
use stepwell_model::Digest;
use stepwell_sys::meta::{InodeId, SideTable};

use crate::error::{Context as _, Result, StoreError};
use crate::store::Ids;

use super::index::{Index, IndexNode, Stamp, order};
use super::{disk, is_graft};

/// Files of one directory that one thread looks at in a go.
const CHUNK: usize = 512;

/// Longest path in a tree (`PATH_MAX`): anything longer could neither be opened nor unpacked by anybody.
const MAX_PATH: usize = 4095;

/// How much is shown of a longer one.
const SHOWN: usize = 64;

/// What a walk compares.
pub(crate) struct Walk<'a> {
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) ids: Ids,
    pub(crate) index: &'a Index,
    /// Side table as it is now; the one of the index is how it was.
    pub(crate) side: &'a SideTable,
    /// mtimes later than this count as this, in seconds.
    pub(crate) clamp: Option<i64>,
    /// More paths that are treated like grafts.
    pub(crate) ignore: &'a [Vec<u8>],
}

/// What is at a path now.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
    /// Number of names of a regular file.
    pub(crate) links: u32,
    pub(crate) inode: InodeId,
}

/// How it compares with the index.
#[derive(Debug)]
pub(crate) enum What {
    /// As the node of the index with this number, stamp included or not.
    Same { node: u32, stamp: Stamp },
    /// Not in the index, or not as there.
    New {
        entry: Entry,
        stamp: Stamp,
        node: Option<u32>,
    },
    /// Not what a layer can hold.
    Unfit { why: &'static str },
}

/// Everything in a tree, compared.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// In the order of paths, the root first.
    pub(crate) found: Vec<Found>,
    /// Directories that were in the index and are still: which of the index's nodes directly in them are gone.
    pub(crate) removed: BTreeMap<Vec<u8>, Vec<u32>>,
    /// What is where the sandbox makes things up and is not in the index; what is below these is not listed.
    pub(crate) strays: Vec<Vec<u8>>,
}

/// A directory that is still to be looked at.
struct Task {
    path: Vec<u8>,
    /// Its node in the index, where it was a directory there too.
    node: Option<u32>,
}

/// What was found in one directory.
#[derive(Default)]
struct Listing {
    found: Vec<Found>,
    below: Vec<Task>,
    removed: Option<(Vec<u8>, Vec<u32>)>,
    strays: Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// Looks at the whole tree.
    pub(crate) fn run(&self) -> Result<Walked> {
        let ends = self.index.ends();
        let mut walked = Walked::default();
        let root = disk::stat_fd(self.root).entry("stat", b"")?;
        walked
            .found
            .push(self.look(Vec::new(), &root, (!ends.is_empty()).then_some(0))?);
        let mut tasks = vec![Task {
            path: Vec::new(),
            node: (!ends.is_empty()).then_some(0),
        }];
        // Level by level: no recursion, no handle is kept open, and a tree that a step made deep costs nothing else.
        while !tasks.is_empty() {
            let listings: Vec<Listing> = tasks
                .par_iter()
                .map(|task| self.list(task, &ends))
                .collect::<Result<_>>()?;
            tasks.clear();
            for listing in listings {
                walked.found.extend(listing.found);
                tasks.extend(listing.below);
                walked.removed.extend(listing.removed);
                walked.strays.extend(listing.strays);
            }
        }
        walked.found.par_sort_by(|a, b| order(&a.path, &b.path));
        Ok(walked)
    }

    fn list(&self, task: &Task, ends: &[u32]) -> Result<Listing> {
        let dir = disk::open_dir(self.root, &task.path).entry("open", &task.path)?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(&dir).entry("list", &task.path)? {
            let entry = entry.entry("list", &task.path)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.par_sort_unstable();
        let old = self.children(task.node, ends);
        let (pairs, removed) = self.pair(&names, &old, &task.path);
        let found: Vec<Looked> = pairs
            .par_chunks(CHUNK)
            .map(|chunk| {
                let look = |(name, node): &Pair<'_>| self.child(dir.as_fd(), task, name, *node);
                chunk.iter().map(look).collect::<Result<Vec<_>>>()
            })
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let mut listing = Listing::default();
        for looked in found {
            match looked {
                Looked::Found(found, below) => {
                    listing.below.extend(below);
                    listing.found.push(found);
                }
                Looked::Stray(path) => listing.strays.push(path),
            }
        }
        let (kept, removed): (Vec<u32>, Vec<u32>) = removed
            .into_iter()
            .partition(|n| self.is_graft(&self.index.nodes[*n as usize].entry.path));
        for node in kept.into_iter().flat_map(|n| n..ends[n as usize]) {
            listing.found.push(self.unseen(node));
        }
        listing.removed = (!removed.is_empty()).then(|| (task.path.clone(), removed));
        Ok(listing)
    }

    /// The nodes of the index directly in a directory.
    fn children(&self, dir: Option<u32>, ends: &[u32]) -> Vec<u32> {
        let Some(dir) = dir else { return Vec::new() };
        let (mut next, end) = (dir + 1, ends[dir as usize]);
        let mut children = Vec::new();
        while next < end {
            children.push(next);
            next = ends[next as usize];
        }
        children
    }

    /// Brings names on disk and nodes of the index together; both are in the order of their names.
    fn pair<'n>(&self, names: &'n [Vec<u8>], old: &[u32], dir: &[u8]) -> (Vec<Pair<'n>>, Vec<u32>) {
        let skip = if dir.is_empty() { 0 } else { dir.len() + 1 };
        let mut old = old.iter().copied().peekable();
        let name_of = |node: u32| &self.index.nodes[node as usize].entry.path[skip..];
        let (mut pairs, mut removed) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            while let Some(node) = old.next_if(|n| name_of(*n) < &name[..]) {
                removed.push(node);
            }
            pairs.push((&name[..], old.next_if(|n| name_of(*n) == &name[..])));
        }
        removed.extend(old);
        (pairs, removed)
    }

    fn child(
        &self,
        dir: BorrowedFd<'_>,
        task: &Task,
        name: &[u8],
        node: Option<u32>,
    ) -> Result<Option<Looked>> {
        let path = join(&task.path, name);
        if path.len() > MAX_PATH {
            // The beginning says whose it is.
            let shown = display_path(&path[..SHOWN.min(path.len())]) + "…";
            return Err(StoreError::io("list", shown, Errno::NAMETOOLONG));
        }
        let stat = match disk::stat(dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.entry("stat", &path)?,
        };
        let is_dir = disk::file_type(&stat) == FileType::Directory;
        let was_dir = node.filter(|n| self.index.nodes[*n as usize].entry.is_dir());
        let below = is_dir.then(|| Task {
            path: path.clone(),
            node: was_dir,
        });
        // What is grafted keeps its node and is never new; but what an image has in /dev is still in the index.
        if self.is_graft(&path) && node.is_none() {
            return Ok(Some(Looked::Stray(path)));
        }
        let found = self.look(path, &stat, node)?;
        Ok(Some(Looked::Found(found, below)))
    }

    fn is_graft(&self, path: &[u8]) -> bool {
        is_graft(path)
            || self.ignore.iter().any(|dir| {
                path.strip_prefix(&dir[..])
                    .is_some_and(|r| r.is_empty() || r[0] == b'/')
            })
    }

    /// A graft that the sandbox took away: the image still has it.
    fn unseen(&self, node: u32) -> Found {
        Found {
            path: self.index.nodes[node as usize].entry.path.clone(),
            what: What::Same {
                node,
                stamp: Stamp::default(),
            },
            links: 1,
            inode: InodeId {
                ino: 0,
                birth_sec: 0,
                birth_nsec: 0,
            },
        }
    }

    /// Compares one inode with its node.
    fn look(&self, path: Vec<u8>, stat: &Statx, node: Option<u32>) -> Result<Found> {
        let stamp = disk::stamp(stat);
        let inode = InodeId::of(stat);
        let links = stat.stx_nlink;
        let old = node.map(|n| &self.index.nodes[n as usize]);
        let what = match (node, old) {
            (Some(node), Some(old)) if self.untouched(stat, stamp, inode, old) => {
                What::Same { node, stamp }
            }
            // A step's changes to a graft go nowhere; without a stamp the next transformation makes it anew.
            (Some(node), Some(_)) if self.is_graft(&path) => What::Same {
                node,
                stamp: Stamp::default(),
            },
            _ => match disk::read(self.root, &path, stat, self.ids, self.side)? {
                None => What::Unfit {
                    why: "it is a socket",
                },
                Some(_) if whiteout::classify(&path) != Marker::Entry => What::Unfit {
                    why: "names that begin with `.wh.` mean removal",
                },
                Some(entry) => match (node, old) {
                    (Some(node), Some(old)) if self.equal(&entry, old)? => {
                        What::Same { node, stamp }
                    }
                    _ => What::New { entry, stamp, node },
                },
            },
        };
        Ok(Found {
            path,
            what,
            links,
            inode,
        })
    }

    fn untouched(&self, stat: &Statx, stamp: Stamp, inode: InodeId, old: &IndexNode) -> bool {
        let same_size = match old.entry.kind {
            Kind::File { size } => size == stat.stx_size,
            _ => true,
        };
        stamp == old.stamp
            && same_size
            // An emulated chown of a symlink leaves no trace on its inode.
            && self.side.get(inode) == self.index.side.get(inode)
    }

    /// Says whether a layer would show no difference.
    fn equal(&self, entry: &Entry, old: &IndexNode) -> Result<bool> {
        let was = &old.entry;
        let same = entry.kind == was.kind
            && (entry.mode, entry.uid, entry.gid) == (was.mode, was.uid, was.gid)
            && self.time(entry) == self.time(was)
            && entry.xattrs == was.xattrs;
        match (same, old.digest) {
            (false, _) => Ok(false),
            (true, Some(digest)) if entry.size() > 0 => Ok(self.content(&entry.path)? == digest),
            (true, _) => Ok(true),
        }
    }

    fn time(&self, entry: &Entry) -> Mtime {
        self.clamp
            .map_or(entry.mtime, |secs| entry.mtime.clamp_to(secs))
    }

    fn content(&self, path: &[u8]) -> Result<Digest> {
        disk::digest(self.root, path)
    }
}

/// A name on disk, and the node of the index that it is.
type Pair<'n> = (&'n [u8], Option<u32>);

/// One name of a directory, looked at.
#[allow(
    clippy::large_enum_variant,
    reason = "strays are few, and boxing all the others costs"
)]
enum Looked {
    /// It is compared, and if it is a directory its names are next.
    Found(Found, Option<Task>),
    /// The sandbox made it.
    Stray(Vec<u8>),
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}
