//! Why a layer could not be read, and where in it.

use std::error::Error;
use std::{fmt, io};

use super::entry::display_path;

/// Why a layer could not be read, and where.
#[derive(Debug)]
pub struct ReadError {
    /// What is wrong.
    pub fault: ReadFault,
    /// Where.
    pub place: Place,
}

/// A place in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Bytes of the (decompressed) tar that were read.
    pub offset: u64,
    /// Path of the last entry whose header was read, as it is in the header; none at the start.
    pub entry: Option<Vec<u8>>,
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFault {
    /// The bytes could not be had: reading or decompressing them failed.
    #[error("its bytes cannot be had or decompressed: {0}")]
    Input(#[source] io::Error),
    /// It ends in the middle of an entry.
    #[error("the layer is truncated")]
    Truncated,
    /// It is no tar, or a damaged one.
    #[error("the layer is damaged or not a tar archive: {0}")]
    Damaged(&'static str),
    /// A path has an element `..`, a NUL, or nothing in it.
    #[error("the layer has a path that is not allowed: `{}`", display_path(.0))]
    Path(Vec<u8>),
    /// An entry of a type that no image has.
    #[error("the layer has an entry of the unknown type `{}`", .0.escape_ascii())]
    Type(u8),
    /// An owner, a group or a device number does not fit 32 bits.
    #[error("the layer has an entry with the number {0}, which no file system holds")]
    Number(u64),
    /// It has more entries than allowed.
    #[error("the layer has more than the allowed {limit} entries")]
    Entries {
        /// The limit.
        limit: u64,
    },
    /// It has more content than allowed.
    #[error("the files of the layer have more than the allowed {limit} bytes")]
    Content {
        /// The limit.
        limit: u64,
    },
    /// An extended header is larger than allowed.
    #[error("the layer has an extended header of more than the allowed {limit} bytes")]
    Metadata {
        /// The limit.
        limit: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault, self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}", self.offset)?;
        match &self.entry {
            Some(entry) => write!(f, ", in or after the entry `{}`", display_path(entry)),
            None => write!(f, ", in the first entry"),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault.source()
    }
}

impl From<&'static str> for ReadFault {
    fn from(problem: &'static str) -> Self {
        Self::Damaged(problem)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error.fault {
            ReadFault::Input(source) => source.kind(),
            ReadFault::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
