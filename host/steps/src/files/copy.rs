//! Carries out the actions of a file operation on a plan.
//!
//! The rules are BuildKit's (Dockerfile reference, COPY: Source and Destination; solver/llbsolver/file and fsutil's
//! copy), each named where it is applied.

use std::collections::BTreeMap;

use stepwell_image::layer::{Kind as EntryKind, Mtime};
use stepwell_model::op::{CopyAction, FileAction, Owner};

use super::archive::{self, Archive};
use super::base::Base;
use super::error::FilesError;
use super::notes::Note;
use super::owner::{self, OwnerIds};
use super::plan::{Content, Leaf, Meta, Plan, Seen, SourceRef};
use super::select::{Copied, Selected, Source};
use crate::source::node::{Kind, Node, Time};
use crate::source::path;

/// Longest `/etc/passwd` or `/etc/group` that is read.
const MAX_DATABASE: u64 = 16 << 20;

/// Carries out actions on a plan.
pub(super) struct Planner<'a> {
    pub(super) plan: Plan<'a>,
    base: Base<'a>,
    /// Archives to be unpacked, in order.
    pub(super) archives: Vec<Archive<'a>>,
    pub(super) notes: Vec<Note>,
    /// Sources so far: hard links are kept within one source, as in docker.
    sources: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(base: Base<'a>, now: Mtime) -> Self {
        Self {
            plan: Plan::new(base, now),
            base,
            archives: Vec::new(),
            notes: Vec::new(),
            sources: 0,
        }
    }

    /// Carries out all actions in order.
    pub(super) fn run(&mut self, selected: &'a Selected<'_>) -> Result<(), FilesError> {
        let mut copies = selected.copies.iter();
        for action in &selected.op.actions {
            match action {
                FileAction::Copy(action) => {
                    if let Some(copied) = copies.next() {
                        self.copy(action, copied)?;
                    }
                }
                FileAction::Mkdir { path, mode, owner } => {
                    self.mkdir(path, *mode, owner.as_ref())?
                }
                FileAction::Mkfile {
                    path,
                    content,
                    mode,
                    owner,
                } => {
                    self.mkfile(path, content, *mode, owner.as_ref())?;
                }
                FileAction::Rm {
                    path,
                    allow_missing,
                } => self.remove(path, *allow_missing)?,
                FileAction::Symlink { target, path } => self.symlink(target, path)?,
            }
        }
        Ok(())
    }

    fn copy(&mut self, action: &CopyAction, copied: &'a Copied<'_>) -> Result<(), FilesError> {
        let owner = self.owner_ids(action.owner.as_ref())?;
        for source in &copied.sources {
            self.sources += 1;
            if action.extract
                && source.node.kind == Kind::File
                && let Some(archive) = archive::open(copied, source, action.from)?
            {
                self.extract(archive, action, owner)?;
                continue;
            }
            let target = Target {
                action,
                copied,
                source,
                owner,
                group: self.sources,
            };
            match source.node.kind {
                Kind::Directory => self.copy_directory(&target)?,
                _ => self.copy_file(&target)?,
            }
        }
        Ok(())
    }

    /// Makes what the destination needs above it and follows its links: with a slash at the end it is a directory
    /// and is made, else only its parent is.
    fn destination(&mut self, dest: &str, owner: Option<OwnerIds>) -> Result<Vec<u8>, FilesError> {
        let cleaned = path::clean(dest.as_bytes());
        let ensured = if is_directory_name(dest) {
            &cleaned[..]
        } else {
            path::split(&cleaned).0
        };
        let ensured = self.plan.resolve(ensured)?;
        self.plan.make_directories(&ensured, owner)?;
        self.plan.resolve(&cleaned)
    }

    /// A directory is copied by its content into the destination, which is made (0755) where it is missing and keeps
    /// its metadata where it is there.
    fn copy_directory(&mut self, target: &Target<'_>) -> Result<(), FilesError> {
        let dest = self.destination(&target.action.dest, target.owner)?;
        if matches!(self.plan.look(&dest), Some(seen) if seen != Seen::Directory) {
            return Err(target.not_a_directory(&[], &dest));
        }
        self.plan.make_directories(&dest, target.owner)?;
        for walked in &target.source.below {
            let path = path::join(&dest, &walked.path);
            self.place(target, &walked.path, &walked.node, &path)?;
        }
        Ok(())
    }

    /// A file goes into the destination where that is a directory (also through a link), else it becomes it.
    fn copy_file(&mut self, target: &Target<'_>) -> Result<(), FilesError> {
        let dest = self.destination(&target.action.dest, target.owner)?;
        if self.plan.look(&dest) == Some(Seen::Directory) {
            let path = path::join(&dest, &target.source.name);
            return self.place(target, &[], &target.source.node, &path);
        }
        // docker copies them over each other; the reference demands a directory.
        if target.copied.sources.len() > 1 {
            return Err(FilesError::SeveralToOne {
                path: target.action.dest.clone(),
            });
        }
        self.plan
            .make_directories(path::split(&dest).0, target.owner)?;
        self.place(target, &[], &target.source.node, &dest)
    }

    /// Puts one file or directory at `path`: directories merge, files replace files and links (not what these lead
    /// to), and neither replaces the other.
    fn place(
        &mut self,
        target: &Target<'_>,
        relative: &[u8],
        node: &Node,
        path: &[u8],
    ) -> Result<(), FilesError> {
        let seen = self.plan.look(path);
        match (node.kind, seen) {
            (Kind::Directory, None | Some(Seen::Directory)) => {
                self.plan.put_directory(path, target.meta(relative, node))
            }
            (Kind::Directory, Some(_)) => Err(target.not_a_directory(relative, path)),
            (_, Some(Seen::Directory)) => {
                let from = target.shown(relative);
                Err(FilesError::IsADirectory {
                    from,
                    path: path::show_absolute(path),
                })
            }
            _ => self.plan.put(path, target.leaf(relative, node)),
        }
    }

    /// An archive is unpacked into the destination, which is a directory even without a slash (reference, ADD).
    fn extract(
        &mut self,
        archive: Archive<'a>,
        action: &CopyAction,
        owner: Option<OwnerIds>,
    ) -> Result<(), FilesError> {
        let dest = self.plan.resolve(&path::clean(action.dest.as_bytes()))?;
        self.plan.make_directories(&dest, owner)?;
        let number = self.archives.len();
        archive.plan(&mut self.plan, &dest, owner, number, &mut self.notes)?;
        self.archives.push(archive);
        Ok(())
    }

    fn mkdir(&mut self, path: &str, mode: u32, owner: Option<&Owner>) -> Result<(), FilesError> {
        let owner = self.owner_ids(owner)?;
        let path = self.plan.resolve(&path::clean(path.as_bytes()))?;
        if self.plan.look(&path) == Some(Seen::Directory) {
            return Ok(());
        }
        // Fails where something else is there, and makes what is above.
        self.plan.make_directories(&path, owner)?;
        let meta = self.made(mode, owner);
        self.plan.put_directory(&path, meta)
    }

    fn mkfile(
        &mut self,
        path: &str,
        content: &[u8],
        mode: u32,
        owner: Option<&Owner>,
    ) -> Result<(), FilesError> {
        let owner = self.owner_ids(owner)?;
        let resolved = self.plan.resolve(&path::clean(path.as_bytes()))?;
        if self.plan.look(&resolved) == Some(Seen::Directory) {
            return Err(FilesError::Exists {
                path: path.to_owned(),
            });
        }
        self.plan.make_directories(path::split(&resolved).0, None)?;
        let leaf = Leaf {
            meta: self.made(mode, owner),
            content: Content::Inline(content.to_vec()),
        };
        self.plan.put(&resolved, leaf)
    }

    fn remove(&mut self, path: &str, allow_missing: bool) -> Result<(), FilesError> {
        let resolved = self.resolve_parent(path)?;
        match self.plan.look(&resolved) {
            Some(_) if !resolved.is_empty() => self.plan.remove(&resolved),
            None if allow_missing => Ok(()),
            _ => Err(FilesError::NothingToRemove {
                path: path.to_owned(),
            }),
        }
    }

    fn symlink(&mut self, target: &str, path: &str) -> Result<(), FilesError> {
        let resolved = self.resolve_parent(path)?;
        if self.plan.look(&resolved).is_some() {
            return Err(FilesError::Exists {
                path: path.to_owned(),
            });
        }
        self.plan.make_directories(path::split(&resolved).0, None)?;
        let content = Content::Special(EntryKind::Symlink {
            target: target.into(),
        });
        let leaf = Leaf {
            meta: self.made(LINK_MODE, None),
            content,
        };
        self.plan.put(&resolved, leaf)
    }

    /// Follows the links on the way to `path`, but not the one it may be itself.
    fn resolve_parent(&self, path: &str) -> Result<Vec<u8>, FilesError> {
        let cleaned = path::clean(path.as_bytes());
        let (dir, name) = path::split(&cleaned);
        Ok(path::join(&self.plan.resolve(dir)?, name))
    }

    fn made(&self, mode: u32, owner: Option<OwnerIds>) -> Meta {
        let owner = Some(owner.unwrap_or_default());
        Meta {
            mode: mode & 0o7777,
            owner,
            mtime: self.plan.now(),
            ..Meta::default()
        }
    }

    fn owner_ids(&self, owner: Option<&Owner>) -> Result<Option<OwnerIds>, FilesError> {
        let read = |file: &str| self.base.read(file, MAX_DATABASE);
        owner
            .map(|owner| owner::resolve::<FilesError>(owner, read))
            .transpose()
    }
}

