//! Decompression of content that nobody vouches for: what it is shows in its first bytes, how large it may
//! become is the caller's to say.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes read from the input at a time.
const BUFFER: usize = 128 << 10;

/// What the content is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nothing that is known.
    Plain,
    /// gzip (RFC 1952), one or several members.
    Gzip,
    /// Zstandard (RFC 8878), one or several frames.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Format {
    /// Recognises the format by the first bytes of the content; six are enough.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame in front of one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// What decompression may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most bytes that may come out: stops a small blob that fills the disk.
    pub output: u64,
    /// Largest window of zstd, as a power of two: stops a frame that asks for gigabytes of memory.  `zstd -19`
    /// asks for 2^23, `zstd --ultra -22` for 2^27.
    pub window_log: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            output: 64 << 30,
            window_log: 27,
        }
    }
}

/// Why content could not be decompressed; found as the source of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More comes out than is allowed.
    #[error("the content is larger than the limit of {limit} bytes when decompressed")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Nothing here reads this format.
    #[error("content compressed with {0} is not supported here: use gzip, zstd, or none")]
    Unsupported(&'static str),
}

impl From<DecodeError> for io::Error {
    fn from(error: DecodeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Decompresses what it reads.
pub struct Decoder<R: Read> {
    inner: Inner<R>,
    format: Format,
    limit: u64,
    left: u64,
}

/// The input with the bytes in front of it that were read to recognise the format.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Inner<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `input` and starts to decompress.
    ///
    /// # Errors
    /// The input cannot be read, or is of a format that is recognised and not supported.
    pub fn new(mut input: R, limits: DecodeLimits) -> io::Result<Self> {
        let mut start = Vec::with_capacity(6);
        (&mut input).take(6).read_to_end(&mut start)?;
        let format = Format::sniff(&start);
        let input = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(input));
        let inner = match format {
            Format::Plain => Inner::Plain(input),
            Format::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(input))),
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(limits.window_log)?;
                Inner::Zstd(decoder)
            }
            Format::Bzip2 => return Err(DecodeError::Unsupported("bzip2").into()),
            Format::Xz => return Err(DecodeError::Unsupported("xz").into()),
        };
        Ok(Self {
            inner,
            format,
            limit: limits.output,
            left: limits.output,
        })
    }

    /// What the content is packed with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the input.  Once [`read`](Read::read) has returned 0, all of it has been read.
    pub fn into_inner(self) -> R {
        let input = match self.inner {
            Inner::Plain(input) => input,
            Inner::Gzip(decoder) => decoder.into_inner(),
            Inner::Zstd(decoder) => decoder.finish(),
        };
        input.into_inner().into_inner().1
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.inner {
            Inner::Plain(input) => input.read(buf),
            Inner::Gzip(decoder) => decoder.read(buf),
            Inner::Zstd(decoder) => decoder.read(buf),
        }?;
        self.left = (self.left.checked_sub(read as u64))
            .ok_or(DecodeError::TooLarge { limit: self.limit })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn decode(bytes: &[u8], limits: DecodeLimits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes, limits)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(content, 3).unwrap()
    }

    #[test]
    fn several_members_and_frames_are_one_content() {
        let limits = DecodeLimits::default();
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&two, limits).unwrap(), b"one two");
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9];
        let frames = [&skippable[..], &zstd(b"one "), &zstd(b"two"), &skippable].concat();
        assert_eq!(decode(&frames, limits).unwrap(), b"one two");
        for plain in [&b""[..], b"a", b"\x1f", b"plain content"] {
            assert_eq!(decode(plain, limits).unwrap(), plain);
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let limits = DecodeLimits {
            output: 1 << 20,
            ..DecodeLimits::default()
        };
        let zeros = vec![0; 64 << 20];
        for bomb in [gzip(&zeros), zstd(&zeros)] {
            let error = decode(&bomb, limits).unwrap_err();
            assert!(
                error.to_string().contains("limit of 1048576 bytes"),
                "{error}"
            );
        }
        assert_eq!(
            decode(&gzip(&zeros[..1 << 20]), limits).unwrap().len(),
            1 << 20
        );
    }

    #[test]
    fn a_window_larger_than_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(24).unwrap();
        encoder.write_all(&vec![1; 64 << 20]).unwrap();
        let frame = encoder.finish().unwrap();
        let narrow = DecodeLimits {
            window_log: 23,
            ..DecodeLimits::default()
        };
        assert!(decode(&frame, narrow).is_err());
        assert!(decode(&frame, DecodeLimits::default()).is_ok());
    }

    #[test]
    fn truncated_and_damaged_content_is_an_error() {
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&content), zstd(&content)] {
            for cut in [7, packed.len() / 2, packed.len() - 1] {
                assert!(
                    decode(&packed[..cut], DecodeLimits::default()).is_err(),
                    "{cut}"
                );
            }
        }
        let mut damaged = gzip(&content);
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert!(decode(&damaged, DecodeLimits::default()).is_err());
    }

    #[test]
    fn other_formats_are_named() {
        for (start, name) in [(&b"BZh91AY&SY"[..], "bzip2"), (&b"\xfd7zXZ\0\0"[..], "xz")] {
            let error = decode(start, DecodeLimits::default()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
