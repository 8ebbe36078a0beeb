//! Files of a tree that have a name outside of it as well: a step that saw a cache or another tree beside its own
//! (`RUN --mount`) can make hard links between them.
//!
//! A tree is believed to be what its index says, and others use it; so an inode that some later step could
//! reach by its other name must not stay in it.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{self, AtFlags};
use stepwell_image::{Entry, Kind};
use stepwell_sys::meta::SideTable;

use crate::error::{Context as _, Result};
use crate::store::Ids;
use crate::view::split;

use super::create::{self, Creator};
use super::disk;
use super::index::Index;
use super::walk::{Found, Walked, What};

/// Returns the names of each file that has more names than the tree has of it, as numbers in `found`.
pub(super) fn foreign(walked: &Walked, index: &Index) -> Vec<Vec<usize>> {
    let mut names: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, found) in walked.found.iter().enumerate() {
        let is_dir = entry(found, index).is_none_or(Entry::is_dir);
        if found.links > 1 && !is_dir {
            names.entry(found.inode.ino).or_default().push(number);
        }
    }
    names
        .into_values()
        .filter(|names| names.len() < walked.found[names[0]].links as usize)
        .collect()
}

/// Gives each of these files an inode of its own, with the same metadata and under the same names in the tree.
pub(super) fn unshare(
    root: BorrowedFd<'_>,
    ids: Ids,
    index: &Index,
    side: &mut SideTable,
    walked: &Walked,
    files: &[Vec<usize>],
) -> Result<()> {
    let creator = Creator::new(ids, side);
    for names in files {
        let found = |number: &usize| &walked.found[*number];
        let Some(entry) = names.first().and_then(|n| entry(found(n), index)) else {
            continue;
        };
        replace(root, &creator, entry)?;
        for other in &names[1..] {
            link(root, &entry.path, &found(other).path)?;
        }
    }
    Ok(())
}

fn entry<'a>(found: &'a Found, index: &'a Index) -> Option<&'a Entry> {
    match &found.what {
        What::Same { node, .. } => Some(&index.nodes[*node as usize].entry),
        What::New { entry, .. } => Some(entry),
        What::Unfit { .. } => None,
    }
}

/// Makes the file anew under its name.
fn replace(root: BorrowedFd<'_>, creator: &Creator<'_>, entry: &Entry) -> Result<()> {
    let name = split(&entry.path).1;
    in_parent(root, &entry.path, |dir| {
        let content = match entry.kind {
            Kind::File { .. } => Some(disk::open_file(root, &entry.path)?),
            _ => None,
        };
        fs::unlinkat(dir, name, AtFlags::empty()).entry("replace", &entry.path)?;
        match content {
            Some(mut content) => creator.file(dir, name, entry, &mut content),
            None => creator.special(dir, name, entry),
        }
        .map(drop)
    })
}

/// Puts another name of `first` in the place of `path`.
fn link(root: BorrowedFd<'_>, first: &[u8], path: &[u8]) -> Result<()> {
    let (parent, name) = split(first);
    let from = disk::open_dir(root, parent).entry("open", parent)?;
    in_parent(root, path, |dir| {
        let new = split(path).1;
        fs::unlinkat(dir, new, AtFlags::empty()).entry("replace", path)?;
        fs::linkat(&from, name, dir, new, AtFlags::empty()).entry("link", path)
    })
}

/// Works in the directory of `path` and sets its times back.
fn in_parent(
    root: BorrowedFd<'_>,
    path: &[u8],
    work: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let parent = split(path).0;
    let dir = disk::open_dir(root, parent).entry("open", parent)?;
    let stat = disk::stat_fd(dir.as_fd()).entry("stat", parent)?;
    work(dir.as_fd())?;
    fs::futimens(&dir, &create::times(disk::mtime(&stat))).entry("set the time of", parent)
}
