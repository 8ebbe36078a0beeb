//! Compares a tree's index with the file system that is wanted: what stays, what is mended, made or deleted.
//!
//! That one comparison unpacks (the index is empty), goes forward (layers were added) and goes back (layers were
//! taken away): which layers the tree was made of does not matter, only what it holds.  Nothing is touched here;
//! [`super::apply`] does that.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use stepwell_image::{Entry, Kind};

use crate::view::{ChainView, Node, Place, split};

use super::index::{Index, IndexNode, order};

/// What is done about one wanted entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is there already: node of the index.
    Keep(u32),
    /// It is there with other metadata: node of the index.
    Mend(u32),
    /// It is made; what was there is deleted before.
    Make,
}

/// One wanted entry.
#[derive(Debug)]
pub(crate) struct Wanted<'v> {
    pub(crate) path: &'v [u8],
    pub(crate) node: Node<'v>,
    pub(crate) action: Action,
}

/// What a transformation does.
#[derive(Debug)]
pub(crate) struct Plan<'v> {
    /// Everything that is wanted, in the order of paths.
    pub(crate) wanted: Vec<Wanted<'v>>,
    /// Paths that are deleted with all that is in them; none is below another.
    pub(crate) deleted: Vec<Vec<u8>>,
    /// Directories that are kept but something is made or deleted in, so that their times have to be set again.
    pub(crate) touched: HashSet<Vec<u8>>,
    /// Names of the same file: for each of several, numbers in `wanted`.
    pub(crate) links: Vec<Vec<u32>>,
}

impl<'v> Plan<'v> {
    pub(crate) fn new(index: &Index, view: &'v ChainView) -> Self {
        let old: HashMap<&[u8], u32> = index
            .nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (&n.entry.path[..], i as u32))
            .collect();
        let mut wanted: Vec<Wanted<'v>> = view
            .iter()
            .map(|(path, node)| {
                let was = old.get(path).map(|i| (*i, &index.nodes[*i as usize]));
                Wanted {
                    path,
                    node,
                    action: compare(was, node),
                }
            })
            .collect();
        wanted.par_sort_by(|a, b| order(a.path, b.path));
        let links = link_groups(&wanted);
        settle_links(index, &mut wanted, &links);
        let deleted = deleted(index, &wanted);
        let mut plan = Self {
            wanted,
            deleted,
            touched: HashSet::new(),
            links,
        };
        plan.note_touched();
        plan
    }

    /// Bytes of content that have to be written.
    pub(crate) fn bytes(&self) -> u64 {
        let size = |w: &Wanted<'_>| match w.action {
            Action::Make => w.node.entry().size(),
            _ => 0,
        };
        // A file with several names is written once.
        let others = self.links.iter().flat_map(|group| &group[1..]);
        let others: u64 = others.map(|n| size(&self.wanted[*n as usize])).sum();
        self.wanted.iter().map(size).sum::<u64>() - others
    }

    fn note_touched(&mut self) {
        let made = self
            .wanted
            .iter()
            .filter(|w| w.action == Action::Make)
            .map(|w| w.path);
        let changed = made.chain(self.deleted.iter().map(|p| &p[..]));
        self.touched = changed
            .filter(|p| !p.is_empty())
            .map(|p| split(p).0.to_vec())
            .collect();
    }
}

/// Looks at one path alone.
fn compare(was: Option<(u32, &IndexNode)>, node: Node<'_>) -> Action {
    let Some((number, was)) = was.filter(|(_, was)| was.stamp.ino != 0) else {
        return Action::Make;
    };
    let (old, new) = (&was.entry, node.entry());
    if old.kind != new.kind || was.digest != node.digest() {
        return Action::Make;
    }
    if node.is_implied() || same_metadata(old, new) {
        return Action::Keep(number);
    }
    match new.kind {
        Kind::Dir | Kind::File { .. } => Action::Mend(number),
        _ => Action::Make,
    }
}

fn same_metadata(old: &Entry, new: &Entry) -> bool {
    (old.mode, old.uid, old.gid, old.mtime) == (new.mode, new.uid, new.gid, new.mtime)
        && old.xattrs == new.xattrs
}

/// The files with several names.
fn link_groups(wanted: &[Wanted<'_>]) -> Vec<Vec<u32>> {
    let mut first: HashMap<Place, u32> = HashMap::new();
    let mut groups: HashMap<Place, Vec<u32>> = HashMap::new();
    for (number, wanted) in wanted.iter().enumerate().filter(|(_, w)| !w.node.is_dir()) {
        let place = wanted.node.place();
        if let Some(other) = first.insert(place, number as u32) {
            groups
                .entry(place)
                .or_insert_with(|| vec![other])
                .push(number as u32);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_unstable();
    groups
}

/// Makes sure that two paths share an inode exactly where they shall.
fn settle_links(index: &Index, wanted: &mut [Wanted<'_>], groups: &[Vec<u32>]) {
    let mut names: HashMap<u64, u32> = HashMap::new();
    for node in index.nodes.iter().filter(|n| !n.entry.is_dir()) {
        *names.entry(node.stamp.ino).or_default() += 1;
    }
    let ino = |action| match action {
        Action::Keep(node) | Action::Mend(node) => Some(index.nodes[node as usize].stamp.ino),
        Action::Make => None,
    };
    let mut claimed: HashSet<u64> = HashSet::new();
    let mut grouped: HashSet<u32> = HashSet::new();
    for group in groups {
        let inodes: HashSet<Option<u64>> = group
            .iter()
            .map(|n| ino(wanted[*n as usize].action))
            .collect();
        let kept = group
            .iter()
            .all(|n| matches!(wanted[*n as usize].action, Action::Keep(_)));
        match inodes.iter().next() {
            Some(Some(shared)) if kept && inodes.len() == 1 && claimed.insert(*shared) => {}
            _ => group
                .iter()
                .for_each(|n| wanted[*n as usize].action = Action::Make),
        }
        grouped.extend(group);
    }
    for (number, wanted) in wanted
        .iter_mut()
        .enumerate()
        .filter(|(_, w)| !w.node.is_dir())
    {
        if grouped.contains(&(number as u32)) {
            continue;
        }
        let Some(ino) = ino(wanted.action).filter(|ino| names[ino] > 1) else {
            continue;
        };
        // Mending would change the other names too, until those are deleted.
        if matches!(wanted.action, Action::Mend(_)) || !claimed.insert(ino) {
            wanted.action = Action::Make;
        }
    }
}

/// What is in the tree and may not stay.
fn deleted(index: &Index, wanted: &[Wanted<'_>]) -> Vec<Vec<u8>> {
    let stays: HashSet<&[u8]> = wanted
        .iter()
        .filter(|w| w.action != Action::Make)
        .map(|w| w.path)
        .collect();
    let mut deleted: Vec<Vec<u8>> = Vec::new();
    for node in &index.nodes {
        let path = &node.entry.path;
        let is_below = deleted.last().is_some_and(|dir| {
            path.strip_prefix(&dir[..])
                .is_some_and(|r| r.first() == Some(&b'/'))
        });
        if !is_below && !stays.contains(&path[..]) {
            deleted.push(path.clone());
        }
    }
    deleted
}
