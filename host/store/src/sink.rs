//! Where a new layer is written: archive, blob, digests and table of contents in one pass.

use std::io::{self, Read};

use stepwell_image::compress::DecodeLimits;
use stepwell_image::layer::WriteError;
use stepwell_image::layer::entry::display_path;
use stepwell_image::{Entry, LayerOptions, LayerWriter, Mtime, whiteout};

use crate::blobs::RawBlob;
use crate::error::{Result, StoreError};
use crate::layer::Layer;
use crate::store::Store;
use crate::toc::{Observed, Toc};

/// A layer that is being written; dropping it without [`LayerSink::finish`] leaves nothing behind.
pub struct LayerSink<'a> {
    store: &'a Store,
    options: LayerOptions,
    writer: LayerWriter<RawBlob<'a>>,
    toc: Toc,
    /// Bytes of content so far.
    content: u64,
}

impl Store {
    /// Starts a layer.
    ///
    /// # Errors
    /// No file can be made, or the compression has no such level.
    pub fn layer_sink(&self, options: LayerOptions) -> Result<LayerSink<'_>> {
        let writer = LayerWriter::new(RawBlob::new(self)?, options)?;
        Ok(LayerSink {
            store: self,
            options,
            writer,
            toc: Toc::default(),
            content: 0,
        })
    }
}

impl LayerSink<'_> {
    /// Adds an entry.  A file that is not empty comes with its content, exactly [`Entry::size`] bytes; parents go
    /// before their children, hard links after what they link to.
    ///
    /// # Errors
    /// The entry does not fit into a layer, or content or output fail.  After that the layer is of no use.
    pub fn add(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<()> {
        if content.is_some() {
            self.make_room(entry)?;
        }
        let has_content = content.is_some();
        let mut nothing = io::empty();
        let mut observed = Observed::new(entry, content.unwrap_or(&mut nothing));
        let content: Option<&mut dyn Read> = has_content.then_some(&mut observed);
        self.writer.add(entry, content).map_err(full)?;
        let item = observed.finish(self.clamped(entry));
        self.toc.entries.push(item);
        Ok(())
    }

    /// Adds the whiteout that removes `path`.
    ///
    /// # Errors
    /// As for [`LayerSink::add`].
    pub fn remove(&mut self, path: &[u8], mtime: Mtime) -> Result<()> {
        self.marker(whiteout::removed(path, mtime))
    }

    /// Adds the marker that hides what the layers below have in `dir`.
    ///
    /// # Errors
    /// As for [`LayerSink::add`].
    pub fn opaque(&mut self, dir: &[u8], mtime: Mtime) -> Result<()> {
        self.marker(whiteout::opaque(dir, mtime))
    }

    /// Returns the digest of the content of the entry that was added last, where it was a regular file.
    pub fn last_digest(&self) -> Option<stepwell_model::Digest> {
        self.toc.entries.last().and_then(|item| item.digest)
    }

    /// Number of entries so far, whiteouts included.
    pub fn len(&self) -> usize {
        self.toc.entries.len()
    }

    /// Says whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.toc.entries.is_empty()
    }

    /// Ends the layer and keeps it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<Layer> {
        let written = self.writer.finish().map_err(full)?;
        written.out.commit(&written.digest, written.size)?;
        let layer = Layer {
            diff_id: written.diff_id,
            digest: written.digest,
            size: written.size,
            compression: self.options.compression,
        };
        self.toc.size = written.uncompressed_size;
        self.store.put_toc(&layer, self.toc)?;
        self.store.note_verified(&layer)?;
        if self.options.level.is_none() {
            self.store.note_variant(&layer)?;
        }
        Ok(layer)
    }

    /// Counts a file's content before any of it is read: a sparse file of terabytes is made in no time.
    fn make_room(&mut self, entry: &Entry) -> Result<()> {
        let limit = DecodeLimits::default().output;
        self.content = self.content.saturating_add(entry.size());
        if self.content > limit {
            return Err(StoreError::TooLarge {
                path: display_path(&entry.path),
                size: entry.size(),
                limit,
            });
        }
        Ok(())
    }

    fn marker(&mut self, entry: Entry) -> Result<()> {
        self.writer.add_raw(&entry, None).map_err(full)?;
        let item = Observed::new(&entry, io::empty()).finish(self.clamped(&entry));
        self.toc.entries.push(item);
        Ok(())
    }

    /// The entry as a reader of the archive sees it.
    fn clamped(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        entry.sparse = None;
        if let Some(secs) = self.options.clamp_mtime {
            entry.mtime = entry.mtime.clamp_to(secs);
        }
        entry
    }
}

/// A full disk is said as such.
fn full(error: WriteError) -> StoreError {
    match error {
        WriteError::Output(source) => StoreError::io("write", "layer", source),
        other => other.into(),
    }
}
