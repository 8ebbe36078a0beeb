//! Compression and decompression of layers: gzip in parallel, zstd, or none.
//!
//! The bytes written depend on the content, the compression and the level, never on the number of threads or on
//! how the content was cut into writes.

use std::io::{self, Write};

use stepwell_model::request::Compression;

use crate::layer::WriteError;

pub mod decode;
mod gzip;

pub use decode::{DecodeError, DecodeLimits, Decoder, Format};
use gzip::GzipEncoder;

/// Level of gzip where none is given; docker, BuildKit and Buildah take this one too.
const GZIP_LEVEL: i32 = 6;

/// Level of zstd where none is given; zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// Bytes that one thread of zstd works on at a time.  Part of the format: it decides where frames are cut and with
/// that the bytes.  zstd would take 8 MiB at its default level, and several of these for every thread.
const ZSTD_JOB: u32 = 2 << 20;

/// Most threads that compress one layer; bounds memory on machines with many processors.
const MAX_THREADS: usize = 16;

/// Refuses levels that the compression does not have.
pub(crate) fn check_level(compression: Compression, level: Option<i32>) -> Result<(), WriteError> {
    let (name, low, high) = match compression {
        Compression::Gzip => ("gzip", 0, 9),
        Compression::Zstd => ("zstd", 1, 22),
        Compression::Uncompressed => return Ok(()),
    };
    match level {
        Some(level) if !(low..=high).contains(&level) => Err(WriteError::Level {
            compression: name,
            level,
            low,
            high,
        }),
        _ => Ok(()),
    }
}

/// Compresses what is written to it.
pub enum Encoder<W: Write> {
    /// No compression.
    Plain(W),
    /// gzip.
    Gzip(Box<GzipEncoder<W>>),
    /// Zstandard.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Starts compressing to `out`.
    ///
    /// # Errors
    /// The compressor refuses the level, or the output cannot be written.
    pub fn new(
        out: W,
        compression: Compression,
        level: Option<i32>,
        threads: usize,
    ) -> io::Result<Self> {
        let threads = threads.clamp(1, MAX_THREADS);
        Ok(match compression {
            Compression::Uncompressed => Self::Plain(out),
            Compression::Gzip => {
                let level = level.unwrap_or(GZIP_LEVEL).clamp(0, 9) as u32;
                Self::Gzip(Box::new(GzipEncoder::new(out, level, threads)?))
            }
            Compression::Zstd => Self::Zstd(zstd_encoder(out, level, threads)?),
        })
    }

    /// Writes what is left and returns the output.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn zstd_encoder<W: Write>(
    out: W,
    level: Option<i32>,
    threads: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    use zstd::zstd_safe::CParameter;
    let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(ZSTD_LEVEL))?;
    // With one worker as with many: without any, zstd takes another path and writes other bytes.
    encoder.multithread(threads as u32)?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(buf),
            Self::Gzip(encoder) => encoder.write(buf),
            Self::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing in the middle would change the bytes; `finish` writes everything.
        Ok(())
    }
}
