//! Reads a layer that nobody vouches for, entry by entry, in bounded memory.
//!
//! Understands v7, ustar, star, pax and GNU tars, with long names and sparse files.  What comes out is normal:
//! paths have no leading slash and no `.`, and `..` is refused.  What an entry *means* (whiteouts) is
//! [`crate::whiteout`]'s, and where it may be put is the store's: a path may still lead through a symbolic link
//! that the layer itself made.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use stepwell_model::Digest;

use super::error::{Place, ReadError, ReadFault};
use super::fields::{self, BLOCK, Header};
use super::sparse::{self, Extents, Map, PaxSparse};
use super::{Content, Entry, Mtime, pax};
use crate::compress::{DecodeLimits, Decoder};
use crate::hash::Hashing;

/// Bytes read from the input at a time.
const BUFFER: usize = 128 << 10;

/// What a layer may ask of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Most entries: stops a layer of endless empty files, which compress to next to nothing.
    pub entries: u64,
    /// Most bytes of content of all files together, holes included: stops a sparse file of exabytes.
    pub content: u64,
    /// Most bytes of one extended header or long name: they are held in memory.
    pub metadata: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            entries: 5_000_000,
            content: 256 << 30,
            metadata: 1 << 20,
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct ReadSummary<R> {
    /// Digest of the whole tar, with everything behind its end marker.
    pub diff_id: Digest,
    /// Number of bytes of the tar.
    pub uncompressed_size: u64,
    /// The input, read to its end.
    pub input: R,
}

/// Reads a layer.
pub struct LayerReader<R: Read> {
    input: BufReader<Hashing<R>>,
    limits: ReadLimits,
    offset: u64,
    entries: u64,
    content: u64,
    /// Stored bytes of the current entry that were not read, and the padding behind them.
    pub(super) left: u64,
    padding: u64,
    current: Option<Vec<u8>>,
    ended: bool,
}

/// What headers in front of an entry say about it.
#[derive(Default)]
struct Extended {
    /// Whether a pax header was among them.
    pax: bool,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Mtime>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: PaxSparse,
}

impl<R: Read> LayerReader<Decoder<R>> {
    /// Reads a layer that is compressed with gzip, zstd, or not at all: its first bytes tell.
    ///
    /// # Errors
    /// The input cannot be read, or is compressed with something else.
    pub fn compressed(input: R, limits: ReadLimits, decode: DecodeLimits) -> io::Result<Self> {
        Ok(Self::new(Decoder::new(input, decode)?, limits))
    }
}

