//! Encodes one entry as a ustar header, with a pax extended header in front where ustar cannot say it.
//!
//! The bytes depend on the entry alone: no user names, no process id, no padding of unknown content.  That is what
//! makes digests reproducible, so a change here changes the digest of every layer (see `tests/pinned.rs`).

use std::collections::BTreeMap;

use super::writer::WriteError;
use super::{Entry, Kind, pax};

/// Size of a tar record.
pub const BLOCK: usize = 512;

/// Longest pax header that Go's archive/tar (docker, containerd, umoci, skopeo, …) reads.
const MAX_PAX: usize = 1 << 20;

const MAX_OCTAL_7: u64 = 0o7_777_777;
const MAX_OCTAL_11: u64 = 0o77_777_777_777;

/// Where the fields of a ustar header lie.
mod field {
    use std::ops::Range;
    pub const NAME: Range<usize> = 0..100;
    pub const MODE: Range<usize> = 100..108;
    pub const UID: Range<usize> = 108..116;
    pub const GID: Range<usize> = 116..124;
    pub const SIZE: Range<usize> = 124..136;
    pub const MTIME: Range<usize> = 136..148;
    pub const CHECKSUM: Range<usize> = 148..156;
    pub const TYPE: usize = 156;
    pub const LINK: Range<usize> = 157..257;
    pub const MAGIC: Range<usize> = 257..265;
    pub const MAJOR: Range<usize> = 329..337;
    pub const MINOR: Range<usize> = 337..345;
    pub const PREFIX: Range<usize> = 345..500;
}

