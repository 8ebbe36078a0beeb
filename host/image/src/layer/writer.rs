//! Writes a layer: entries in, a compressed tar out, its digest and diff id computed on the way.
//!
//! Equal entries give equal bytes on any machine and with any number of threads.  Memory is bounded whatever
//! the size of a file; nothing seeks.  Which entries a layer has is the store's business.

use std::io::{self, Read, Write};

use stepwell_model::Digest;
use stepwell_model::request::Compression;

use super::header::{self, BLOCK};
use super::{Entry, Kind, Mtime};
use crate::compress::{self, Encoder};
use crate::hash::Hashing;
use crate::whiteout;

/// Extended attributes of this name are the store's own notes and must not leave it.
pub(super) const PRIVATE_XATTR: &[u8] = b"user.stepwell.";

/// Bytes that are read from a file at a time.
const CHUNK: usize = 128 << 10;

/// How a layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOptions {
    /// The compression.
    pub compression: Compression,
    /// Its level; none means the default.
    pub level: Option<i32>,
    /// Latest time an entry may have, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<i64>,
    /// Threads that compress; at least one.  Does not change the bytes.
    pub threads: usize,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Gzip,
            level: None,
            clamp_mtime: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What was written.
#[derive(Debug)]
pub struct Written<W> {
    /// Digest of the compressed bytes: names the blob.
    pub digest: Digest,
    /// Number of compressed bytes.
    pub size: u64,
    /// Digest of the tar itself (OCI image-spec, config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// Number of bytes of the tar.
    pub uncompressed_size: u64,
    /// Where it was written to.
    pub out: W,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The output could not be written.
    #[error("writing the layer failed")]
    Output(#[source] io::Error),
    /// The content of a file could not be read.
    #[error("reading the content of `{path}` failed")]
    Content {
        /// The entry.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file had fewer bytes than its entry says; most likely it changed meanwhile.
    #[error(
        "`{path}` ended after {got} bytes where {size} were expected; was it changed meanwhile?"
    )]
    ContentShort {
        /// The entry.
        path: String,
        /// Bytes that its entry says.
        size: u64,
        /// Bytes that came.
        got: u64,
    },
    /// A file had more bytes than its entry says; most likely it changed meanwhile.
    #[error(
        "`{path}` has more than the {size} bytes that were expected; was it changed meanwhile?"
    )]
    ContentLong {
        /// The entry.
        path: String,
        /// Bytes that its entry says.
        size: u64,
    },
    /// Something other than a file came with content, or a file without.
    #[error("`{path}` is a {kind} and came {} content", if *.content { "with" } else { "without" })]
    ContentMismatch {
        /// The entry.
        path: String,
        /// What it is.
        kind: String,
        /// Whether content came.
        content: bool,
    },
    /// The path is not one that a layer can hold.
    #[error("`{path}` is not a path that a layer can hold")]
    Path {
        /// The path.
        path: String,
    },
    /// The root is not a directory.
    #[error("the root of a layer is a {kind} where only a directory can be")]
    RootNotDirectory {
        /// What it is.
        kind: String,
    },
    /// The name would be read as a whiteout, that is, as the removal of another file.
    #[error(
        "`{path}` cannot be in a layer: names that begin with `.wh.` mean that a file was removed"
    )]
    ReservedName {
        /// The entry.
        path: String,
    },
    /// A link has no target, or one with a NUL.
    #[error("the target of the link `{path}` is not one that a layer can hold")]
    LinkTarget {
        /// The entry.
        path: String,
    },
    /// A device number is larger than a tar can say.
    #[error("the device number {major}:{minor} of `{path}` is larger than a layer can hold")]
    DeviceNumber {
        /// The entry.
        path: String,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The name of an extended attribute is not one that a layer can or may hold.
    #[error("the extended attribute `{name}` of `{path}` cannot be in a layer")]
    XattrName {
        /// The entry.
        path: String,
        /// The attribute.
        name: String,
    },
    /// Names and extended attributes together are more than readers accept.
    #[error("the metadata of `{path}` takes {size} bytes, more than a layer can hold")]
    MetadataTooLarge {
        /// The entry.
        path: String,
        /// Its size.
        size: usize,
    },
    /// The compression has no such level.
    #[error("{compression} has no level {level}: expected {low} to {high}")]
    Level {
        /// The compression.
        compression: &'static str,
        /// The level asked for.
        level: i32,
        /// The lowest there is.
        low: i32,
        /// The highest there is.
        high: i32,
    },
}

