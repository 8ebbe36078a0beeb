//! ADD of a local tar archive: unpacked instead of copied.
//!
//! The archive is read twice: first its entries are planned, so that a damaged one is refused before anything is
//! written and later actions see what it brings; then the contents are streamed, in the archive's own order.  All
//! paths and links stay below the destination (`..` is refused by the reader, links resolve inside the destination),
//! device nodes and named pipes are left out, owners are the archive's unless `--chown` says otherwise: as BuildKit
//! does it (solver/llbsolver/file/unpack_root.go).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bzip2::read::MultiBzDecoder;
use lzma_rust2::XzReader;
use stepwell_image::compress::{DecodeLimits, Decoder};
use stepwell_image::layer::{Entry, Kind as EntryKind, LayerReader, ReadLimits};

use super::copy::LINK_MODE;
use super::error::FilesError;
use super::notes::Note;
use super::owner::OwnerIds;
use super::plan::{Content, Leaf, Meta, Plan, Seen};
use super::select::{Copied, Source};
use crate::source::node::Node;
use crate::source::path;
use crate::source::tree::SourceTree;

/// Bytes that an archive may unpack to, besides the limits of the reader: stops one that is compressed a
/// thousandfold.
const MAX_OUTPUT: u64 = 256 << 30;

/// Memory that an xz archive may ask for, in KiB: `xz -9` asks for 65 MiB, a hostile one for 4 GiB.
const XZ_MEMORY: u32 = 256 << 10;

/// Links followed in one look-up below the destination.
const MAX_LINKS: usize = 40;

/// An archive that is to be unpacked.
pub(super) struct Archive<'a> {
    tree: &'a SourceTree,
    path: &'a [u8],
    node: &'a Node,
}

/// Returns the archive, where `source` is one that can be unpacked; anything else is copied as it is.
pub(super) fn open<'a>(
    copied: &'a Copied<'_>,
    source: &'a Source,
    _from: u32,
) -> Result<Option<Archive<'a>>, FilesError> {
    let archive = Archive {
        tree: copied.tree,
        path: &source.path,
        node: &source.node,
    };
    let file = archive.tree.open_same(archive.path, archive.node)?;
    let Ok(mut reader) = decode(file) else {
        return Ok(None);
    };
    Ok(matches!(reader.next_entry(), Ok(Some(_))).then_some(archive))
}

/// Says whether the file at `path` is an archive that ADD would unpack.
pub fn is_archive(tree: &SourceTree, path: &[u8]) -> Result<bool, FilesError> {
    let found = tree.find(path, false)?;
    let file = tree.open_same(&found.path, &found.node)?;
    let Ok(mut reader) = decode(file) else {
        return Ok(false);
    };
    Ok(matches!(reader.next_entry(), Ok(Some(_))))
}

type Reader = LayerReader<Box<dyn Read>>;

fn decode(file: File) -> io::Result<Reader> {
    let limits = DecodeLimits {
        output: MAX_OUTPUT,
        ..DecodeLimits::default()
    };
    let mut magic = [0; 6];
    let length = file.read_at(&mut magic, 0)?;
    let decoded: Box<dyn Read> = match &magic[..length] {
        [b'B', b'Z', b'h', ..] => Box::new(MultiBzDecoder::new(file).take(MAX_OUTPUT)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY).take(MAX_OUTPUT))
        }
        _ => Box::new(Decoder::new(file, limits)?),
    };
    Ok(LayerReader::new(decoded, ReadLimits::default()))
}

