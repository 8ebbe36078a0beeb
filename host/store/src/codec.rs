//! The binary encoding that tables of contents and indexes share.
//!
//! Numbers are LEB128 (signed ones zigzagged), byte strings have their length before them.  Paths are coded against
//! the one before: the number of leading bytes they share, then the rest.  A file is its magic, a payload and the
//! first eight bytes of the SHA-256 of both; decoding never panics and never trusts a length.

use std::collections::BTreeMap;

use stepwell_image::{Entry, Kind, Mtime};
use stepwell_model::Digest;

/// Length of the checksum at the end of a file.
const CHECK: usize = 8;

/// Appends values to a buffer.
pub(crate) struct Encoder {
    out: Vec<u8>,
    path: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(magic: &[u8]) -> Self {
        Self {
            out: magic.to_vec(),
            path: Vec::new(),
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let check = Digest::of(&self.out);
        self.out.extend_from_slice(&check.as_bytes()[..CHECK]);
        self.out
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.out.extend_from_slice(value);
    }

    pub(crate) fn digest(&mut self, value: &Digest) {
        self.out.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn optional_digest(&mut self, value: Option<&Digest>) {
        self.byte(value.is_some().into());
        if let Some(digest) = value {
            self.digest(digest);
        }
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.entry_path(&entry.path);
        let (tag, target, major, minor) = match &entry.kind {
            Kind::File { size } => (0, None, *size, 0),
            Kind::Dir => (1, None, 0, 0),
            Kind::Symlink { target } => (2, Some(target), 0, 0),
            Kind::Hardlink { target } => (3, Some(target), 0, 0),
            Kind::Char { major, minor } => (4, None, (*major).into(), (*minor).into()),
            Kind::Block { major, minor } => (5, None, (*major).into(), (*minor).into()),
            Kind::Fifo => (6, None, 0, 0),
        };
        self.byte(tag);
        match (tag, target) {
            (_, Some(target)) => self.bytes(target),
            (0, None) => self.number(major),
            (4 | 5, None) => {
                self.number(major);
                self.number(minor);
            }
            _ => {}
        }
        self.number(entry.mode.into());
        self.number(entry.uid.into());
        self.number(entry.gid.into());
        self.signed(entry.mtime.secs);
        self.number(entry.mtime.nanos.into());
        self.number(entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
        // 0 is "not sparse", else one more than the number of extents.
        self.number(entry.sparse.as_ref().map_or(0, |s| s.len() as u64 + 1));
        for (offset, length) in entry.sparse.iter().flatten() {
            self.number(*offset);
            self.number(*length);
        }
    }

    fn entry_path(&mut self, path: &[u8]) {
        let shared = self
            .path
            .iter()
            .zip(path)
            .take_while(|(a, b)| a == b)
            .count();
        self.number(shared as u64);
        self.bytes(&path[shared..]);
        self.path.truncate(shared);
        self.path.extend_from_slice(&path[shared..]);
    }
}

/// Takes values off a buffer; `None` is "damaged".
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
    path: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// Checks magic and checksum.
    pub(crate) fn new(magic: &[u8], file: &'a [u8]) -> Option<Self> {
        let (body, check) = file.split_at_checked(file.len().checked_sub(CHECK)?)?;
        if Digest::of(body).as_bytes()[..CHECK] != *check {
            return None;
        }
        Some(Self {
            rest: body.strip_prefix(magic)?,
            path: Vec::new(),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are left: an upper bound for any number of things still to come.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(crate) fn digest(&mut self) -> Option<Digest> {
        Some(Digest::from_bytes(self.take(32)?.try_into().ok()?))
    }

    pub(crate) fn optional_digest(&mut self) -> Option<Option<Digest>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.digest().map(Some),
        }
    }

    pub(crate) fn entry(&mut self) -> Option<Entry> {
        let path = self.entry_path()?;
        let kind = match self.byte()? {
            0 => Kind::File {
                size: self.number()?,
            },
            1 => Kind::Dir,
            2 => Kind::Symlink {
                target: self.bytes()?.to_vec(),
            },
            3 => Kind::Hardlink {
                target: self.bytes()?.to_vec(),
            },
            4 => Kind::Char {
                major: self.small()?,
                minor: self.small()?,
            },
            5 => Kind::Block {
                major: self.small()?,
                minor: self.small()?,
            },
            6 => Kind::Fifo,
            _ => return None,
        };
        let mode = self.small()?;
        let (uid, gid) = (self.small()?, self.small()?);
        let mtime = Mtime {
            secs: self.signed()?,
            nanos: self.small()?,
        };
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.number()? {
            let name = self.bytes()?.to_vec();
            xattrs.insert(name, self.bytes()?.to_vec());
        }
        let sparse = match self.number()? {
            0 => None,
            count => Some(
                (1..count)
                    .map(|_| Some((self.number()?, self.number()?)))
                    .collect::<Option<Vec<_>>>()?,
            ),
        };
        Some(Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            sparse,
        })
    }

    fn entry_path(&mut self) -> Option<Vec<u8>> {
        let shared = usize::try_from(self.number()?).ok()?;
        let rest = self.bytes()?;
        if shared > self.path.len() {
            return None;
        }
        self.path.truncate(shared);
        self.path.extend_from_slice(rest);
        Some(self.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Entry> {
        let kinds = [
            Kind::File { size: u64::MAX },
            Kind::Dir,
            Kind::Symlink {
                target: b"/x\xff".to_vec(),
            },
            Kind::Hardlink {
                target: b"a/b".to_vec(),
            },
            Kind::Char { major: 1, minor: 3 },
            Kind::Block {
                major: u32::MAX,
                minor: 0,
            },
            Kind::Fifo,
        ];
        let mut entries: Vec<_> = kinds
            .into_iter()
            .enumerate()
            .map(|(i, kind)| Entry::new(format!("dir/common-{i}").into_bytes(), kind, 0o4755))
            .collect();
        entries[0].mtime = Mtime {
            secs: i64::MIN,
            nanos: 999_999_999,
        };
        entries[0].xattrs.insert(b"user.a".to_vec(), vec![0, 255]);
        entries[0].sparse = Some(vec![(4096, 1)]);
        entries[2].sparse = Some(Vec::new());
        entries[2].uid = u32::MAX;
        entries
    }

    fn encode(entries: &[Entry]) -> Vec<u8> {
        let mut out = Encoder::new(b"M");
        entries.iter().for_each(|e| out.entry(e));
        out.finish()
    }

    #[test]
    fn entries_come_back() {
        let file = encode(&samples());
        let mut decoder = Decoder::new(b"M", &file).unwrap();
        for entry in samples() {
            assert_eq!(decoder.entry(), Some(entry));
        }
        assert!(decoder.is_empty());
    }

    #[test]
    fn the_encoding_is_pinned() {
        let digest = Digest::of(&encode(&samples()));
        assert_eq!(digest.short(), "64e95f046264");
    }

    #[test]
    fn damage_is_noticed_and_hostile_lengths_are_harmless() {
        let good = encode(&samples());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Decoder::new(b"M", &bad).is_none(), "byte {at}");
        }
        // A right checksum over nonsense: every byte string must end in `None`, not in a panic.
        for seed in 0..2000u64 {
            let mut out = Encoder::new(b"M");
            Digest::of(&seed.to_le_bytes())
                .as_bytes()
                .iter()
                .for_each(|b| out.byte(*b));
            let file = out.finish();
            let mut decoder = Decoder::new(b"M", &file).unwrap();
            while decoder.entry().is_some() {}
        }
    }
}
