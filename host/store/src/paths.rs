//! Where everything of a store lies below its root.  Names only: nothing is opened here.

use std::path::{Path, PathBuf};

use stepwell_model::Digest;
use stepwell_model::request::Compression;

use crate::layer::Layer;

/// Directory of this version of the format.
const VERSION: &str = "v1";

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    base: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            base: root.join(VERSION),
        }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The directories that are there from the start.
    pub(crate) fn directories(&self) -> [PathBuf; 6] {
        ["blobs/sha256", "layers", "records", "slots", "trees", "tmp"].map(|d| self.base.join(d))
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.base.join("lock")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.base.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.base.join("layers")
    }

    pub(crate) fn toc(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.toc", diff_id.hex()))
    }

    pub(crate) fn variant(&self, diff_id: &Digest, compression: Compression) -> PathBuf {
        let suffix = match compression {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Uncompressed => "tar",
        };
        self.layers().join(format!("{}.{suffix}", diff_id.hex()))
    }

    pub(crate) fn verified(&self, layer: &Layer) -> PathBuf {
        self.layers()
            .join(format!("{}.{}", layer.diff_id.hex(), layer.digest.hex()))
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.base.join("records")
    }

    pub(crate) fn record(&self, key: &Digest) -> PathBuf {
        self.records().join(key.hex())
    }

    pub(crate) fn slots(&self) -> PathBuf {
        self.base.join("slots")
    }

    pub(crate) fn slot(&self, slot: &str) -> PathBuf {
        self.slots().join(Digest::of(slot.as_bytes()).hex())
    }

    pub(crate) fn trees(&self) -> PathBuf {
        self.base.join("trees")
    }

    pub(crate) fn caches(&self) -> PathBuf {
        self.base.join("caches")
    }

    pub(crate) fn cache(&self, name: &Digest) -> PathBuf {
        self.caches().join(name.hex())
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }
}
