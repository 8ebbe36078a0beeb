//! A tree that files are copied from: a build context with its ignore patterns, or a checkout of another stage.
//!
//! Says what is there, as a COPY would see it: what an ignore pattern leaves out is not there, the files of a context
//! belong to root, and owners, devices and attributes that the kernel could not hold come from the checkout's
//! metadata.  Must not write, and must not know of destinations: that is `crate::files`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Dir;
use stepwell_model::ignore::IgnoreSet;
use stepwell_store::ChainView;
use stepwell_sys::meta::SideTable;

use super::error::{Hint, SourceError};
use super::glob::{self, Element};
use super::node::{Kind, Node};
use super::root::{self, Found, Root};
use super::walk::Filter;
use super::{path, similar};

/// A tree that files are copied from; cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceTree {
    pub(super) root: Root,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Context(Arc<Ignored>),
    Checkout(Owners, Option<Arc<ChainView>>),
}

/// Who says to whom the files of a checkout belong.
#[derive(Debug, Clone)]
pub enum Owners {
    /// The kernel.
    Real,
    /// The metadata that is kept beside the files (`stepwell_sys::meta`), and the side table for inodes that take no
    /// user attributes.
    Emulated(Arc<SideTable>),
}

#[derive(Debug, Default)]
struct Ignored {
    set: IgnoreSet,
    patterns: Vec<String>,
    /// What the layers of the checkout have that the context is.
    shown: Option<Arc<ChainView>>,
}

/// One source of a COPY.
#[derive(Debug)]
pub struct Match {
    /// Last element of the path that was asked for: the name that the copy gets in a directory.
    pub name: Vec<u8>,
    /// What it is, links followed.
    pub found: Found,
}

impl SourceTree {
    /// Makes the tree of a context; `exclude` are the patterns of its ignore file.
    pub fn context(root: Root, exclude: &[String]) -> Result<Self, SourceError> {
        let ignored = Ignored {
            set: IgnoreSet::new(exclude)?,
            patterns: exclude.to_vec(),
            shown: None,
        };
        Ok(Self {
            root,
            origin: Origin::Context(Arc::new(ignored)),
        })
    }

    /// Returns what of a checkout is shown, of a context that is one.
    pub(super) fn shown(&self) -> Option<Arc<ChainView>> {
        match &self.origin {
            Origin::Context(ignored) => ignored.shown.clone(),
            Origin::Checkout(_, shown) => shown.clone(),
        }
    }

    /// Makes the tree of a checkout, whose root is `root`.
    pub fn checkout(root: OwnedFd, owners: Owners) -> Self {
        Self {
            root: Root::from_handle(root),
            origin: Origin::Checkout(owners, None),
        }
    }

    /// Shows of a checkout, or of a context that is one, only what its layers have: a sandbox leaves things in `/proc`, `/dev` and `/sys` that no
    /// layer knows of.
    #[must_use]
    pub fn showing(mut self, layers: Arc<ChainView>) -> Self {
        match &mut self.origin {
            Origin::Checkout(_, shown) => *shown = Some(layers),
            Origin::Context(ignored) => {
                *ignored = Arc::new(Ignored {
                    set: ignored.set.clone(),
                    patterns: ignored.patterns.clone(),
                    shown: Some(layers),
                });
            }
        }
        self
    }

    /// Returns who says to whom files belong; nothing for a context, where they belong to root.
    pub fn owners(&self) -> Option<&Owners> {
        match &self.origin {
            Origin::Context(_) => None,
            Origin::Checkout(owners, _) => Some(owners),
        }
    }

