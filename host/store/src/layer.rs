//! Layers: which blobs hold the layer with a given diff id, taking in pulled ones, and other compressions of them.
//!
//! # Format
//! `layers/HEX.gzip`, `.zstd` and `.tar` (hexadecimal diff id) hold `DIGEST SIZE\n` of the blob that has the layer in
//! that compression.  `layers/HEX.BLOB` (hexadecimal digest of a blob) holds the same and says that this very blob was
//! unpacked and found to be the layer.  They appear by rename, after the blob, and none of them on anybody's word: an
//! image may claim another one's diff id for a blob of its own, and would be taken for the other one everywhere.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use stepwell_image::compress::{DecodeLimits, Decoder, Encoder};
use stepwell_image::hash::Hashing;
use stepwell_image::{LayerOptions, LayerReader, ReadLimits};
use stepwell_model::request::Compression;
use stepwell_model::{Digest, Hasher};

use crate::blobs::RawBlob;
use crate::error::{Context as _, Result, StoreError};
use crate::interrupt::Heeding;
use crate::store::Store;

/// One layer, as one blob of it is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Digest of the blob, the compressed tar.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Compression of the blob.
    pub compression: Compression,
}

/// Identifies the file system that layers make on top of each other: the chain id of the OCI image-spec (config.md),
/// for any number of layers; for none, the digest of nothing.
pub fn chain_id(layers: &[Layer]) -> Digest {
    let mut ids = layers.iter().map(|l| l.diff_id);
    let Some(first) = ids.next() else {
        return Hasher::new().finish();
    };
    ids.fold(first, |chain, diff_id| {
        Digest::of(format!("{chain} {diff_id}").as_bytes())
    })
}

/// A layer's blob that is being read.
type LayerFile = Heeding<File>;

impl Store {
    /// Says whether the blobs of all `layers` are in the store.
    pub fn has_layers(&self, layers: &[Layer]) -> bool {
        layers
            .iter()
            .all(|l| self.blobs().has(&l.digest, Some(l.size)))
    }

    /// Takes in a blob as the layer `diff_id`.  The claim is checked when the layer is first read, and a wrong one is
    /// an error there, before anything of it is used; until then nothing is noted of it.
    ///
    /// # Errors
    /// The blob is not there with that size.
    pub fn adopt_layer(
        &self,
        diff_id: Digest,
        digest: Digest,
        size: u64,
        compression: Compression,
    ) -> Result<Layer> {
        if !self.blobs().has(&digest, Some(size)) {
            return Err(StoreError::MissingBlob { digest });
        }
        Ok(Layer {
            diff_id,
            digest,
            size,
            compression,
        })
    }

    /// Returns the layer in the compression that is asked for; recompresses it where it has to.
    ///
    /// # Errors
    /// The layer is not in the store, is damaged, or cannot be written.
    pub fn layer_in(&self, layer: &Layer, options: &LayerOptions) -> Result<Layer> {
        if layer.compression == options.compression && self.has_layers(&[*layer]) {
            return Ok(*layer);
        }
        // A level that is asked for must be kept to, so that only the default's result is taken again.
        if options.level.is_none()
            && let Some(found) = self.variant(&layer.diff_id, options.compression)
        {
            return Ok(found);
        }
        self.recompress(layer, options)
    }

    /// Returns some blob of a layer that is in the store.
    ///
    /// # Errors
    /// There is none.
    pub fn find_layer(&self, diff_id: &Digest) -> Result<Layer> {
        [
            Compression::Uncompressed,
            Compression::Zstd,
            Compression::Gzip,
        ]
        .into_iter()
        .find_map(|compression| self.variant(diff_id, compression))
        .ok_or(StoreError::MissingLayer { diff_id: *diff_id })
    }

    /// Opens a blob of a layer for reading its entries: `layer`'s own, or another one of the same tar; either was found
    /// to be the layer.
    pub(crate) fn read_layer(&self, layer: &Layer) -> Result<LayerReader<Decoder<LayerFile>>> {
        self.verify(layer)?;
        Ok(self.open_layer(layer)?.0)
    }