/// Returns the blocks that go in front of the content.
pub fn encode(entry: &Entry) -> Result<Vec<u8>, WriteError> {
    let mut records = BTreeMap::new();
    let mut block = [0; BLOCK];
    block[field::TYPE] = type_flag(&entry.kind);
    block[field::MAGIC].copy_from_slice(b"ustar\x0000");
    octal(&mut block[field::MODE], u64::from(entry.mode & 0o7777));
    name(entry, &mut block, &mut records)?;
    link(entry, &mut block, &mut records)?;
    numbers(entry, &mut block, &mut records);
    device(entry, &mut block)?;
    xattrs(entry, &mut records)?;
    seal(&mut block);
    let mut out = extended(entry, &records)?;
    out.extend_from_slice(&block);
    Ok(out)
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => b'0',
        Kind::Hardlink { .. } => b'1',
        Kind::Symlink { .. } => b'2',
        Kind::Char { .. } => b'3',
        Kind::Block { .. } => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

fn name(entry: &Entry, block: &mut [u8; BLOCK], records: &mut Records) -> Result<(), WriteError> {
    check_path(entry, &entry.path)?;
    let mut path = entry.path.clone();
    if path.is_empty() {
        if !entry.is_dir() {
            return Err(WriteError::RootNotDirectory {
                kind: entry.kind.to_string(),
            });
        }
        path.push(b'.');
    }
    if entry.is_dir() {
        path.push(b'/');
    }
    match split(&path) {
        Some((prefix, name)) => {
            put(&mut block[field::PREFIX], prefix);
            put(&mut block[field::NAME], name);
        }
        None => {
            put(&mut block[field::NAME], &stand_in(&path));
            records.insert(b"path".to_vec(), path);
        }
    }
    Ok(())
}

fn link(entry: &Entry, block: &mut [u8; BLOCK], records: &mut Records) -> Result<(), WriteError> {
    let target = match &entry.kind {
        Kind::Symlink { target } => target,
        Kind::Hardlink { target } => {
            check_path(entry, target)?;
            target
        }
        _ => return Ok(()),
    };
    if target.is_empty() || target.contains(&0) {
        return Err(WriteError::LinkTarget {
            path: entry.display(),
        });
    }
    if target.is_ascii() && target.len() <= field::LINK.len() {
        put(&mut block[field::LINK], target);
    } else {
        put(&mut block[field::LINK], &stand_in(target));
        records.insert(b"linkpath".to_vec(), target.clone());
    }
    Ok(())
}

fn numbers(entry: &Entry, block: &mut [u8; BLOCK], records: &mut Records) {
    let mut number = |range, key: &[u8], value: u64, limit: u64| {
        let fits = value <= limit;
        octal(&mut block[range], if fits { value } else { 0 });
        if !fits {
            records.insert(key.to_vec(), value.to_string().into_bytes());
        }
    };
    number(field::UID, b"uid", entry.uid.into(), MAX_OCTAL_7);
    number(field::GID, b"gid", entry.gid.into(), MAX_OCTAL_7);
    number(field::SIZE, b"size", entry.size(), MAX_OCTAL_11);
    let secs = u64::try_from(entry.mtime.secs)
        .ok()
        .filter(|s| *s <= MAX_OCTAL_11);
    octal(&mut block[field::MTIME], secs.unwrap_or(0));
    if secs.is_none() || entry.mtime.nanos != 0 {
        let text = pax::format_time(entry.mtime).into_bytes();
        records.insert(b"mtime".to_vec(), text);
    }
}

fn device(entry: &Entry, block: &mut [u8; BLOCK]) -> Result<(), WriteError> {
    let (major, minor) = match entry.kind {
        Kind::Char { major, minor } | Kind::Block { major, minor } => (major, minor),
        _ => (0, 0),
    };
    if u64::from(major.max(minor)) > MAX_OCTAL_7 {
        return Err(WriteError::DeviceNumber {
            path: entry.display(),
            major,
            minor,
        });
    }
    octal(&mut block[field::MAJOR], major.into());
    octal(&mut block[field::MINOR], minor.into());
    Ok(())
}

fn xattrs(entry: &Entry, records: &mut Records) -> Result<(), WriteError> {
    for (name, value) in &entry.xattrs {
        // A pax keyword ends at the first `=`; Go's reader gives up at a NUL in a keyword.
        let bad = name.is_empty() || name.iter().any(|b| matches!(b, b'=' | 0));
        if bad || name.starts_with(super::writer::PRIVATE_XATTR) {
            return Err(WriteError::XattrName {
                path: entry.display(),
                name: super::entry::text::escape(name),
            });
        }
        records.insert([pax::XATTR, name].concat(), value.clone());
    }
    Ok(())
}

/// The pax header for `records`; nothing where there are none.
fn extended(entry: &Entry, records: &Records) -> Result<Vec<u8>, WriteError> {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::push(&mut body, key, value);
    }
    if body.is_empty() {
        return Ok(body);
    }
    if body.len() > MAX_PAX {
        return Err(WriteError::MetadataTooLarge {
            path: entry.display(),
            size: body.len(),
        });
    }
    let mut block = [0; BLOCK];
    let name = [b"PaxHeaders.0/", &stand_in(entry.name())[..]].concat();
    put(&mut block[field::NAME], &name[..name.len().min(100)]);
    octal(&mut block[field::MODE], 0o644);
    for range in [
        field::UID,
        field::GID,
        field::MTIME,
        field::MAJOR,
        field::MINOR,
    ] {
        octal(&mut block[range], 0);
    }
    octal(&mut block[field::SIZE], body.len() as u64);
    block[field::TYPE] = b'x';
    block[field::MAGIC].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    let mut out = block.to_vec();
    out.append(&mut body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    Ok(out)
}

/// Refuses what a reader could take for another path.
fn check_path(entry: &Entry, path: &[u8]) -> Result<(), WriteError> {
    let bad = |element: &[u8]| matches!(element, b"" | b"." | b"..");
    if path.contains(&0) || (!path.is_empty() && path.split(|b| *b == b'/').any(bad)) {
        return Err(WriteError::Path {
            path: entry.display(),
        });
    }
    Ok(())
}

/// Splits a path over ustar's prefix and name; none where it has to go into a pax record.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= field::NAME.len() {
        return Some((&[], path));
    }
    // The first slash that leaves a short enough name; a directory's last slash does not count.
    let from = path.len() - field::NAME.len() - 1;
    let at = from + path[from..path.len() - 1].iter().position(|b| *b == b'/')?;
    (at > 0 && at <= field::PREFIX.len()).then(|| (&path[..at], &path[at + 1..]))
}

/// What readers without pax see in place of a path: its last bytes, those outside ASCII replaced.
fn stand_in(path: &[u8]) -> Vec<u8> {
    let tail = &path[path.len().saturating_sub(80)..];
    let plain = |b: &u8| if matches!(b, b' '..=b'~') { *b } else { b'_' };
    let text: Vec<u8> = tail.iter().map(plain).collect();
    match text.strip_prefix(b"/") {
        Some(text) => text.to_vec(),
        None => text,
    }
}

fn put(target: &mut [u8], bytes: &[u8]) {
    target[..bytes.len()].copy_from_slice(bytes);
}

fn octal(target: &mut [u8], value: u64) {
    let width = target.len() - 1;
    target[..width].copy_from_slice(format!("{value:0width$o}").as_bytes());
}

/// Fills in the checksum: six digits, NUL, space.
fn seal(block: &mut [u8; BLOCK]) {
    let sum = checksum(block);
    block[field::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The sum of all bytes, those of the checksum itself taken as spaces.
pub fn checksum(block: &[u8; BLOCK]) -> u64 {
    let all: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let own: u64 = block[field::CHECKSUM].iter().map(|b| u64::from(*b)).sum();
    all - own + 8 * u64::from(b' ')
}
