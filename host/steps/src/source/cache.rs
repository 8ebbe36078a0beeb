//! Remembers the digests of files by what stat(2) says of them, so that an unchanged context is not read again.
//!
//! A file whose ctime was not yet clearly in the past when it was read is *racy*: it could have been written to
//! again within the same tick of the file system's clock.  Such a digest is not remembered (git marks such entries
//! in its index for the same reason).
//!
//! # Format
//! Version 1, one file, little endian: the 24 bytes `stepwell file digests 1\n`, then records of 81 bytes: class (1), device, inode,
//! size, mtime seconds (8 each), mtime nanoseconds (4), ctime seconds (8), ctime nanoseconds (4), digest (32); last
//! the CRC-32 of all that (4).  It is replaced as a whole by a rename; one that cannot be read counts as
//! empty, and what two processes write at once is the work of one of them: it only saves time.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::time::{ClockId, clock_gettime};
use stepwell_model::Digest;

use super::node::{Identity, Time};

const MAGIC: &[u8; 24] = b"stepwell file digests 1\n";
const RECORD: usize = 81;

/// Files that are remembered: bounds the file to about 16 MB; those of the latest builds stay.
const MAX_ENTRIES: usize = 200_000;

/// Ticks of the kernel's clocks are 10 ms at most; a time with nanoseconds comes from such a clock.
const TICK: i64 = 50_000_000;

/// A time without nanoseconds may come from a file system that keeps seconds, or pairs of them (FAT).
const COARSE_TICK: i64 = 2_500_000_000;

/// For which kind of tree a digest was computed: what goes into it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// A build context.
    Context = 0,
    /// A checkout with real owners.
    Real = 1,
    /// A checkout with emulated owners.
    Emulated = 2,
}

/// Digests of files; shared by all threads of a build.
#[derive(Debug, Default)]
pub struct StatCache {
    file: Option<PathBuf>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    known: HashMap<(Class, Identity), Remembered>,
    changed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    digest: Digest,
    used: bool,
}

impl StatCache {
    /// Loads what is kept in `file`; a missing or damaged one counts as empty.
    pub fn load(file: &Path) -> Self {
        let known = std::fs::read(file)
            .ok()
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Self {
            file: Some(file.to_owned()),
            entries: Mutex::new(Entries {
                known,
                changed: false,
            }),
        }
    }

    /// Makes an empty one that is never written.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Returns the digest of the file that is `identity`.
    pub fn get(&self, class: Class, identity: &Identity) -> Option<Digest> {
        let mut entries = self.lock();
        let remembered = entries.known.get_mut(&(class, *identity))?;
        remembered.used = true;
        Some(remembered.digest)
    }

    /// Remembers a digest, unless the file was too young when `reading_since`, the time just before it was read.
    pub fn put(&self, class: Class, identity: &Identity, digest: Digest, reading_since: Time) {
        if !is_racy(identity, reading_since) {
            let mut entries = self.lock();
            entries
                .known
                .insert((class, *identity), Remembered { digest, used: true });
            entries.changed = true;
        }
    }

