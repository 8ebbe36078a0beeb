//! Writes a finished plan: entries in the order of their paths, contents streamed.
//!
//! Small files are read ahead by a few threads, in the order in which they are written; large ones are streamed by
//! the writing thread.  Every file is checked, before and after it is read, to be what was selected: a file that
//! changes is an error, never a layer with half of it.  Contents of archives follow at the end, in their own order.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use stepwell_image::layer::{Entry, Kind as EntryKind};
use stepwell_store::StoreError;

use super::archive::Archive;
use super::error::FilesError;
use super::plan::{Content, Directory, Item, Leaf, Meta};
use super::read_ahead;
use crate::source::extra::Extra;
use crate::source::node::{Kind, Node};
use crate::source::tree::SourceTree;
use crate::source::{SourceError, path};

/// Files up to this size are read ahead, whole: with the window of [`read_ahead`], a few megabytes.
const SMALL: u64 = 128 << 10;

/// Part of a layer.
pub(super) enum Part<'p> {
    /// An entry and its content.
    Entry(&'p Entry, Option<&'p mut dyn Read>),
    /// What the base has at this path is gone.
    Removed(&'p [u8]),
    /// What the base has in this directory is gone.
    Opaque(&'p [u8]),
}

/// Takes the parts of a layer, in order.
pub(super) type Emit<'e> = dyn FnMut(Part<'_>) -> Result<(), StoreError> + 'e;

