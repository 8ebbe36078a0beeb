//! Why something could not be done with the store.

use std::fmt;
use std::io;
use std::path::Path;

use stepwell_image::layer::entry::display_path;
use stepwell_image::layer::{ReadError, ReadFault, WriteError};
use stepwell_model::Digest;

use crate::interrupt::was_given_up;
use crate::layer::Layer;

/// Result of an operation on the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {operation} `{subject}`: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file system is full, or the quota is.
    #[error("cannot {operation} `{subject}`: no space left on the store's file system")]
    NoSpace {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
    },
    /// A blob is not in the store.
    #[error("blob `{digest}` is not in the store")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A layer is known, but none of its blobs is in the store.
    #[error("layer `{diff_id}` is not in the store")]
    MissingLayer {
        /// The layer's diff id.
        diff_id: Digest,
    },
    /// Content is not what its digest says.
    #[error("content of {subject} is `{actual}`, not `{expected}`")]
    Digest {
        /// What was read or written.
        subject: String,
        /// The digest that it should have.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// A blob is said to hold a layer, and holds something else.
    #[error("content of layer `{}` (blob `{}`) is `{actual}`", layer.diff_id, layer.digest)]
    NotTheLayer {
        /// The layer that it was said to be; in a box because errors are returned by value everywhere.
        layer: Box<Layer>,
        /// The diff id that it has.
        actual: Digest,
    },
    /// Content has another length than announced.
    #[error("{subject} has {actual} bytes, not {expected}")]
    Size {
        /// What was read or written.
        subject: String,
        /// The length that it should have.
        expected: u64,
        /// The length that it has.
        actual: u64,
    },
    /// A layer's archive cannot be read.
    #[error("layer `{diff_id}` cannot be read: {source}")]
    ReadLayer {
        /// The layer's diff id.
        diff_id: Digest,
        /// Why.
        source: ReadError,
    },
    /// A layer's blob is not compressed as it is said to be, or its compression is damaged.
    #[error("layer `{digest}` cannot be decompressed: {source}")]
    Decompress {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// An entry does not fit into a layer.
    #[error("cannot write the layer: {0}")]
    WriteLayer(#[from] WriteError),
    /// A layer would be larger than any that can be read again; a sparse file needs next to nothing on the disk, and a
    /// layer holds its holes.
    #[error(
        "the layer is too large with `{path}` of {size} bytes: layers hold at most {limit} bytes, and the holes of sparse files count"
    )]
    TooLarge {
        /// The file with which it is.
        path: String,
        /// The file's length.
        size: u64,
        /// What a layer may hold.
        limit: u64,
    },
    /// A layer asks for something that no file system can hold.
    #[error("layer `{diff_id}` cannot be unpacked: `{path}` {what}")]
    Unsound {
        /// The layer's diff id.
        diff_id: Digest,
        /// The entry.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Symbolic links lead in a circle.
    #[error("`{path}` cannot be resolved: too many symbolic links")]
    Loop {
        /// The path that was asked for.
        path: String,
    },
    /// A file in an image was asked for and is not a regular file, or is larger than allowed.
    #[error("`{path}` of the image cannot be read: {what}")]
    ImageFile {
        /// The path that was asked for.
        path: String,
        /// Why.
        what: &'static str,
    },
    /// A file of the store's own is damaged.
    #[error("`{subject}` is damaged: {what}")]
    Damaged {
        /// The file.
        subject: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A tree changed while it was being read.
    #[error("`{path}` changed while it was being read")]
    Changed {
        /// The path in the tree.
        path: String,
    },
    /// The clock of the file system does not move.
    #[error("the clock of the file system that holds `{subject}` does not advance")]
    Clock {
        /// The probe file.
        subject: String,
    },
    /// Long work was given up, because the flag was set that [`Store::heed`](crate::Store::heed) was given.
    #[error("the work in the store was given up")]
    Interrupted,
    /// Emulated metadata of a file cannot be read or written.
    #[error(transparent)]
    Meta(#[from] stepwell_sys::meta::MetaError),
}

impl StoreError {
    /// Wraps what the kernel said; a full disk has a variant of its own.
    pub fn io(
        operation: &'static str,
        subject: impl fmt::Display,
        source: impl Into<io::Error>,
    ) -> Self {
        let (subject, source) = (subject.to_string(), source.into());
        if was_given_up(&source) {
            return Self::Interrupted;
        }
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { operation, subject }
            }
            _ => Self::Io {
                operation,
                subject,
                source,
            },
        }
    }

    /// A layer that cannot be decompressed: the image is at fault, and not the store's file.
    pub(crate) fn decode(layer: &Layer, source: io::Error) -> Self {
        if was_given_up(&source) {
            return Self::Interrupted;
        }
        Self::Decompress {
            digest: layer.digest,
            source,
        }
    }

    /// A layer whose archive cannot be read.
    pub(crate) fn read(layer: &Layer, source: ReadError) -> Self {
        match &source.fault {
            ReadFault::Input(input) if was_given_up(input) => Self::Interrupted,
            _ => Self::ReadLayer {
                diff_id: layer.diff_id,
                source,
            },
        }
    }

    pub(crate) fn damaged(subject: &Path, what: &'static str) -> Self {
        Self::Damaged {
            subject: subject.display().to_string(),
            what,
        }
    }

    /// The layer that cannot be used whoever reads it, by its diff id or by its blob.
    pub fn broken_layer(&self) -> Option<Digest> {
        match self {
            Self::ReadLayer { diff_id: layer, .. }
            | Self::Unsound { diff_id: layer, .. }
            | Self::Decompress { digest: layer, .. } => Some(*layer),
            Self::NotTheLayer { layer, .. } => Some(layer.digest),
            _ => None,
        }
    }

    /// Says whether the file that was asked for is not there.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::MissingBlob { .. } | Self::MissingLayer { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Adds the operation and its subject to what the kernel said.
pub(crate) trait Context<T> {
    /// Names the operation and the path of the host.
    fn context(self, operation: &'static str, subject: &Path) -> Result<T>;
    /// Names the operation and the path within a tree.
    fn entry(self, operation: &'static str, path: &[u8]) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, subject: &Path) -> Result<T> {
        self.map_err(|source| StoreError::io(operation, subject.display(), source))
    }

    fn entry(self, operation: &'static str, path: &[u8]) -> Result<T> {
        self.map_err(|source| StoreError::io(operation, display_path(path), source))
    }
}