impl<R: Read> LayerReader<R> {
    /// Reads the tar `input`.
    pub fn new(input: R, limits: ReadLimits) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, Hashing::new(input)),
            limits,
            offset: 0,
            entries: 0,
            content: 0,
            left: 0,
            padding: 0,
            current: None,
            ended: false,
        }
    }

    /// Returns the next entry and its content, or none at the end.  What was not read of the entry before is
    /// skipped.
    ///
    /// # Errors
    /// The tar is damaged, asks for more than the limits allow, or cannot be read.  After an error the reader is
    /// of no use.
    pub fn next_entry(&mut self) -> Result<Option<(Entry, Content<'_, R>)>, ReadError> {
        match self.advance() {
            Err(fault) => Err(self.error(fault)),
            Ok(None) => Ok(None),
            Ok(Some(entry)) => {
                let content = Content::new(self, entry.size(), entry.sparse.clone());
                Ok(Some((entry, content)))
            }
        }
    }

    /// Number of bytes of the tar so far; directly after [`next_entry`](Self::next_entry) that is where the
    /// stored content of the entry begins.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// Reads what is left, entries that were not asked for and bytes behind the end marker alike, and returns
    /// digest and size of the whole.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn finish(mut self) -> Result<ReadSummary<R>, ReadError> {
        if let Err(source) = io::copy(&mut self.input, &mut io::sink()) {
            return Err(self.error(ReadFault::Input(source)));
        }
        let (input, diff_id, uncompressed_size) = self.input.into_inner().finish();
        Ok(ReadSummary {
            diff_id,
            uncompressed_size,
            input,
        })
    }

    pub(super) fn error(&self, fault: ReadFault) -> ReadError {
        let place = Place {
            offset: self.offset,
            entry: self.current.clone(),
        };
        ReadError { fault, place }
    }

    /// Reads stored bytes of the current entry.
    pub(super) fn stored(&mut self, buf: &mut [u8]) -> Result<usize, ReadFault> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let read = loop {
            match self.input.read(&mut buf[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(ReadFault::Input)?,
            }
        };
        if read == 0 {
            return Err(ReadFault::Truncated);
        }
        self.left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }

    fn advance(&mut self) -> Result<Option<Entry>, ReadFault> {
        let mut extended = Extended::default();
        let mut pending = false;
        loop {
            self.skip()?;
            let Some(block) = self.header()? else {
                return if pending {
                    Err(ReadFault::Truncated)
                } else {
                    Ok(None)
                };
            };
            self.count_entry()?;
            let header = Header::parse(&block).map_err(ReadFault::Damaged)?;
            pending = match header.flag {
                b'x' | b'L' | b'K' => {
                    self.extend(&header, &mut extended)?;
                    true
                }
                // Global headers carry comments (git archive); docker and containerd do not apply them either.
                b'g' => {
                    self.metadata(&header)?;
                    pending
                }
                _ => return self.entry(&block, &header, extended).map(Some),
            };
        }
    }

    /// Counts extended headers as well: they cost as much as entries.
    fn count_entry(&mut self) -> Result<(), ReadFault> {
        self.entries += 1;
        if self.entries > self.limits.entries.saturating_mul(3) {
            return Err(ReadFault::Entries {
                limit: self.limits.entries,
            });
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ReadFault> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())
            .map_err(ReadFault::Input)?;
        self.offset += skipped;
        if skipped < self.left {
            return Err(ReadFault::Truncated);
        }
        // Padding that is missing at the very end is tolerated, as Go does.
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads a header; none at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ReadFault> {
        if self.ended {
            return Ok(None);
        }
        let first = self.block()?;
        match first {
            Some(block) if block != [0; BLOCK] => return Ok(first),
            None => {}
            Some(_) => match self.block()? {
                None | Some([0, ..]) => {}
                Some(_) => {
                    return Err(ReadFault::Damaged(
                        "an empty block is followed by something else",
                    ));
                }
            },
        }
        self.ended = true;
        Ok(None)
    }

    /// Reads a block; none where the input is at its end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadFault> {
        let (mut block, mut filled) = ([0; BLOCK], 0);
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ReadFault::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ReadFault::Input(source)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// Reads the content of an extended header.
    fn metadata(&mut self, header: &Header) -> Result<Vec<u8>, ReadFault> {
        if header.size > self.limits.metadata {
            return Err(ReadFault::Metadata {
                limit: self.limits.metadata,
            });
        }
        self.begin(header.size);
        let mut body = vec![0; header.size as usize];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.stored(&mut body[filled..])?;
        }
        Ok(body)
    }

    fn begin(&mut self, stored: u64) {
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
    }

    fn extend(&mut self, header: &Header, extended: &mut Extended) -> Result<(), ReadFault> {
        let body = self.metadata(header)?;
        let text = || fields::until_nul(&body).to_vec();
        let twice = match header.flag {
            b'L' => extended.long_path.replace(text()).is_some(),
            b'K' => extended.long_link.replace(text()).is_some(),
            _ => {
                for (key, value) in pax::records(&body).map_err(ReadFault::Damaged)? {
                    extended.record(key, value).map_err(ReadFault::Damaged)?;
                }
                std::mem::replace(&mut extended.pax, true)
            }
        };
        // Readers differ in which of them counts, so that one would see another layer than the next.
        if twice {
            return Err(ReadFault::Damaged(
                "an entry has two extended headers of one kind",
            ));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        header: &Header,
        extended: Extended,
    ) -> Result<Entry, ReadFault> {
        let named = (extended.sparse.name.as_ref())
            .or(extended.long_path.as_ref())
            .or(extended.path.as_ref());
        let raw = named.unwrap_or(&header.path);
        self.current = Some(raw.clone());
        let is_file = fields::is_file(header.flag, raw);
        let stored = if is_file {
            extended.size.unwrap_or(header.size)
        } else {
            0
        };
        let (size, extents) = self.sparse(block, header, &extended.sparse, stored, is_file)?;
        self.content = self.content.saturating_add(size);
        if self.content > self.limits.content {
            return Err(ReadFault::Content {
                limit: self.limits.content,
            });
        }
        let path = fields::normal(raw)?;
        let link = extended.long_link.as_ref().or(extended.link.as_ref());
        let link = link.unwrap_or(&header.link);
        let entry = Entry {
            kind: fields::kind(header, is_file, size, link)?,
            path,
            mode: header.mode,
            uid: fields::id(extended.uid.unwrap_or(header.uid))?,
            gid: fields::id(extended.gid.unwrap_or(header.gid))?,
            mtime: extended.mtime.unwrap_or(Mtime::from_secs(header.mtime)),
            xattrs: extended.xattrs,
            sparse: extents,
        };
        if entry.path.is_empty() && !entry.is_dir() {
            return Err(ReadFault::Path(raw.clone()));
        }
        self.current = Some(entry.path.clone());
        Ok(entry)
    }

    /// Starts the content; returns the length of the file and where it has data.
    fn sparse(
        &mut self,
        block: &[u8; BLOCK],
        header: &Header,
        pax: &PaxSparse,
        stored: u64,
        is_file: bool,
    ) -> Result<(u64, Option<Extents>), ReadFault> {
        let old = header.flag == b'S';
        let (size, extents) = if old {
            let (size, extents) = self.old_gnu(block)?;
            self.begin(stored);
            (size, extents)
        } else {
            self.begin(stored);
            let map = if is_file {
                pax.map().map_err(ReadFault::Damaged)?
            } else {
                Map::None
            };
            let extents = match map {
                Map::None => return Ok((stored, None)),
                Map::Known(extents) => extents,
                Map::InData => sparse::in_data(|| self.map_block())?,
            };
            (
                pax.size
                    .ok_or(ReadFault::Damaged("a sparse file has no length"))?,
                extents,
            )
        };
        let extents = sparse::check(extents, size, self.left).map_err(ReadFault::Damaged)?;
        Ok((size, Some(extents)))
    }

    /// Reads one block of a map that lies in front of the data.
    fn map_block(&mut self) -> Result<[u8; BLOCK], ReadFault> {
        let (mut block, mut filled) = ([0; BLOCK], 0);
        while filled < BLOCK {
            match self.stored(&mut block[filled..])? {
                0 => {
                    return Err(ReadFault::Damaged(
                        "the map of a sparse file is not complete",
                    ));
                }
                read => filled += read,
            }
        }
        Ok(block)
    }

    /// Reads the map of an old GNU sparse file: four pieces in its header, twenty-one in each block behind it.
    fn old_gnu(&mut self, block: &[u8; BLOCK]) -> Result<(u64, Extents), ReadFault> {
        let size = (fields::number(&block[483..495]).and_then(|size| u64::try_from(size).ok()))
            .ok_or(ReadFault::Damaged("a sparse file has a bad length"))?;
        let mut extents = Extents::new();
        let mut more = sparse::old_gnu(&block[386..482], &mut extents)
            .map_err(ReadFault::Damaged)?
            && block[482] != 0;
        while more {
            let block = self.block()?.ok_or(ReadFault::Truncated)?;
            more = sparse::old_gnu(&block[..504], &mut extents).map_err(ReadFault::Damaged)?
                && block[504] != 0;
        }
        Ok((size, extents))
    }
}

impl Extended {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "an extended header has a bad number";
        // An empty value takes the record back (pax(1)).
        let some = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
        let number = || match value {
            b"" => Ok(None),
            value => pax::decimal(value).map(Some).ok_or(BAD),
        };
        match key {
            b"path" => self.path = some(value),
            b"linkpath" => self.link = some(value),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                self.mtime =
                    Some(pax::parse_time(value).ok_or("an extended header has a bad time")?)
            }
            _ => {
                if let Some(name) = key.strip_prefix(pax::XATTR) {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                }
            }
        }
        Ok(())
    }
}
