//! Where the content of blobs comes from.

use std::io::{self, Read};

use stepwell_model::Digest;

/// Opens blobs: the store, an [OCI layout](crate::layout::Layout), or a function.
pub trait BlobSource {
    /// Opens a blob.  Its content need not be verified: who reads it here does that.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + '_>>;
}

impl<F: Fn(&Digest) -> io::Result<Box<dyn Read>>> BlobSource for F {
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + '_>> {
        self(digest)
    }
}
