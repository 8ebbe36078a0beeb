//! A build context as a frontend sees it: read, stat and list below one directory, and nothing else.
//!
//! The paths come from a guest and are hostile: an absolute one starts at the context's root, `..` above it is refused,
//! links are resolved inside, special files are refused, sizes are limited.  What COPY takes from a context is walked by
//! [`super::tree`].

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use stepwell_store::ChainView;

use super::error::SourceError;
use super::node::{Kind, Node};
use super::path;
use super::root::{Found, Root};
use super::tree::SourceTree;

/// Entries of a directory that a frontend may list: stops one that has the host collect millions of names.
pub const MAX_LISTED: usize = 100_000;

/// A build context; cheap to clone.
#[derive(Debug, Clone)]
pub struct ContextDir {
    tree: SourceTree,
}

/// What a frontend is told of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Type; links were followed.
    pub kind: Kind,
    /// Length in bytes, of regular files; else 0.
    pub size: u64,
    /// Permission bits (07777).
    pub mode: u32,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; need not be UTF-8.
    pub name: Vec<u8>,
    /// Type; links were not followed.
    pub kind: Kind,
}

impl ContextDir {
    /// Opens the directory `path`; what the ignore patterns `exclude` match is not there.
    pub fn open(path: &Path, exclude: &[String]) -> Result<Self, SourceError> {
        let tree = SourceTree::context(Root::open_ambient(path)?, exclude)?;
        Ok(Self { tree })
    }

    /// Takes the root of a checkout as a context: what `layers` have is there, and all of it is root's.
    pub fn of_checkout(root: OwnedFd, layers: Arc<ChainView>) -> Result<Self, SourceError> {
        let tree = SourceTree::context(Root::from_handle(root), &[])?;
        Ok(Self {
            tree: tree.showing(layers),
        })
    }

    /// Returns the same directory with other ignore patterns.
    pub fn excluding(&self, exclude: &[String]) -> Result<Self, SourceError> {
        let tree = SourceTree::context(self.tree.root.clone(), exclude)?;
        Ok(Self {
            tree: match self.tree.shown() {
                Some(layers) => tree.showing(layers),
                None => tree,
            },
        })
    }

    /// Returns the tree that COPY takes files from.
    pub fn tree(&self) -> &SourceTree {
        &self.tree
    }

    fn find(&self, path: &str) -> Result<Found, SourceError> {
        stays_inside(path)?;
        self.tree.find(path.as_bytes(), true)
    }

    fn find_if_there(&self, path: &str) -> Result<Option<Found>, SourceError> {
        stays_inside(path)?;
        self.tree.find_if_there(path.as_bytes(), true)
    }

    /// Reads the regular file at `path`, which may have at most `max` bytes.
    pub fn read(&self, path: &str, max: u64) -> Result<Vec<u8>, SourceError> {
        content(&self.find(path)?, path, max)
    }

    /// The same; nothing where there is none, or where it is ignored.
    pub fn read_if_there(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let found = self.find_if_there(path)?;
        found.map(|found| content(&found, path, max)).transpose()
    }

    /// Says what is at `path`, links followed; nothing where nothing is there, or where it is ignored.
    pub fn stat(&self, path: &str) -> Result<Option<FileStat>, SourceError> {
        let found = self.find_if_there(path)?;
        Ok(found.map(|found| FileStat::of(&found.node)))
    }

    /// Lists the directory at `path`, sorted by name.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, SourceError> {
        let found = self.find(path)?;
        if found.node.kind != Kind::Directory {
            return Err(SourceError::NotADirectory {
                path: path.to_owned(),
                found: found.node.kind.name(),
            });
        }
        let entries = self.tree.list(&found.path)?;
        if entries.len() > MAX_LISTED {
            return Err(SourceError::TooManyEntries {
                path: path.to_owned(),
                limit: MAX_LISTED,
            });
        }
        let shown = entries.into_iter().filter(|(name, node)| {
            let whole = path::join(&found.path, name);
            !self.tree.ignores(&whole)
                || (node.kind == Kind::Directory && self.tree.may_show_below(&whole))
        });
        Ok(shown
            .map(|(name, node)| DirEntry {
                name,
                kind: node.kind,
            })
            .collect())
    }
}

/// Refuses a path that leads above the root, whatever its links are.
fn stays_inside(path: &str) -> Result<(), SourceError> {
    let mut depth = 0_usize;
    for element in path::elements_of(path.as_bytes()) {
        let next = if element == b".." {
            depth.checked_sub(1)
        } else {
            Some(depth + 1)
        };
        depth = next.ok_or_else(|| SourceError::Outside {
            path: path.to_owned(),
        })?;
    }
    Ok(())
}

/// Reads the file that was found at `path`.
fn content(found: &Found, path: &str, max: u64) -> Result<Vec<u8>, SourceError> {
    if found.node.kind != Kind::File {
        return Err(SourceError::NotAFile {
            path: path.to_owned(),
            found: found.node.kind.name(),
        });
    }
    let (file, node) = found.open_file()?;
    let too_large = || SourceError::TooLarge {
        path: path.to_owned(),
        limit: max,
    };
    if node.identity.size > max {
        return Err(too_large());
    }
    // One more byte than allowed: the file may grow, and files of /proc say that they are empty.
    let mut content = Vec::with_capacity(node.identity.size as usize);
    let read = File::from(file)
        .take(max.saturating_add(1))
        .read_to_end(&mut content);
    read.map_err(|e| SourceError::std("read", path, &e))?;
    if content.len() as u64 > max {
        Err(too_large())
    } else {
        Ok(content)
    }
}

impl FileStat {
    fn of(node: &Node) -> Self {
        let size = if node.kind == Kind::File {
            node.identity.size
        } else {
            0
        };
        Self {
            kind: node.kind,
            size,
            mode: node.mode,
        }
    }
}
