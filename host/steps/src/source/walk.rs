//! Walks part of a source tree: everything below a directory that a COPY takes, in a fixed order.
//!
//! Level by level, the directories of a level in parallel, without recursion: a hostile depth costs neither stack nor
//! open directories, and a path longer than the kernel takes ends it.

use std::cmp::Ordering;

use rayon::prelude::*;
use stepwell_model::ignore::IgnoreSet;

use super::error::SourceError;
use super::glob::{self, Element, Fit};
use super::node::{Kind, Node};
use super::path;
use super::tree::SourceTree;

/// What of a directory is taken, besides what the context's ignore file says.
#[derive(Debug, Default)]
pub struct Filter {
    /// Patterns of `--exclude`, relative to the directory.
    pub exclude: IgnoreSet,
    /// Pattern of `--parents`, relative to the directory; everything where none.
    pub include: Option<Vec<Element>>,
}

/// One file that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Path relative to the directory that was walked.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
}

/// Whether an entry is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Take,
    /// A directory that is taken only if something below it is.
    IfNotEmpty,
    Skip,
}

impl SourceTree {
    /// Walks what is below the directory `at` (a path without links); parents come before what is in them, and the
    /// order is by name, element by element.
    pub fn walk(&self, at: &[u8], filter: &Filter) -> Result<Vec<Walked>, SourceError> {
        let mut taken = Vec::new();
        let mut level = vec![Vec::new()];
        while !level.is_empty() {
            let lists: Vec<_> = level
                .par_iter()
                .map(|dir| self.read_level(at, dir, filter))
                .collect::<Result<_, _>>()?;
            level.clear();
            for (walked, verdict) in lists.into_iter().flatten() {
                if walked.node.kind == Kind::Directory
                    && self.descends(at, &walked.path, filter, verdict)
                {
                    level.push(walked.path.clone());
                }
                if verdict != Verdict::Skip {
                    taken.push((walked, verdict));
                }
            }
        }
        taken.par_sort_unstable_by(|a, b| compare(&a.0.path, &b.0.path));
        Ok(drop_empty(taken))
    }

    fn read_level(
        &self,
        at: &[u8],
        dir: &[u8],
        filter: &Filter,
    ) -> Result<Vec<(Walked, Verdict)>, SourceError> {
        let entries = self.list(&path::join(at, dir))?.into_iter();
        let judged = entries.map(|(name, node)| {
            let path = path::join(dir, &name);
            let verdict = self.judge(at, &path, node.kind, filter);
            (Walked { path, node }, verdict)
        });
        Ok(judged
            .filter(|(walked, verdict)| {
                *verdict != Verdict::Skip || walked.node.kind == Kind::Directory
            })
            .collect())
    }

    fn judge(&self, at: &[u8], path: &[u8], kind: Kind, filter: &Filter) -> Verdict {
        let directory = kind == Kind::Directory;
        let fit = filter
            .include
            .as_ref()
            .map_or(Fit::Yes, |pattern| glob::fit(pattern, path));
        let left_out = self.ignores(&path::join(at, path)) || filter.exclude.matches(path);
        match (fit, left_out) {
            (Fit::Yes, false) => Verdict::Take,
            (Fit::Yes | Fit::Below, _) if directory => Verdict::IfNotEmpty,
            _ => Verdict::Skip,
        }
    }

    /// Says whether something below a directory may be taken: where an exclusion left it out, only an exception can
    /// take back what is below it.
    fn descends(&self, at: &[u8], path: &[u8], filter: &Filter, verdict: Verdict) -> bool {
        let whole = path::join(at, path);
        verdict != Verdict::Skip
            && (!self.ignores(&whole) || self.may_show_below(&whole))
            && (!filter.exclude.matches(path) || filter.exclude.may_have_included_below(path))
    }
}

/// Orders paths element by element, so that a directory comes right before what is in it.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // No name contains NUL, so a slash that counts as NUL sorts before every other byte.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// Drops the directories that were to be taken only if something below them is.
fn drop_empty(taken: Vec<(Walked, Verdict)>) -> Vec<Walked> {
    let mut kept: Vec<Walked> = Vec::with_capacity(taken.len());
    for (walked, verdict) in taken.into_iter().rev() {
        let holds = |next: &Walked| {
            next.path.starts_with(&walked.path) && next.path.get(walked.path.len()) == Some(&b'/')
        };
        if verdict == Verdict::Take || kept.last().is_some_and(holds) {
            kept.push(walked);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_right_before_what_is_in_it() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/b", b"a", b"a.c", b"a/b/c", b"B"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(
            paths,
            [b"B".as_slice(), b"a", b"a/b", b"a/b/c", b"a-b", b"a.c"]
        );
    }
}