    /// Writes the file anew where something was learnt.
    pub fn save(&self) -> std::io::Result<()> {
        let mut entries = self.lock();
        let Some(file) = self.file.as_ref().filter(|_| entries.changed) else {
            return Ok(());
        };
        if entries.known.len() > MAX_ENTRIES {
            entries.known.retain(|_, remembered| remembered.used);
        }
        let dir = file.parent().unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new()
            .prefix(".digests")
            .tempfile_in(dir)?;
        temporary.write_all(&encode(&entries.known))?;
        temporary.persist(file)?;
        entries.changed = false;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Nothing is half done where a thread panicked: every change is one insertion.
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Returns the time by the clock that file systems stamp with.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time {
        secs: now.tv_sec,
        nanos: now.tv_nsec as u32,
    }
}

fn is_racy(identity: &Identity, reading_since: Time) -> bool {
    let nanos = |time: Time| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let tick = if identity.ctime.nanos == 0 {
        COARSE_TICK
    } else {
        TICK
    };
    nanos(identity.ctime) + i128::from(tick) > nanos(reading_since)
}

fn encode(known: &HashMap<(Class, Identity), Remembered>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + known.len() * RECORD + 4);
    bytes.extend(MAGIC);
    for ((class, identity), remembered) in known.iter().take(MAX_ENTRIES) {
        bytes.push(*class as u8);
        for number in [identity.device, identity.inode, identity.size] {
            bytes.extend(number.to_le_bytes());
        }
        for time in [identity.mtime, identity.ctime] {
            bytes.extend(time.secs.to_le_bytes());
            bytes.extend(time.nanos.to_le_bytes());
        }
        bytes.extend(remembered.digest.as_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<(Class, Identity), Remembered>> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let records = body.strip_prefix(MAGIC)?.chunks_exact(RECORD);
    records.remainder().is_empty().then_some(())?;
    records.map(decode_record).collect()
}

fn decode_record(record: &[u8]) -> Option<((Class, Identity), Remembered)> {
    let class = match record[0] {
        0 => Class::Context,
        1 => Class::Real,
        2 => Class::Emulated,
        _ => return None,
    };
    let mut rest = &record[1..];
    let mut long = || take::<8>(&mut rest).map(u64::from_le_bytes);
    let (device, inode, size) = (long()?, long()?, long()?);
    let mut time = || {
        let secs = i64::from_le_bytes(take(&mut rest)?);
        Some(Time {
            secs,
            nanos: u32::from_le_bytes(take(&mut rest)?),
        })
    };
    let (mtime, ctime) = (time()?, time()?);
    let digest = Digest::from_bytes(take(&mut rest)?);
    Some((
        (
            class,
            Identity {
                device,
                inode,
                size,
                mtime,
                ctime,
            },
        ),
        Remembered {
            digest,
            used: false,
        },
    ))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64, ctime: i64) -> Identity {
        let time = |secs| Time { secs, nanos: 7 };
        Identity {
            device: 1,
            inode,
            size: 3,
            mtime: time(5),
            ctime: time(ctime),
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_damage_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("digests");
        let cache = StatCache::load(&file);
        cache.put(
            Class::Context,
            &identity(9, 100),
            Digest::of(b"x"),
            Time {
                secs: 200,
                nanos: 0,
            },
        );
        cache.save().unwrap();
        let again = StatCache::load(&file);
        assert_eq!(
            again.get(Class::Context, &identity(9, 100)),
            Some(Digest::of(b"x"))
        );
        assert_eq!(again.get(Class::Real, &identity(9, 100)), None);
        assert_eq!(again.get(Class::Context, &identity(9, 101)), None);

        let mut bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes.len(), MAGIC.len() + RECORD + 4);
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            assert_eq!(
                StatCache::load(&file).get(Class::Context, &identity(9, 100)),
                None,
                "byte {at}"
            );
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_remembered() {
        let cache = StatCache::in_memory();
        let young = identity(1, 100);
        cache.put(
            Class::Context,
            &young,
            Digest::of(b"x"),
            Time {
                secs: 100,
                nanos: 8,
            },
        );
        assert_eq!(cache.get(Class::Context, &young), None);
        cache.put(
            Class::Context,
            &young,
            Digest::of(b"x"),
            Time {
                secs: 100,
                nanos: 60_000_000,
            },
        );
        assert_eq!(cache.get(Class::Context, &young), Some(Digest::of(b"x")));

        let coarse = Identity {
            ctime: Time {
                secs: 100,
                nanos: 0,
            },
            ..young
        };
        cache.put(
            Class::Context,
            &coarse,
            Digest::of(b"x"),
            Time {
                secs: 101,
                nanos: 0,
            },
        );
        assert_eq!(cache.get(Class::Context, &coarse), None);
    }
}
