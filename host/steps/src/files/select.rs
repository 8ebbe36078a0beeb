//! What a file operation takes from its sources: found and walked once, then hashed for the cache key, and copied
//! where the key is not known.  Reads no content; what a file was when it was selected is kept, so that one that
//! changes later is noticed and not copied under a key that is not its own.
//!
//! Next: [`super::content`] for the digest, [`super::copy`] for what is done with it.

use stepwell_model::ignore::IgnoreSet;
use stepwell_model::op::{CopyAction, FileAction, FilesOp};

use super::error::FilesError;
use super::mode::Chmod;
use super::notes::Note;
use crate::source::glob::{self, Element};
use crate::source::node::{Kind, Node};
use crate::source::tree::{Match, SourceTree};
use crate::source::walk::{Filter, Walked};
use crate::source::{SourceError, path};

/// What a file operation takes from its sources.
#[derive(Debug)]
pub struct Selected<'a> {
    pub(super) op: &'a FilesOp,
    pub(super) inputs: &'a [Option<SourceTree>],
    /// One for each copy action, in order.
    pub(super) copies: Vec<Copied<'a>>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// What one copy action takes.
#[derive(Debug)]
pub(super) struct Copied<'a> {
    pub(super) action: &'a CopyAction,
    pub(super) tree: &'a SourceTree,
    pub(super) mode: Chmod,
    pub(super) sources: Vec<Source>,
}

/// One file or directory that a source pattern named.
#[derive(Debug)]
pub(super) struct Source {
    /// The name that a file gets in a directory.
    pub(super) name: Vec<u8>,
    /// Path in the tree, without links.
    pub(super) path: Vec<u8>,
    pub(super) node: Node,
    /// What of a directory is copied.
    pub(super) below: Vec<Walked>,
}

/// Finds what `op` copies; `inputs` has a tree at each index that a copy action names.
pub fn select<'a>(
    op: &'a FilesOp,
    inputs: &'a [Option<SourceTree>],
) -> Result<Selected<'a>, FilesError> {
    let mut notes = Vec::new();
    let mut copies = Vec::new();
    for action in &op.actions {
        if let FileAction::Copy(action) = action {
            copies.push(select_copy(action, inputs, &mut notes)?);
        }
    }
    Ok(Selected {
        op,
        inputs,
        copies,
        notes,
    })
}

fn select_copy<'a>(
    action: &'a CopyAction,
    inputs: &'a [Option<SourceTree>],
    notes: &mut Vec<Note>,
) -> Result<Copied<'a>, FilesError> {
    let missing = || FilesError::MissingInput { index: action.from };
    let tree = inputs
        .get(action.from as usize)
        .and_then(Option::as_ref)
        .ok_or_else(missing)?;
    let mut copied = Copied {
        action,
        tree,
        mode: Chmod::parse(&action.mode)?,
        sources: Vec::new(),
    };
    for pattern in &action.sources {
        let before = copied.sources.len();
        let wild = if action.parents {
            copied.add_with_parents(pattern)?
        } else {
            copied.add(pattern)?
        };
        if wild && copied.sources.len() == before {
            let hint = tree.ignored_match(pattern)?;
            notes.push(Note::NothingMatches {
                pattern: pattern.clone(),
                hint,
            });
        }
    }
    let sockets = copied.drop_sockets()?;
    notes.extend(sockets.into_iter().map(|path| Note::SocketLeftOut { path }));
    Ok(copied)
}

impl Copied<'_> {
    /// Adds what `pattern` names, and says whether it may name nothing.
    fn add(&mut self, pattern: &str) -> Result<bool, FilesError> {
        let wild = glob::has_wildcards(pattern.as_bytes());
        let exclude = IgnoreSet::new(&self.action.exclude).map_err(SourceError::from)?;
        for Match { name, found } in self.tree.matches(pattern)? {
            // A directory that is named in full is copied by its content: only a pattern can leave it out itself.
            let by_name = wild || found.node.kind != Kind::Directory;
            if by_name && exclude.matches(&name) {
                continue;
            }
            let filter = Filter {
                exclude: exclude.clone(),
                include: None,
            };
            let below = self.below(&found.path, &found.node, &filter)?;
            self.sources.push(Source {
                name,
                path: found.path,
                node: found.node,
                below,
            });
        }
        Ok(wild || !exclude.is_empty())
    }

    /// Adds what `pattern` names with the directories on the way to it (`--parents`), and says whether it may name
    /// nothing.
    fn add_with_parents(&mut self, pattern: &str) -> Result<bool, FilesError> {
        let (pivot, rest) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let include = glob::compile(&path::clean(rest.as_bytes()), true)?;
        let literal = include.iter().all(|e| matches!(e, Element::Literal(_)));
        let mut found_any = false;
        for Match { name, found } in self.tree.matches(pivot)? {
            let exclude = IgnoreSet::new(&self.action.exclude).map_err(SourceError::from)?;
            let filter = Filter {
                exclude,
                include: Some(include.clone()),
            };
            let below = self.below(&found.path, &found.node, &filter)?;
            if !below.is_empty() {
                found_any = true;
                self.sources.push(Source {
                    name,
                    path: found.path,
                    node: found.node,
                    below,
                });
            }
        }
        let required =
            literal && !glob::has_wildcards(pivot.as_bytes()) && self.action.exclude.is_empty();
        if required && !found_any && !include.is_empty() {
            let whole = path::clean([pivot, rest].join("/").as_bytes());
            // Finding it tells why it is not there; an empty directory that is there is not copied without a name.
            self.tree.find(&whole, false)?;
            return Err(SourceError::NotFound {
                path: path::show(&whole),
                tree: self.tree.name(),
                hint: None,
            }
            .into());
        }
        Ok(!required)
    }

    fn below(&self, at: &[u8], node: &Node, filter: &Filter) -> Result<Vec<Walked>, FilesError> {
        if node.kind == Kind::Directory {
            Ok(self.tree.walk(at, filter)?)
        } else {
            Ok(Vec::new())
        }
    }

    /// A tar cannot hold sockets: those found on the way are left out, as docker does, one that is named is refused.
    fn drop_sockets(&mut self) -> Result<Vec<String>, FilesError> {
        let mut dropped = Vec::new();
        for source in &mut self.sources {
            if source.node.kind == Kind::Socket {
                let found = source.node.kind.name();
                return Err(FilesError::Unsupported {
                    path: path::show(&source.path),
                    found,
                });
            }
            let at = &source.path;
            source.below.retain(|walked| {
                let socket = walked.node.kind == Kind::Socket;
                if socket {
                    dropped.push(path::show(&path::join(at, &walked.path)));
                }
                !socket
            });
        }
        Ok(dropped)
    }
}