impl Archive<'_> {
    /// Plans all entries below `dest`, which is there and has no link in its path.
    pub(super) fn plan(
        &self,
        plan: &mut Plan<'_>,
        dest: &[u8],
        owner: Option<OwnerIds>,
        number: usize,
        notes: &mut Vec<Note>,
    ) -> Result<(), FilesError> {
        let mut into = Unpack {
            plan,
            dest,
            owner,
            number,
            archive: self.name(),
        };
        self.read(|ordinal, entry, _| {
            if matches!(
                entry.kind,
                EntryKind::Char { .. } | EntryKind::Block { .. } | EntryKind::Fifo
            ) {
                notes.push(Note::SpecialLeftOut {
                    archive: self.name(),
                    path: path::show(&entry.path),
                });
                return Ok(());
            }
            into.add(ordinal, entry)
        })
    }

    /// Reads the archive and hands over each entry, its number and its content.
    pub(super) fn read(
        &self,
        mut take: impl FnMut(u64, Entry, &mut dyn Read) -> Result<(), FilesError>,
    ) -> Result<(), FilesError> {
        let file = self.tree.open_same(self.path, self.node)?;
        let again = file.try_clone().map_err(|e| self.failed(e))?;
        let mut reader = decode(file).map_err(|e| self.failed(e))?;
        let mut ordinal = 0;
        while let Some((entry, mut content)) = reader.next_entry().map_err(|e| self.failed(e))? {
            take(ordinal, entry, &mut content)?;
            ordinal += 1;
        }
        self.tree.check_same(&again, self.path, self.node)?;
        Ok(())
    }

    fn failed(&self, error: impl std::fmt::Display) -> FilesError {
        FilesError::Archive {
            archive: self.name(),
            reason: error.to_string(),
        }
    }

    fn name(&self) -> String {
        path::show(self.path)
    }
}

/// Puts entries of an archive into a plan.
struct Unpack<'u, 'a> {
    plan: &'u mut Plan<'a>,
    dest: &'u [u8],
    owner: Option<OwnerIds>,
    number: usize,
    archive: String,
}

impl Unpack<'_, '_> {
    fn add(&mut self, ordinal: u64, entry: Entry) -> Result<(), FilesError> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let path = self.resolve(&entry.path, entry.is_dir())?;
        if path == self.dest {
            return Ok(());
        }
        let (parent, _) = path::split(&path);
        self.plan.make_directories(parent, None)?;
        let seen = self.plan.look(&path);
        let owner = Some(self.owner.unwrap_or(OwnerIds {
            uid: entry.uid,
            gid: entry.gid,
        }));
        let meta = Meta {
            mode: entry.mode,
            owner,
            mtime: entry.mtime,
            xattrs: wanted(entry.xattrs),
            source: None,
        };
        if entry.kind == EntryKind::Dir {
            if seen.is_some_and(|seen| seen != Seen::Directory) {
                self.plan.remove(&path)?;
            }
            return self.plan.put_directory(&path, meta);
        }
        let leaf = match entry.kind {
            EntryKind::File { size } => Leaf {
                meta,
                content: Content::Archived {
                    archive: self.number,
                    ordinal,
                    size,
                },
            },
            EntryKind::Hardlink { target } => self.linked(&target, &entry.path)?,
            kind => Leaf {
                meta: Meta {
                    mode: LINK_MODE,
                    ..meta
                },
                content: Content::Special(kind),
            },
        };
        self.plan.put(&path, leaf)
    }

    /// Returns another name for an entry that came before.
    fn linked(&self, target: &[u8], path: &[u8]) -> Result<Leaf, FilesError> {
        let resolved = self.resolve(target, false)?;
        let leaf = self.plan.leaf(&resolved).cloned();
        leaf.ok_or_else(|| FilesError::Archive {
            archive: self.archive.clone(),
            reason: format!(
                "`{}` is a hard link to `{}`, which is not before it",
                path::show(path),
                path::show(target)
            ),
        })
    }

    /// Follows links on the way to `path` as if the destination were the root; the last one too where `follow`.
    fn resolve(&self, path: &[u8], follow: bool) -> Result<Vec<u8>, FilesError> {
        let mut pending: Vec<Vec<u8>> = path::elements_of(path).rev().map(<[u8]>::to_vec).collect();
        let mut done: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                done = path::split(&done).0.to_vec();
                continue;
            }
            let here = path::join(&done, &name);
            let seen = self.plan.look(&path::join(self.dest, &here));
            match seen {
                Some(Seen::Symlink(target)) if follow || !pending.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FilesError::TooManyLinks {
                            path: path::show(path),
                        });
                    }
                    if target.first() == Some(&b'/') {
                        done.clear();
                    }
                    pending.extend(path::elements_of(&target).rev().map(<[u8]>::to_vec));
                }
                _ => done = here,
            }
        }
        Ok(path::join(self.dest, &done))
    }
}

fn wanted(
    mut xattrs: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    let own = stepwell_sys::meta::XATTR_PREFIX.as_bytes();
    xattrs.retain(|name, _| {
        name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(own))
    });
    xattrs
}
