//! Cache records: what a step resulted in, by its key; and the latest key of each *slot*, a place in a build (a file,
//! a stage, the position of an instruction), so that a miss can be explained by what was there before.
//!
//! # Format
//! `records/HEX` is a JSON object with `"format": 1` and the fields of [`Record`]; `slots/HEX` (of the slot's text)
//! holds the key as text.  Both appear by rename.  A file that does not parse is as good as absent.  The mtime of a
//! record is when it was last used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;

use serde::{Deserialize, Serialize};
use stepwell_model::Digest;

use crate::error::{Context as _, Result};
use crate::layer::Layer;
use crate::store::{Store, touch};

/// Number of the format, written into each record.
const FORMAT: u32 = 1;

/// What a step resulted in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// The layers of the result, bottom first.
    pub layers: Vec<Layer>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The operation in one line, for people.
    pub summary: String,
    /// The place in a build that it was made for.
    pub slot: Option<String>,
    /// The labelled parts that the key was made of.
    pub preimage: Vec<(String, String)>,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Whatever else the caller needs to take the result up again.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    format: u32,
    #[serde(flatten)]
    record: R,
}

/// The cache records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    store: &'a Store,
}

impl<'a> Records<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Returns the record of `key` and notes that it was used.  Whether its layers are in the store is another
    /// question: [`Store::has_layers`].
    pub fn get(&self, key: &Digest) -> Option<Record> {
        let file = File::open(self.store.paths().record(key)).ok()?;
        let record = parse(&file)?;
        touch(&file);
        Some(record)
    }

    /// Keeps the record of `key`, and makes it the latest of its slot.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, key: &Digest, record: &Record) -> Result<()> {
        let path = self.store.paths().record(key);
        let text = serde_json::to_vec(&Envelope {
            format: FORMAT,
            record,
        })
        .map_err(std::io::Error::from)
        .context("write", &path)?;
        self.store.session().publish(&path, &text)?;
        match &record.slot {
            Some(slot) => self.point(slot, key),
            None => Ok(()),
        }
    }

    /// Makes `key` the latest of `slot`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn point(&self, slot: &str, key: &Digest) -> Result<()> {
        let text = key.to_string();
        let path = self.store.paths().slot(slot);
        if fs::read(&path).is_ok_and(|have| have == text.as_bytes()) {
            return Ok(());
        }
        self.store.session().publish(&path, text.as_bytes())
    }

    /// Notes that the record of `key` was used.
    pub fn touch(&self, key: &Digest) {
        if let Ok(file) = File::open(self.store.paths().record(key)) {
            touch(&file);
        }
    }

    /// Returns the latest record of `slot` with its key.
    pub fn latest(&self, slot: &str) -> Option<(Digest, Record)> {
        let text = fs::read_to_string(self.store.paths().slot(slot)).ok()?;
        let key: Digest = text.parse().ok()?;
        let record = parse(&File::open(self.store.paths().record(&key)).ok()?)?;
        Some((key, record))
    }

    /// Forgets the record of `key`.
    pub fn remove(&self, key: &Digest) {
        let _ = fs::remove_file(self.store.paths().record(key));
    }
}

pub(crate) fn parse(mut file: &File) -> Option<Record> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    let envelope: Envelope<Record> = serde_json::from_slice(&text).ok()?;
    (envelope.format == FORMAT).then_some(envelope.record)
}