/// Writes a layer.
pub struct LayerWriter<W: Write> {
    tar: Hashing<Encoder<Hashing<W>>>,
    clamp: Option<i64>,
    buffer: Vec<u8>,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer that goes to `out`.
    ///
    /// # Errors
    /// [`WriteError::Level`], or the output cannot be written.
    pub fn new(out: W, options: LayerOptions) -> Result<Self, WriteError> {
        compress::check_level(options.compression, options.level)?;
        let out = Hashing::new(out);
        let encoder = Encoder::new(out, options.compression, options.level, options.threads)
            .map_err(WriteError::Output)?;
        Ok(Self {
            tar: Hashing::new(encoder),
            clamp: options.clamp_mtime,
            buffer: Vec::new(),
        })
    }

    /// Adds an entry.  A file that is not empty comes with its content, exactly [`Entry::size`] bytes with the
    /// holes as zeros; everything else comes without.  Parents go before their children, and a hard link after
    /// the entry it links to; the writer does not check that.
    ///
    /// # Errors
    /// What a tar cannot hold is refused, and so is a name that would be read as a whiteout.  After an error the
    /// layer is of no use.
    pub fn add(&mut self, entry: &Entry, content: Option<&mut dyn Read>) -> Result<(), WriteError> {
        if whiteout::classify(&entry.path) != whiteout::Marker::Entry {
            return Err(WriteError::ReservedName {
                path: entry.display(),
            });
        }
        self.add_raw(entry, content)
    }

    /// Adds the whiteout that removes `path`.
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn remove(&mut self, path: &[u8], mtime: Mtime) -> Result<(), WriteError> {
        self.add_raw(&whiteout::removed(path, mtime), None)
    }

    /// Adds the marker that hides what the layers below have in the directory `dir` (empty: the root).
    ///
    /// # Errors
    /// As for [`add`](Self::add).
    pub fn opaque(&mut self, dir: &[u8], mtime: Mtime) -> Result<(), WriteError> {
        self.add_raw(&whiteout::opaque(dir, mtime), None)
    }

    /// Adds an entry whatever its name: for copies of layers and for archives that are not layers.
    ///
    /// # Errors
    /// As for [`add`](Self::add), reserved names apart.
    pub fn add_raw(
        &mut self,
        entry: &Entry,
        content: Option<&mut dyn Read>,
    ) -> Result<(), WriteError> {
        let is_file = matches!(entry.kind, Kind::File { .. });
        if content.is_some() && !is_file || content.is_none() && entry.size() > 0 {
            return Err(WriteError::ContentMismatch {
                path: entry.display(),
                kind: entry.kind.to_string(),
                content: content.is_some(),
            });
        }
        let head = match self.clamp {
            Some(secs) if entry.mtime > Mtime::from_secs(secs) => header::encode(&Entry {
                mtime: Mtime::from_secs(secs),
                ..entry.clone()
            }),
            _ => header::encode(entry),
        }?;
        self.tar.write_all(&head).map_err(WriteError::Output)?;
        match content {
            Some(content) => self.content(entry, content),
            None => Ok(()),
        }
    }

    fn content(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), WriteError> {
        let size = entry.size();
        let mut got = 0;
        self.buffer.resize(CHUNK, 0);
        while got < size {
            let want = (size - got).min(CHUNK as u64) as usize;
            let read = read_some(content, &mut self.buffer[..want], entry)?;
            if read == 0 {
                return Err(WriteError::ContentShort {
                    path: entry.display(),
                    size,
                    got,
                });
            }
            self.tar
                .write_all(&self.buffer[..read])
                .map_err(WriteError::Output)?;
            got += read as u64;
        }
        if read_some(content, &mut self.buffer[..1], entry)? != 0 {
            return Err(WriteError::ContentLong {
                path: entry.display(),
                size,
            });
        }
        self.pad()
    }

    fn pad(&mut self) -> Result<(), WriteError> {
        let over = (self.tar.count() % BLOCK as u64) as usize;
        if over == 0 {
            return Ok(());
        }
        self.tar
            .write_all(&[0; BLOCK][over..])
            .map_err(WriteError::Output)
    }

    /// Number of bytes of the tar so far.  After an entry with content was added, its content began at this
    /// minus the size rounded up to 512.
    pub fn position(&self) -> u64 {
        self.tar.count()
    }

    /// Ends the layer and flushes the output.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self) -> Result<Written<W>, WriteError> {
        self.tar
            .write_all(&[0; 2 * BLOCK])
            .map_err(WriteError::Output)?;
        let (encoder, diff_id, uncompressed_size) = self.tar.finish();
        let mut out = encoder.finish().map_err(WriteError::Output)?;
        out.flush().map_err(WriteError::Output)?;
        let (out, digest, size) = out.finish();
        Ok(Written {
            digest,
            size,
            diff_id,
            uncompressed_size,
            out,
        })
    }
}

fn read_some(
    content: &mut dyn Read,
    buffer: &mut [u8],
    entry: &Entry,
) -> Result<usize, WriteError> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(WriteError::Content {
                    path: entry.display(),
                    source,
                });
            }
            Ok(read) => return Ok(read),
        }
    }
}