/// Mode of symbolic links: they have none, and 0777 is what tar writes.
pub(super) const LINK_MODE: u32 = 0o777;

/// One source on its way to its destination.
struct Target<'t> {
    action: &'t CopyAction,
    copied: &'t Copied<'t>,
    source: &'t Source,
    owner: Option<OwnerIds>,
    group: usize,
}

impl Target<'_> {
    fn meta(&self, relative: &[u8], node: &Node) -> Meta {
        let mode = match node.kind {
            Kind::Symlink => LINK_MODE,
            kind => self.copied.mode.apply(node.mode, kind == Kind::Directory),
        };
        let path = path::join(&self.source.path, relative);
        let source = Some(SourceRef {
            input: self.action.from,
            path,
        });
        Meta {
            mode,
            owner: self.owner,
            mtime: mtime(node.identity.mtime),
            xattrs: BTreeMap::new(),
            source,
        }
    }

    fn leaf(&self, relative: &[u8], node: &Node) -> Leaf {
        let (major, minor) = node.device;
        let content = match node.kind {
            Kind::Symlink => Content::Special(EntryKind::Symlink {
                target: node.target.clone(),
            }),
            Kind::Fifo => Content::Special(EntryKind::Fifo),
            Kind::Character => Content::Special(EntryKind::Char { major, minor }),
            Kind::Block => Content::Special(EntryKind::Block { major, minor }),
            _ => {
                let linked = node.links > 1;
                let group =
                    linked.then_some((self.group, node.identity.device, node.identity.inode));
                Content::Source {
                    node: Box::new(node.clone()),
                    group,
                }
            }
        };
        Leaf {
            meta: self.meta(relative, node),
            content,
        }
    }

    fn shown(&self, relative: &[u8]) -> String {
        path::show(&path::join(&self.source.path, relative))
    }

    fn not_a_directory(&self, relative: &[u8], path: &[u8]) -> FilesError {
        FilesError::NotADirectory {
            from: self.shown(relative),
            path: path::show_absolute(path),
        }
    }
}

fn is_directory_name(dest: &str) -> bool {
    dest.ends_with('/') || dest.ends_with("/.")
}

pub(super) fn mtime(time: Time) -> Mtime {
    Mtime {
        secs: time.secs,
        nanos: time.nanos,
    }
}
