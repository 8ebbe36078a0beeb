//! Tables of contents: what is in a layer, in the order of its archive, with the digest of each file.
//!
//! Made while a layer is written, or when a pulled one is first read (which is also when its diff id is checked).
//! With them, looking something up in an image, transforming a tree and digests of files need no archive.
//!
//! # Format
//! `layers/HEX.toc`: magic `SWTOC1\n`, length of the tar, number of entries, then per entry the entry itself, whether
//! there is a digest and the digest, whether there is content and the content; encoded as `codec` says.

use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

use stepwell_image::{Entry, Kind};
use stepwell_model::{Digest, Hasher};

use crate::codec::{Decoder, Encoder};
use crate::error::{Result, StoreError};
use crate::layer::{Layer, check_diff_id};
use crate::store::Store;

const MAGIC: &[u8] = b"SWTOC1\n";

/// Files whose content is kept in the table, because looking up owners needs it: reading it from the archive could
/// mean decompressing all of it.
const KEPT: [&[u8]; 2] = [b"etc/passwd", b"etc/group"];

/// Largest content that is kept.
const KEPT_MAX: u64 = 256 << 10;

/// What is in a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Toc {
    /// Length of the tar.
    pub size: u64,
    /// The entries, whiteouts included, in the order of the archive.
    pub entries: Vec<TocEntry>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocEntry {
    /// The entry.
    pub entry: Entry,
    /// Digest of the content of a regular file.
    pub digest: Option<Digest>,
    /// The content itself, of a few small files.
    pub content: Option<Vec<u8>>,
}

impl Toc {
    /// Writes the format that the head of this file describes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(MAGIC);
        out.number(self.size);
        out.number(self.entries.len() as u64);
        for item in &self.entries {
            out.entry(&item.entry);
            out.optional_digest(item.digest.as_ref());
            out.byte(item.content.is_some().into());
            if let Some(content) = &item.content {
                out.bytes(content);
            }
        }
        out.finish()
    }

    /// Reads it back; `None` where it is damaged.
    pub fn decode(file: &[u8]) -> Option<Self> {
        let mut rest = Decoder::new(MAGIC, file)?;
        let size = rest.number()?;
        let count = usize::try_from(rest.number()?).ok()?;
        let mut entries = Vec::with_capacity(count.min(rest.left()));
        for _ in 0..count {
            let entry = rest.entry()?;
            let digest = rest.optional_digest()?;
            let content = match rest.byte()? {
                0 => None,
                _ => Some(rest.bytes()?.to_vec()),
            };
            entries.push(TocEntry {
                entry,
                digest,
                content,
            });
        }
        rest.is_empty().then_some(Self { size, entries })
    }
}

/// A reader that computes the digest of what passes and keeps it where it is one of the small files.
pub(crate) struct Observed<R> {
    inner: R,
    hasher: Hasher,
    content: Option<Vec<u8>>,
}

impl<R: Read> Observed<R> {
    pub(crate) fn new(entry: &Entry, inner: R) -> Self {
        let keep = KEPT.contains(&&entry.path[..]) && entry.size() <= KEPT_MAX;
        Self {
            inner,
            hasher: Hasher::new(),
            content: keep.then(Vec::new),
        }
    }

    pub(crate) fn finish(self, entry: Entry) -> TocEntry {
        let is_file = matches!(entry.kind, Kind::File { .. });
        let digest = is_file.then(|| self.hasher.finish());
        TocEntry {
            entry,
            digest,
            content: self.content.filter(|_| is_file),
        }
    }
}

impl<R: Read> Read for Observed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buf)?;
        self.hasher.update(&buf[..length]);
        if let Some(content) = &mut self.content {
            content.extend_from_slice(&buf[..length]);
        }
        Ok(length)
    }
}

impl Store {
    /// Returns the table of contents of a layer; makes it where there is none yet.  A blob that was never looked into is
    /// checked to be the layer, even where another one of the same diff id has a table already.
    ///
    /// # Errors
    /// The layer is not in the store, is damaged, or is not what its diff id says.
    pub fn toc(&self, layer: &Layer) -> Result<Arc<Toc>> {
        if let Some(toc) = self
            .tocs
            .lock()
            .ok()
            .and_then(|t| t.get(&(layer.diff_id, layer.digest)).cloned())
        {
            return Ok(toc);
        }
        let path = self.paths().toc(&layer.diff_id);
        let toc = match fs::read(&path).ok().and_then(|file| Toc::decode(&file)) {
            Some(toc) => {
                self.verify(layer)?;
                toc
            }
            None => {
                let toc = self.scan(layer)?;
                self.session().publish(&path, &toc.encode())?;
                toc
            }
        };
        Ok(self.remember(layer, toc))
    }

    /// Returns the table of contents with that diff id, where there is one; of no layer that anybody would fetch, but of
    /// one that a tree has.
    pub(crate) fn known_toc(&self, diff_id: &Digest) -> Option<Arc<Toc>> {
        let known = self.tocs.lock().ok().and_then(|tocs| {
            let mut of_it = tocs.iter().filter(|((id, _), _)| id == diff_id);
            of_it.next().map(|(_, toc)| toc.clone())
        });
        known.or_else(|| {
            let file = fs::read(self.paths().toc(diff_id)).ok()?;
            Toc::decode(&file).map(Arc::new)
        })
    }

    /// Keeps the table of contents of a layer that was just written.
    pub(crate) fn put_toc(&self, layer: &Layer, toc: Toc) -> Result<()> {
        let path = self.paths().toc(&layer.diff_id);
        if !path.exists() {
            self.session().publish(&path, &toc.encode())?;
        }
        self.remember(layer, toc);
        Ok(())
    }

    fn remember(&self, layer: &Layer, toc: Toc) -> Arc<Toc> {
        let toc = Arc::new(toc);
        if let Ok(mut tocs) = self.tocs.lock() {
            tocs.insert((layer.diff_id, layer.digest), toc.clone());
        }
        toc
    }

    /// Reads a whole layer.
    fn scan(&self, layer: &Layer) -> Result<Toc> {
        let failed = |source| StoreError::read(layer, source);
        let (mut reader, from) = self.open_layer(layer)?;
        let mut toc = Toc::default();
        while let Some((entry, content)) = reader.next_entry().map_err(failed)? {
            let mut observed = Observed::new(&entry, content);
            if entry.size() > 0 {
                io::copy(&mut observed, &mut io::sink())
                    .map_err(|e| StoreError::decode(layer, e))?;
            }
            let item = observed.finish(entry);
            toc.entries.push(item);
        }
        let summary = reader.finish().map_err(failed)?;
        check_diff_id(layer, summary.diff_id)?;
        self.note_verified(&from)?;
        self.note_variant(&from)?;
        toc.size = summary.uncompressed_size;
        Ok(toc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let file = TocEntry {
            entry: Entry::new("etc/passwd", Kind::File { size: 2 }, 0o644),
            digest: Some(Digest::of(b"x\n")),
            content: Some(b"x\n".to_vec()),
        };
        let dir = TocEntry {
            entry: Entry::new("etc", Kind::Dir, 0o755),
            digest: None,
            content: None,
        };
        let toc = Toc {
            size: 10_240,
            entries: vec![dir, file],
        };
        assert_eq!(Toc::decode(&toc.encode()), Some(toc.clone()));
        let mut cut = toc.encode();
        cut.pop();
        assert_eq!(Toc::decode(&cut), None);
    }
}