    /// The same without a look at whether the layer's own blob is what it is said to be; says which blob it is.
    pub(crate) fn open_layer(
        &self,
        layer: &Layer,
    ) -> Result<(LayerReader<Decoder<LayerFile>>, Layer)> {
        let (file, from) = match self.blobs().open(&layer.digest, Some(layer.size)) {
            Err(error) if error.is_missing() => {
                let other = self.find_layer(&layer.diff_id).map_err(|_| error)?;
                (self.blobs().open(&other.digest, Some(other.size))?, other)
            }
            other => (other?, *layer),
        };
        let file = self.interrupt().reader(file);
        let reader = LayerReader::compressed(file, ReadLimits::default(), DecodeLimits::default())
            .map_err(|e| StoreError::decode(layer, e))?;
        Ok((reader, from))
    }

    /// Makes sure that the layer's own blob, where it is there, unpacks to what its diff id says.
    pub(crate) fn verify(&self, layer: &Layer) -> Result<()> {
        if self.paths().verified(layer).exists() || !self.has_layers(&[*layer]) {
            return Ok(());
        }
        let file = self.blobs().open(&layer.digest, Some(layer.size))?;
        let file = self.interrupt().reader(file);
        let failed = |e| StoreError::decode(layer, e);
        let tar = Decoder::new(file, DecodeLimits::default()).map_err(failed)?;
        let mut tar = Hashing::new(tar);
        io::copy(&mut tar, &mut io::sink()).map_err(failed)?;
        check_diff_id(layer, tar.finish().1)?;
        self.note_verified(layer)?;
        self.note_variant(layer)
    }

    /// Notes that a blob was found to be a layer.
    pub(crate) fn note_verified(&self, layer: &Layer) -> Result<()> {
        self.note(&self.paths().verified(layer), layer)
    }

    /// Notes which blob has a layer in its compression.
    pub(crate) fn note_variant(&self, layer: &Layer) -> Result<()> {
        self.note(
            &self.paths().variant(&layer.diff_id, layer.compression),
            layer,
        )
    }

    fn note(&self, path: &Path, layer: &Layer) -> Result<()> {
        let text = format!("{} {}\n", layer.digest, layer.size);
        if fs::read(path).is_ok_and(|have| have == text.as_bytes()) {
            return Ok(());
        }
        self.session().publish(path, text.as_bytes())
    }

    fn variant(&self, diff_id: &Digest, compression: Compression) -> Option<Layer> {
        let text = fs::read_to_string(self.paths().variant(diff_id, compression)).ok()?;
        let (digest, size) = text.trim_end().split_once(' ')?;
        let (digest, size) = (digest.parse().ok()?, size.parse().ok()?);
        let layer = Layer {
            diff_id: *diff_id,
            digest,
            size,
            compression,
        };
        self.has_layers(&[layer]).then_some(layer)
    }

    /// Unpacks and packs the tar as it is, byte for byte: its diff id stays.
    fn recompress(&self, layer: &Layer, options: &LayerOptions) -> Result<Layer> {
        let path = self.blobs().path(&layer.digest);
        let file = self.blobs().open(&layer.digest, Some(layer.size))?;
        let file = self.interrupt().reader(file);
        let tar = Decoder::new(file, DecodeLimits::default())
            .map_err(|e| StoreError::decode(layer, e))?;
        let out = Hashing::new(RawBlob::new(self)?);
        let mut out = Encoder::new(out, options.compression, options.level, options.threads)
            .context("compress", &path)?;
        let mut tar = Hashing::new(tar);
        io::copy(&mut tar, &mut out).context("recompress", &path)?;
        let (_, diff_id, _) = tar.finish();
        check_diff_id(layer, diff_id)?;
        let mut out = out.finish().context("recompress", &path)?;
        out.flush().context("recompress", &path)?;
        let (blob, digest, size) = out.finish();
        blob.commit(&digest, size)?;
        let made = Layer {
            diff_id,
            digest,
            size,
            compression: options.compression,
        };
        self.note_verified(&made)?;
        if options.level.is_none() {
            self.note_variant(&made)?;
        }
        Ok(made)
    }
}

/// Refuses a tar that is not the one that the layer is said to be.
pub(crate) fn check_diff_id(layer: &Layer, actual: Digest) -> Result<()> {
    if actual == layer.diff_id {
        return Ok(());
    }
    Err(StoreError::NotTheLayer {
        layer: Box::new(*layer),
        actual,
    })
}
