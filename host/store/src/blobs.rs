//! Blobs: files named by the SHA-256 of their content.
//!
//! # Durability
//! A blob is written under a temporary name and renamed when its digest is known, so that a process that is killed
//! leaves no half blob.  Nothing is synced: after a power failure a file may be shorter than it was.  Readers that
//! know a size check it ([`Blobs::has`], [`Blobs::open`]); file systems that lose data then lose the size with it
//! (ordered data on ext4, sizes set on completion on xfs, atomic updates on btrfs).  A blob that fails is as good as
//! absent and is made or fetched again.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use stepwell_model::{Digest, Hasher};

use crate::error::{Context as _, Result, StoreError};
use crate::interrupt::Interrupt;
use crate::store::Store;

/// Size of the buffer before the disk.
const BUFFER: usize = 256 << 10;

/// The blobs of a store.
#[derive(Debug, Clone, Copy)]
pub struct Blobs<'a> {
    store: &'a Store,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Says whether the blob is there, with that size where one is given.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        self.size(digest)
            .is_some_and(|have| size.is_none_or(|want| want == have))
    }

    /// Returns the length in bytes, or nothing where the blob is not there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    /// Returns where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.paths().blob(digest)
    }

    /// Opens a blob and notes that it was used.
    ///
    /// # Errors
    /// It is not there, or shorter or longer than `size`.
    pub fn open(&self, digest: &Digest, size: Option<u64>) -> Result<File> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::MissingBlob { digest: *digest });
            }
            other => other.context("open", &path)?,
        };
        if let Some(expected) = size {
            let actual = file.metadata().context("stat", &path)?.len();
            if actual != expected {
                let subject = format!("blob `{digest}`");
                return Err(StoreError::Size {
                    subject,
                    expected,
                    actual,
                });
            }
        }
        crate::store::touch(&file);
        Ok(file)
    }

    /// Reads a whole small blob (a manifest, a configuration) and checks its digest.
    ///
    /// # Errors
    /// It is not there, larger than `max` bytes, or not what its digest says.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let mut content = Vec::new();
        let file = self.open(digest, None)?;
        file.take(max + 1)
            .read_to_end(&mut content)
            .context("read", &path)?;
        if content.len() as u64 > max {
            return Err(StoreError::damaged(
                &path,
                "it is larger than such a file may be",
            ));
        }
        let actual = Digest::of(&content);
        if actual != *digest {
            let subject = format!("blob `{digest}`");
            return Err(StoreError::Digest {
                subject,
                expected: *digest,
                actual,
            });
        }
        Ok(content)
    }

    /// Keeps `content` and returns its digest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, content: &[u8]) -> Result<Digest> {
        let digest = Digest::of(content);
        if !self.has(&digest, Some(content.len() as u64)) {
            self.store.session().publish(&self.path(&digest), content)?;
        }
        Ok(digest)
    }

    /// Starts a blob whose content comes in pieces.
    ///
    /// # Errors
    /// No file can be made.
    pub fn writer(&self) -> Result<BlobWriter<'a>> {
        Ok(BlobWriter {
            raw: RawBlob::new(self.store)?,
            hasher: Hasher::new(),
            size: 0,
        })
    }

    /// Copies a file of the host into the store.
    ///
    /// # Errors
    /// It cannot be read or written, or is not what is expected.
    pub fn import(&self, file: &Path, expected: Option<(Digest, u64)>) -> Result<(Digest, u64)> {
        let mut source = File::open(file).context("open", file)?;
        let mut writer = self.writer()?;
        io::copy(&mut source, &mut writer).context("copy", file)?;
        writer.commit(expected)
    }
}

/// A blob that is being written; dropping it without [`BlobWriter::commit`] leaves nothing behind.
pub struct BlobWriter<'a> {
    raw: RawBlob<'a>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter<'_> {
    /// Ends the blob, checks it against digest and size where given, and keeps it.
    ///
    /// # Errors
    /// It is not what is expected, or cannot be written.
    pub fn commit(self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64)> {
        let (actual, size) = (self.hasher.finish(), self.size);
        if let Some((digest, length)) = expected {
            let subject = || format!("blob `{digest}`");
            if size != length {
                return Err(StoreError::Size {
                    subject: subject(),
                    expected: length,
                    actual: size,
                });
            }
            if actual != digest {
                return Err(StoreError::Digest {
                    subject: subject(),
                    expected: digest,
                    actual,
                });
            }
        }
        self.raw.commit(&actual, size)?;
        Ok((actual, size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = self.raw.write(buf)?;
        self.hasher.update(&buf[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.raw.flush()
    }
}

/// A blob whose digest somebody else computes.
pub(crate) struct RawBlob<'a> {
    store: &'a Store,
    path: PathBuf,
    out: BufWriter<File>,
    kept: bool,
    interrupt: Interrupt,
}

impl<'a> RawBlob<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self> {
        let (path, file) = store.session().file()?;
        Ok(Self {
            store,
            path,
            out: BufWriter::with_capacity(BUFFER, file),
            kept: false,
            interrupt: store.interrupt(),
        })
    }

    pub(crate) fn commit(mut self, digest: &Digest, size: u64) -> Result<()> {
        self.out.flush().context("write", &self.path)?;
        if self.store.blobs().has(digest, Some(size)) {
            return Ok(());
        }
        let target = self.store.paths().blob(digest);
        fs::rename(&self.path, &target).context("rename", &target)?;
        self.kept = true;
        Ok(())
    }
}

impl Write for RawBlob<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.interrupt.check_io()?;
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for RawBlob<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}