    /// Returns the name of the kind of tree, for messages.
    pub fn name(&self) -> &'static str {
        match self.origin {
            Origin::Context(_) => "build context",
            Origin::Checkout(..) => "source stage",
        }
    }

    /// Looks `path` up, following links where `follow`; what is ignored is not found.
    pub fn find(&self, path: &[u8], follow: bool) -> Result<Found, SourceError> {
        let found = self.find_any(path, follow)?;
        match self.hidden(&found)? {
            Some(hidden) => Err(self.not_found(path, self.ignored_by(&hidden))),
            None => Ok(found),
        }
    }

    /// The same for those who do not mind that it is not there, and need no hint at why: that takes a look at the whole directory.
    pub fn find_if_there(&self, path: &[u8], follow: bool) -> Result<Option<Found>, SourceError> {
        match self.root.find(path, follow) {
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
            Ok(found) => Ok(self.hidden(&found)?.is_none().then_some(found)),
        }
    }

    /// Looks up what is there, ignored or not.
    fn find_any(&self, path: &[u8], follow: bool) -> Result<Found, SourceError> {
        match self.root.find(path, follow) {
            Err(error) if error.is_not_found() => Err(self.not_found(path, self.similar(path))),
            other => other,
        }
    }

    /// Returns what of it is not there for a COPY: a link on the way, or the thing itself.
    fn hidden(&self, found: &Found) -> Result<Option<Vec<u8>>, SourceError> {
        if let Some(link) = found.links.iter().find(|link| self.ignores(link)) {
            return Ok(Some(link.clone()));
        }
        Ok((!self.shows(found)?).then(|| found.path.clone()))
    }

    /// Finds the sources that `pattern` names, in the order of their names; a pattern without wildcards has to name
    /// something, one with wildcards need not.
    pub fn matches(&self, pattern: &str) -> Result<Vec<Match>, SourceError> {
        let cleaned = path::clean(pattern.as_bytes());
        if let Some(literal) = self.literal(&cleaned)? {
            let found = self.find(&literal, true)?;
            return Ok(vec![Match {
                name: path::base(&literal).to_vec(),
                found,
            }]);
        }
        let elements = glob::compile(&cleaned, false)?;
        let literal = elements
            .iter()
            .take_while(|e| matches!(e, Element::Literal(_)))
            .count();
        let prefix = path::elements_of(&cleaned)
            .take(literal)
            .collect::<Vec<_>>()
            .join(&b'/');
        let base = self.find(&prefix, true)?;
        if base.node.kind != Kind::Directory {
            return Err(SourceError::NotADirectory {
                path: path::show(&prefix),
                found: base.node.kind.name(),
            });
        }
        let paths = self.expand(&base.path, &elements[literal..])?;
        paths
            .into_iter()
            .filter_map(|p| self.matched(&p).transpose())
            .collect()
    }

    /// Returns the path where `cleaned` has no wildcards; a `\` is a plain character where a file of that very name
    /// exists, as in docker, and else escapes the character behind it.
    fn literal(&self, cleaned: &[u8]) -> Result<Option<Vec<u8>>, SourceError> {
        if glob::has_wildcards(cleaned) {
            return Ok(None);
        }
        let escaped = cleaned.contains(&b'\\');
        Ok((!escaped || self.root.find(cleaned, true).is_ok()).then(|| cleaned.to_vec()))
    }

    /// Returns what a pattern matched at `path`, unless it is ignored; a link to nowhere is an error, as in docker.
    fn matched(&self, path: &[u8]) -> Result<Option<Match>, SourceError> {
        if self.ignores(path) && !self.may_show_below(path) {
            return Ok(None);
        }
        let found = self.find_any(path, true)?;
        let hidden = self.hidden(&found)?.is_some();
        let name = path::base(path).to_vec();
        Ok((!hidden).then_some(Match { name, found }))
    }

    /// Walks down only where the pattern leads; links in the middle are not followed, as in docker.
    fn expand(&self, base: &[u8], elements: &[Element]) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut level = vec![base.to_vec()];
        for (depth, element) in elements.iter().enumerate() {
            let mut next = Vec::new();
            for dir in level {
                let entries = self
                    .list(&dir)?
                    .into_iter()
                    .filter(|(name, _)| element.matches(name));
                let usable = entries.filter(|(_, node)| {
                    depth + 1 == elements.len() || node.kind == Kind::Directory
                });
                next.extend(usable.map(|(name, _)| path::join(&dir, &name)));
            }
            level = next;
        }
        Ok(level)
    }

    /// Lists the directory `dir`, which has no link in its path, sorted by name; ignored entries are still in it.
    pub(super) fn list(&self, dir: &[u8]) -> Result<Vec<(Vec<u8>, Node)>, SourceError> {
        let handle = self.root.open_directory(dir)?;
        let failed = |e| SourceError::io("list", path::show(dir), e);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&handle).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            match root::stat_at(handle.as_fd(), name, &path::join(dir, name)) {
                // It went away between the listing and now.
                Err(error) if error.is_not_found() => {}
                other => entries.push((name.to_vec(), other?)),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Says whether an ignore pattern leaves `path` out.
    pub(super) fn ignores(&self, path: &[u8]) -> bool {
        match &self.origin {
            Origin::Context(ignored) => {
                let is_hidden = |shown: &Arc<ChainView>| shown.lookup(path).is_none();
                ignored.set.matches(path) || ignored.shown.as_ref().is_some_and(is_hidden)
            }
            Origin::Checkout(_, Some(shown)) => shown.lookup(path).is_none(),
            Origin::Checkout(_, None) => false,
        }
    }

    /// Says whether something below the ignored directory `path` may have been taken back.
    pub(super) fn may_show_below(&self, path: &[u8]) -> bool {
        match &self.origin {
            Origin::Context(ignored) => ignored.set.may_have_included_below(path),
            Origin::Checkout(..) => false,
        }
    }

    /// Says whether what was found is there for a COPY: not ignored, or a directory with something that is not.
    pub(super) fn shows(&self, found: &Found) -> Result<bool, SourceError> {
        if !self.ignores(&found.path) {
            return Ok(true);
        }
        let may = found.node.kind == Kind::Directory && self.may_show_below(&found.path);
        Ok(may && !self.walk(&found.path, &Filter::default())?.is_empty())
    }

    /// Opens the regular file at `path`, provided that it still is what `node` says.
    pub fn open_same(&self, path: &[u8], node: &Node) -> Result<File, SourceError> {
        let (file, opened) = self.root.open_file(path)?;
        let same = opened.identity == node.identity;
        if same {
            Ok(file.into())
        } else {
            Err(SourceError::Changed {
                path: path::show(path),
            })
        }
    }

    /// Checks that the open `file` still is what `node` says: that nobody wrote to it while it was read.
    pub fn check_same(&self, file: &File, path: &[u8], node: &Node) -> Result<(), SourceError> {
        let stat =
            rustix::fs::fstat(file).map_err(|e| SourceError::io("stat", path::show(path), e))?;
        let same = Node::new(&stat, None).identity == node.identity;
        if same {
            Ok(())
        } else {
            Err(SourceError::Changed {
                path: path::show(path),
            })
        }
    }

    /// Finds the ignore pattern that leaves out something that `pattern` would match.
    pub fn ignored_match(&self, pattern: &str) -> Result<Option<Hint>, SourceError> {
        let elements = glob::compile(&path::clean(pattern.as_bytes()), false)?;
        let mut matches = self.expand(&[], &elements)?.into_iter();
        Ok(matches.find_map(|path| self.ignores(&path).then(|| self.ignored_by(&path))?))
    }

    /// Makes the error for `path`, which is not there.
    pub(super) fn not_found(&self, path: &[u8], hint: Option<Hint>) -> SourceError {
        SourceError::NotFound {
            path: path::show(path),
            tree: self.name(),
            hint,
        }
    }

    /// Finds the first pattern that leaves out `path`.
    pub(super) fn ignored_by(&self, path: &[u8]) -> Option<Hint> {
        let Origin::Context(ignored) = &self.origin else {
            return None;
        };
        let alone =
            |pattern: &&String| IgnoreSet::new([pattern]).is_ok_and(|set| set.matches(path));
        let pattern = ignored.patterns.iter().rfind(alone)?;
        Some(Hint::Ignored {
            pattern: pattern.clone(),
        })
    }

    /// Finds names that look like the first element of `path` that is missing.
    pub(super) fn similar(&self, path: &[u8]) -> Option<Hint> {
        let mut dir = Vec::new();
        for element in path::elements_of(path) {
            let here = path::join(&dir, element);
            if self.root.find(&here, true).is_ok() {
                dir = here;
                continue;
            }
            if let Ok(Found { node, .. }) = self.root.find(&here, false)
                && node.kind == Kind::Symlink
            {
                return Some(Hint::Dangling {
                    target: path::show(&node.target),
                });
            }
            let parent = self.root.find(&dir, true).ok()?;
            let entries = self.list(&parent.path).ok()?;
            let shown = entries
                .iter()
                .filter(|(name, _)| !self.ignores(&path::join(&parent.path, name)));
            let names = similar::nearest(element, shown.map(|(name, _)| name.as_slice()));
            let names: Vec<_> = names
                .iter()
                .map(|name| path::show(&path::join(&dir, name)))
                .collect();
            return (!names.is_empty()).then_some(Hint::Similar { names });
        }
        None
    }
}

impl AsFd for SourceTree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