/// Something to be written.
enum Job<'p> {
    Directory(&'p Directory),
    Leaf(&'p Leaf),
    /// Another name of the entry at this path.
    Link(Vec<u8>, &'p Leaf),
    Removed,
    Opaque,
}

/// Something that is ready to be written.
enum Ready {
    Entry(Box<Entry>, Body),
    Removed(Vec<u8>),
    Opaque(Vec<u8>),
}

enum Body {
    None,
    Bytes(Vec<u8>),
    File {
        file: File,
        node: Node,
        path: Vec<u8>,
    },
}

/// Writes what a plan has.
pub(super) fn emit(
    root: &Directory,
    inputs: &[Option<SourceTree>],
    archives: &[Archive<'_>],
    emit: &mut Emit<'_>,
) -> Result<(), FilesError> {
    let mut list = List {
        jobs: Vec::new(),
        first_names: HashMap::new(),
        archived: HashMap::new(),
    };
    list.directory(&[], root);
    let prepare = |(path, job): &(Vec<u8>, Job<'_>)| prepare(path, job, inputs);
    read_ahead::run(&list.jobs, prepare, |ready| write(ready?, emit))?;
    let mut archives = archives.iter().enumerate();
    archives.try_for_each(|(number, archive)| write_archive(number, archive, &list.archived, emit))
}

/// Paths of each file of an archive, by numbers of archive and entry: names of one file are several.
type Archived<'p> = HashMap<(usize, u64), Vec<(Vec<u8>, &'p Leaf)>>;

/// Lists what is to be written, in order.
struct List<'p> {
    jobs: Vec<(Vec<u8>, Job<'p>)>,
    /// First path of each group of hard links.
    first_names: HashMap<(usize, u64, u64), Vec<u8>>,
    archived: Archived<'p>,
}

impl<'p> List<'p> {
    fn directory(&mut self, at: &[u8], top: &'p Directory) {
        // An explicit stack: a hostile archive may be as deep as a path is long.
        let mut stack = vec![(at.to_vec(), top.items.iter())];
        while let Some((dir, items)) = stack.last_mut() {
            let Some((name, item)) = items.next() else {
                stack.pop();
                continue;
            };
            let path = path::join(dir, name);
            match item {
                Item::Directory(directory) => {
                    self.jobs.push((path.clone(), Job::Directory(directory)));
                    if directory.opaque {
                        self.jobs.push((path.clone(), Job::Opaque));
                    }
                    stack.push((path, directory.items.iter()));
                }
                Item::Leaf(leaf) => self.leaf(path, leaf),
                Item::Gone => self.jobs.push((path, Job::Removed)),
            }
        }
    }

    fn leaf(&mut self, path: Vec<u8>, leaf: &'p Leaf) {
        match &leaf.content {
            Content::Archived {
                archive, ordinal, ..
            } => {
                self.archived
                    .entry((*archive, *ordinal))
                    .or_default()
                    .push((path, leaf));
            }
            Content::Source {
                group: Some(group), ..
            } => match self.first_names.get(group) {
                Some(first) => self.jobs.push((path, Job::Link(first.clone(), leaf))),
                None => {
                    self.first_names.insert(*group, path.clone());
                    self.jobs.push((path, Job::Leaf(leaf)));
                }
            },
            _ => self.jobs.push((path, Job::Leaf(leaf))),
        }
    }
}

/// Reads what an entry needs; called by several threads.
fn prepare(path: &[u8], job: &Job<'_>, inputs: &[Option<SourceTree>]) -> Result<Ready, FilesError> {
    match job {
        Job::Removed => Ok(Ready::Removed(path.to_vec())),
        Job::Opaque => Ok(Ready::Opaque(path.to_vec())),
        Job::Directory(directory) => {
            let extra = extra_of(&directory.meta, Kind::Directory, inputs)?;
            Ok(Ready::Entry(
                entry_of(path, EntryKind::Dir, &directory.meta, extra),
                Body::None,
            ))
        }
        Job::Link(target, leaf) => {
            let kind = EntryKind::Hardlink {
                target: target.clone(),
            };
            let extra = extra_of(&leaf.meta, Kind::File, inputs)?;
            Ok(Ready::Entry(
                entry_of(path, kind, &leaf.meta, extra),
                Body::None,
            ))
        }
        Job::Leaf(leaf) => prepare_leaf(path, leaf, inputs),
    }
}

fn prepare_leaf(
    path: &[u8],
    leaf: &Leaf,
    inputs: &[Option<SourceTree>],
) -> Result<Ready, FilesError> {
    match &leaf.content {
        Content::Source { node, .. } => prepare_file(path, &leaf.meta, node, inputs),
        Content::Inline(bytes) => {
            let kind = EntryKind::File {
                size: bytes.len() as u64,
            };
            let entry = entry_of(path, kind, &leaf.meta, Extra::default());
            Ok(Ready::Entry(entry, Body::Bytes(bytes.clone())))
        }
        Content::Special(kind) => {
            let extra = extra_of(&leaf.meta, Kind::Symlink, inputs)?;
            Ok(Ready::Entry(
                entry_of(path, kind.clone(), &leaf.meta, extra),
                Body::None,
            ))
        }
        Content::Archived { size, .. } => {
            let kind = EntryKind::File { size: *size };
            Ok(Ready::Entry(
                entry_of(path, kind, &leaf.meta, Extra::default()),
                Body::None,
            ))
        }
    }
}

fn prepare_file(
    path: &[u8],
    meta: &Meta,
    node: &Node,
    inputs: &[Option<SourceTree>],
) -> Result<Ready, FilesError> {
    let (tree, source) = source_of(meta, inputs)?;
    let file = tree.open_same(source, node)?;
    let extra = tree.extra_of(file.as_fd(), node, source)?;
    let size = node.identity.size;
    let kind = match extra.device {
        Some((Kind::Block, major, minor)) => EntryKind::Block { major, minor },
        Some((_, major, minor)) => EntryKind::Char { major, minor },
        None => EntryKind::File { size },
    };
    let content = match kind {
        EntryKind::File { size } if size > SMALL => Body::File {
            file,
            node: node.clone(),
            path: source.to_vec(),
        },
        EntryKind::File { .. } => {
            let mut bytes = Vec::with_capacity(size as usize);
            let read = (&file).take(size + 1).read_to_end(&mut bytes);
            read.map_err(|e| SourceError::std("read", path::show(source), &e))?;
            tree.check_same(&file, source, node)?;
            if bytes.len() as u64 != size {
                return Err(SourceError::Changed {
                    path: path::show(source),
                }
                .into());
            }
            Body::Bytes(bytes)
        }
        _ => Body::None,
    };
    Ok(Ready::Entry(entry_of(path, kind, meta, extra), content))
}

fn source_of<'t>(
    meta: &'t Meta,
    inputs: &'t [Option<SourceTree>],
) -> Result<(&'t SourceTree, &'t [u8]), FilesError> {
    let source = meta
        .source
        .as_ref()
        .ok_or(FilesError::MissingInput { index: u32::MAX })?;
    let tree = inputs.get(source.input as usize).and_then(Option::as_ref);
    Ok((
        tree.ok_or(FilesError::MissingInput {
            index: source.input,
        })?,
        &source.path,
    ))
}

fn extra_of(meta: &Meta, kind: Kind, inputs: &[Option<SourceTree>]) -> Result<Extra, FilesError> {
    if meta.source.is_none() {
        return Ok(Extra::default());
    }
    let (tree, source) = source_of(meta, inputs)?;
    Ok(tree.extra_again(source, kind)?)
}

fn entry_of(path: &[u8], kind: EntryKind, meta: &Meta, extra: Extra) -> Box<Entry> {
    let (uid, gid) = meta
        .owner
        .map_or((extra.uid, extra.gid), |owner| (owner.uid, owner.gid));
    let mut xattrs = meta.xattrs.clone();
    xattrs.extend(extra.xattrs);
    Box::new(Entry {
        uid,
        gid,
        mtime: meta.mtime,
        xattrs,
        ..Entry::new(path, kind, meta.mode)
    })
}

fn write(ready: Ready, emit: &mut Emit<'_>) -> Result<(), FilesError> {
    let (entry, content) = match ready {
        Ready::Entry(entry, content) => (entry, content),
        Ready::Removed(path) => {
            return emit(Part::Removed(&path)).map_err(|source| failed(&path, source));
        }
        Ready::Opaque(path) => {
            return emit(Part::Opaque(&path)).map_err(|source| failed(&path, source));
        }
    };
    let written = match content {
        Body::None => emit(Part::Entry(&entry, None)),
        Body::Bytes(bytes) => emit(Part::Entry(&entry, Some(&mut &bytes[..]))),
        Body::File { file, node, path } => {
            let written = emit(Part::Entry(
                &entry,
                Some(&mut (&file).take(node.identity.size)),
            ));
            // A file that was cut short makes the writer fail: say what really happened.
            let stat = rustix::fs::fstat(&file)
                .map_err(|e| SourceError::io("stat", path::show(&path), e))?;
            if Node::new(&stat, None).identity != node.identity {
                return Err(SourceError::Changed {
                    path: path::show(&path),
                }
                .into());
            }
            written
        }
    };
    written.map_err(|source| failed(&entry.path, source))
}

fn failed(path: &[u8], source: StoreError) -> FilesError {
    FilesError::Layer {
        path: path::show_absolute(path),
        source,
    }
}

fn write_archive(
    number: usize,
    archive: &Archive<'_>,
    archived: &Archived<'_>,
    emit: &mut Emit<'_>,
) -> Result<(), FilesError> {
    archive.read(|ordinal, _, content| {
        let Some([(first, leaf), others @ ..]) =
            archived.get(&(number, ordinal)).map(Vec::as_slice)
        else {
            return Ok(());
        };
        let Content::Archived { size, .. } = leaf.content else {
            return Ok(());
        };
        let entry = entry_of(
            first,
            EntryKind::File { size },
            &leaf.meta,
            Extra::default(),
        );
        emit(Part::Entry(&entry, Some(content))).map_err(|source| failed(first, source))?;
        others.iter().try_for_each(|(path, leaf)| {
            let kind = EntryKind::Hardlink {
                target: first.clone(),
            };
            let entry = entry_of(path, kind, &leaf.meta, Extra::default());
            emit(Part::Entry(&entry, None)).map_err(|source| failed(path, source))
        })
    })
}
