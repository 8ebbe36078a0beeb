//! Digests of what streams through: [`Hashing`] computes one, [`Verifying`] refuses content that is not what it
//! was said to be.

use std::io::{self, Read, Write};

use stepwell_model::{Digest, Hasher};

/// A reader or writer that computes the digest and the number of the bytes that pass.
pub struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> Hashing<T> {
    /// Wraps `inner`.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            count: 0,
        }
    }

    /// Number of bytes so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns what was wrapped, the digest and the number of bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        self.count += read as u64;
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that fails instead of ending where the bytes were not the expected ones.
pub struct Verifying<R> {
    inner: Option<Hashing<R>>,
    digest: Digest,
    size: u64,
}

/// Content is not what it was said to be; found as the source of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Another number of bytes.
    #[error("blob `{digest}` has {} bytes than the {size} that its descriptor says", if *.more { "more" } else { "fewer" })]
    Size {
        /// The blob.
        digest: Digest,
        /// Bytes that its descriptor says.
        size: u64,
        /// Whether there are more of them.
        more: bool,
    },
    /// Other bytes.
    #[error("blob `{digest}` is damaged: its content has the digest `{got}`")]
    Digest {
        /// The blob.
        digest: Digest,
        /// Digest of what was read.
        got: Digest,
    },
}

impl From<VerifyError> for io::Error {
    fn from(error: VerifyError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl<R: Read> Verifying<R> {
    /// Wraps `inner`, which must give exactly `size` bytes with the digest `digest`.
    pub fn new(inner: R, digest: Digest, size: u64) -> Self {
        Self {
            inner: Some(Hashing::new(inner)),
            digest,
            size,
        }
    }

    fn check(&mut self) -> io::Result<usize> {
        let Some(inner) = self.inner.take() else {
            return Ok(0);
        };
        let (_, got, count) = inner.finish();
        let (digest, size) = (self.digest, self.size);
        if count != size {
            return Err(VerifyError::Size {
                digest,
                size,
                more: false,
            }
            .into());
        }
        if got != digest {
            return Err(VerifyError::Digest { digest, got }.into());
        }
        Ok(0)
    }
}

impl<R: Read> Read for Verifying<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else {
            return Ok(0);
        };
        let read = inner.read(buf)?;
        if read == 0 && !buf.is_empty() {
            return self.check();
        }
        if inner.count() > self.size {
            let (digest, size) = (self.digest, self.size);
            return Err(VerifyError::Size {
                digest,
                size,
                more: true,
            }
            .into());
        }
        Ok(read)
    }
}
