//! Why files cannot be made.

use stepwell_store::StoreError;

use super::mode::ModeError;
use super::owner::OwnerError;
use crate::source::SourceError;

/// Why files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The mode is none.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// The owner has no number.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The base cannot be read.
    #[error("cannot look up `{path}` in the base: {source}")]
    Base {
        /// The path in the image.
        path: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The layer cannot be written.
    #[error("cannot write `{path}` to the layer: {source}")]
    Layer {
        /// The path in the image.
        path: String,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A directory would take the place of something else.
    #[error("cannot copy the directory `{from}` to `{path}`: that is not a directory in the image")]
    NotADirectory {
        /// The source.
        from: String,
        /// The destination.
        path: String,
    },
    /// Something else would take the place of a directory.
    #[error("cannot copy `{from}` to `{path}`: that is a directory in the image")]
    IsADirectory {
        /// The source.
        from: String,
        /// The destination.
        path: String,
    },
    /// A directory is needed where something else is.
    #[error("cannot make the directory `{path}`: `{blocker}` is not a directory")]
    Blocked {
        /// The directory.
        path: String,
        /// What is in the way.
        blocker: String,
    },
    /// Several files would end in the same place.
    #[error("cannot copy several files to `{path}`: it is not a directory; end it with a `/`")]
    SeveralToOne {
        /// The destination.
        path: String,
    },
    /// What is to be removed is not there.
    #[error("cannot remove `{path}`: it does not exist")]
    NothingToRemove {
        /// The path in the image.
        path: String,
    },
    /// What is to be made is there already.
    #[error("cannot make `{path}`: it exists already")]
    Exists {
        /// The path in the image.
        path: String,
    },
    /// Links lead in a circle.
    #[error("too many symbolic links on the way to `{path}` in the image")]
    TooManyLinks {
        /// The path in the image.
        path: String,
    },
    /// Nothing of this kind can be in a layer.
    #[error("cannot copy `{path}`: {found} cannot be in a layer")]
    Unsupported {
        /// The source.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// The name would be read as a whiteout.
    #[error("cannot make `{path}`: names that begin with `.wh.` mean a removed file in a layer")]
    ReservedName {
        /// The path in the image.
        path: String,
    },
    /// An archive cannot be unpacked.
    #[error("cannot unpack `{archive}`: {reason}")]
    Archive {
        /// The archive.
        archive: String,
        /// Why not.
        reason: String,
    },
    /// The operation names an input that is not there.
    #[error("input {index} of the file operation is missing")]
    MissingInput {
        /// Its index.
        index: u32,
    },
    /// No thread can be started.
    #[error("cannot start the threads that read ahead: {0}")]
    Threads(#[source] std::io::Error),
}
