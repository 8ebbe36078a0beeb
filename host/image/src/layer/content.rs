//! The content of one entry while its layer is read.

use std::io::{self, Read};

use super::reader::LayerReader;
use super::sparse::Extents;

/// The content of an entry, holes filled with zeros; empty for everything that is not a file.
pub struct Content<'a, R: Read> {
    layer: &'a mut LayerReader<R>,
    size: u64,
    position: u64,
    /// The pieces of data that were not read to their end, in reverse; none where the file is not sparse.
    extents: Option<Extents>,
}

impl<'a, R: Read> Content<'a, R> {
    pub(super) fn new(layer: &'a mut LayerReader<R>, size: u64, extents: Option<Extents>) -> Self {
        let reversed = extents.map(|extents| extents.into_iter().rev().collect());
        Self {
            layer,
            size,
            position: 0,
            extents: reversed,
        }
    }

    /// Where the next byte to be read belongs in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Skips the hole that comes next, if one does, and returns its length: what unpacks a sparse file seeks over
    /// it in place of writing zeros.
    pub fn skip_hole(&mut self) -> u64 {
        let hole = self.hole();
        self.position += hole;
        hole
    }

    fn hole(&self) -> u64 {
        let next = match &self.extents {
            None => return 0,
            Some(extents) => extents.last().map_or(self.size, |(offset, _)| *offset),
        };
        next.saturating_sub(self.position)
    }

    /// Bytes of data that come next without a hole.
    fn data(&self) -> u64 {
        match &self.extents {
            None => self.size - self.position,
            Some(extents) => extents
                .last()
                .map_or(0, |(offset, length)| offset + length - self.position),
        }
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let within = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX).min(buf.len());
        let hole = within(self.hole());
        let read = if hole > 0 {
            buf[..hole].fill(0);
            hole
        } else {
            let want = within(self.data());
            let read = self.layer.stored(&mut buf[..want]);
            read.map_err(|fault| self.layer.error(fault))?
        };
        self.position += read as u64;
        if let Some(extents) = &mut self.extents {
            let position = self.position;
            extents.pop_if(|(offset, length)| position >= *offset + *length);
        }
        Ok(read)
    }
}
