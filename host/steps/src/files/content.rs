//! The digest of what a file operation takes: the part of its cache key that stands for its sources.
//!
//! It is the SHA-256 over `stepwell.files.v1\0` and, for each copy action, the number of its sources and for each of
//! them: its name, itself, the number of files below it, and these in order.  A file is: its path relative to the
//! source, the name of its kind, its mode as the copy will have it (not for the source itself where it is a directory
//! and for links), the text of a link or the numbers of a device, the path of the first name of the same inode where
//! it is a hard link, and the digest over its content, owner and attributes as [`crate::source::extra`] has them.
//! Times do not count, as in docker.  Destination, owner and the like are in the operation itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use rayon::prelude::*;
use stepwell_model::{Digest, Hasher};

use super::error::FilesError;
use super::select::{Copied, Selected, Source};
use crate::source::cache::{Class, now};
use crate::source::node::{Kind, Node};
use crate::source::tree::{Owners, SourceTree};
use crate::source::{SourceError, StatCache, path};

/// Bytes that are read at a time.
const BUFFER: usize = 128 << 10;

impl Selected<'_> {
    /// Computes the digest of everything that was selected; `cache` remembers what did not change.
    pub fn digest(&self, cache: &StatCache) -> Result<Digest, FilesError> {
        let mut hasher = Hasher::new();
        hasher.update(b"stepwell.files.v1\0");
        for copied in &self.copies {
            hasher.update(&(copied.sources.len() as u64).to_le_bytes());
            for source in &copied.sources {
                copied.hash_source(source, cache, &mut hasher)?;
            }
        }
        Ok(hasher.finish())
    }

    /// Lists every file that was selected, for people, each with a digest of all that counts of it: what differs
    /// between two listings is why two digests differ.
    pub fn listing(&self, cache: &StatCache) -> Result<Vec<(String, Digest)>, FilesError> {
        let mut listing = Vec::new();
        for copied in &self.copies {
            for source in &copied.sources {
                let below = source.below.iter().map(|w| (w.path.as_slice(), &w.node));
                for (relative, node) in std::iter::once((&[][..], &source.node)).chain(below) {
                    let path = path::join(&source.path, relative);
                    let mut hasher = Hasher::new();
                    hasher.field(node.kind.name().as_bytes());
                    hasher.field(&node.target);
                    hasher.update(&node.mode.to_le_bytes());
                    hasher.update(facts(copied.tree, &path, node, cache)?.as_bytes());
                    listing.push((path::show(&path), hasher.finish()));
                }
            }
        }
        Ok(listing)
    }
}

impl Copied<'_> {
    fn hash_source(
        &self,
        source: &Source,
        cache: &StatCache,
        hasher: &mut Hasher,
    ) -> Result<(), SourceError> {
        let itself = (&[][..], &source.node);
        let below = source
            .below
            .iter()
            .map(|walked| (walked.path.as_slice(), &walked.node));
        let files: Vec<_> = std::iter::once(itself).chain(below).collect();
        let facts: Vec<Digest> = files
            .par_iter()
            .map(|(relative, node)| {
                facts(self.tree, &path::join(&source.path, relative), node, cache)
            })
            .collect::<Result<_, _>>()?;

        hasher.field(&source.name);
        hasher.update(&(source.below.len() as u64).to_le_bytes());
        let mut first_names = HashMap::new();
        for (index, ((relative, node), facts)) in files.iter().zip(&facts).enumerate() {
            hasher.field(relative);
            hasher.field(node.kind.name().as_bytes());
            let directory = node.kind == Kind::Directory;
            let counts = node.kind != Kind::Symlink && !(directory && index == 0);
            let mode = if counts {
                self.mode.apply(node.mode, directory)
            } else {
                0
            };
            hasher.update(&mode.to_le_bytes());
            hasher.field(&node.target);
            hasher.update(&node.device.0.to_le_bytes());
            hasher.update(&node.device.1.to_le_bytes());
            let linked = node.kind == Kind::File && node.links > 1;
            let inode = (node.identity.device, node.identity.inode);
            let first = if linked {
                *first_names.entry(inode).or_insert(*relative)
            } else {
                &[]
            };
            hasher.field(first);
            hasher.update(facts.as_bytes());
        }
        Ok(())
    }
}

/// Returns the digest over content, owner and attributes of what is at `path`.
fn facts(
    tree: &SourceTree,
    path: &[u8],
    node: &Node,
    cache: &StatCache,
) -> Result<Digest, SourceError> {
    let mut hasher = Hasher::new();
    if node.kind != Kind::File {
        tree.extra_at(path, node)?.hash_into(&mut hasher);
        return Ok(hasher.finish());
    }
    let class = match tree.owners() {
        None => Class::Context,
        Some(Owners::Real) => Class::Real,
        Some(Owners::Emulated(_)) => Class::Emulated,
    };
    if let Some(known) = cache.get(class, &node.identity) {
        return Ok(known);
    }
    let since = now();
    let file = tree.open_same(path, node)?;
    tree.extra_of(file.as_fd(), node, path)?
        .hash_into(&mut hasher);
    hash_content(&file, path, &mut hasher)?;
    tree.check_same(&file, path, node)?;
    let digest = hasher.finish();
    cache.put(class, &node.identity, digest, since);
    Ok(digest)
}

fn hash_content(mut file: &File, path: &[u8], hasher: &mut Hasher) -> Result<(), SourceError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SourceError::std("read", path::show(path), &error)),
        }
    }
}
