//! What a build takes from elsewhere: files behind web addresses, repositories.
//!
//! Something fetched becomes a layer of its own in the store, under a record that says what was fetched: so it is kept, pruned,
//! unpacked and copied from as the layers of stages are.  What it *is* (the digest of a file, the commit of a
//! repository) is found out before anything is looked up, because it is part of the keys of all that is made of it; where
//! the definition says it (`--checksum`, a whole commit), nobody is asked.

mod credentials;
mod error;
mod git;
mod http;
mod material;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stepwell_model::op::{GitOp, HttpOp};
use stepwell_model::request::{Compression, Request};
use stepwell_model::{Digest, Hasher, Op};
use stepwell_registry::Registry;
use stepwell_steps::run::CancelToken;
use stepwell_store::{Layer, LayerOptions, Record, Store};
use tokio::runtime::Handle;

pub use error::RemoteError;
pub use material::Material;

use crate::session::{lock, now};

/// Name of what a record has besides the layer: when its source was last changed, in seconds since 1970.
const TIME: &str = "time";

/// Told how many bytes have come, and how many there are where that is known.
pub type Tell<'t> = &'t (dyn Fn(u64, Option<u64>) + Sync);

/// All that a build takes from elsewhere.
pub struct Remotes<'a> {
    store: &'a Store,
    registry: &'a Registry,
    runtime: Handle,
    request: &'a Request,
    cancel: &'a CancelToken,
    /// What was found out in this build, by operation; locked while it is found out, so that it is asked for once.
    found: Mutex<HashMap<Digest, Arc<Mutex<Option<Found>>>>>,
}

/// What was found out of something elsewhere.
#[derive(Debug, Clone)]
pub struct Found {
    /// Identifies it: part of the keys of what is made of it.
    pub identity: Digest,
    /// Its layer, where it is here already.
    layer: Option<Layer>,
    /// Whether it was fetched in this build.
    fetched: bool,
    /// What its ref is, of a repository.
    resolved: Option<git::Resolved>,
    /// It, as provenance names it.
    material: Material,
}

/// The layer of something that is here.
#[derive(Debug, Clone, Copy)]
pub struct Here {
    /// The layer.
    pub layer: Layer,
    /// Whether it was here before this build.
    pub reused: bool,
}

impl<'a> Remotes<'a> {
    /// Knows nothing yet.
    pub fn new(
        store: &'a Store,
        registry: &'a Registry,
        runtime: Handle,
        request: &'a Request,
        cancel: &'a CancelToken,
    ) -> Self {
        Self {
            store,
            registry,
            runtime,
            request,
            cancel,
            found: Mutex::default(),
        }
    }

    /// Says what an operation's source is; nothing for one that takes nothing from elsewhere.
    pub fn identify(&self, op: &Op, tell: Tell<'_>) -> Result<Option<Digest>, RemoteError> {
        match op {
            Op::Http(op) => self.once(op_key(op), |_| self.identify_file(op, tell)),
            Op::Git(op) => self.once(op_key(op), |_| self.identify_repository(op)),
            _ => return Ok(None),
        }
        .map(|found| Some(found.identity))
    }

    /// Fetches what an operation takes from elsewhere, unless it is here.
    pub fn file(&self, op: &HttpOp, tell: Tell<'_>) -> Result<Here, RemoteError> {
        let found = self.once(op_key(op), |known| {
            let known = match known {
                Some(known) => known,
                None => self.identify_file(op, tell)?,
            };
            match known.layer {
                Some(_) => Ok(known),
                None => self.fetch_file(op, tell),
            }
        })?;
        Ok(here(found))
    }

    /// Fetches a small file and returns its content.
    pub fn content(&self, op: &HttpOp, limit: u64) -> Result<Vec<u8>, RemoteError> {
        let layer = self.file(op, &|_, _| ())?.layer;
        let view = self.store.chain_view(&[layer])?;
        let read = view.read_file(self.store, op.name.as_bytes(), limit)?;
        Ok(read.unwrap_or_default())
    }

    /// Fetches the files of a repository, unless they are here.
    pub fn repository(&self, op: &GitOp) -> Result<Here, RemoteError> {
        let found = self.once(op_key(op), |known| {
            let known = match known {
                Some(known) => known,
                None => self.identify_repository(op)?,
            };
            match known.layer {
                Some(_) => Ok(known),
                None => self.fetch_repository(op, known),
            }
        })?;
        Ok(here(found))
    }

    /// The store that what comes is kept in.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// What the user asked for.
    pub fn request(&self) -> &'a Request {
        self.request
    }

    /// All that was used from elsewhere so far, sorted.
    pub fn materials(&self) -> Vec<Material> {
        let found: Vec<_> = lock(&self.found).values().cloned().collect();
        let mut materials: Vec<_> = found
            .iter()
            .filter_map(|cell| lock(cell).as_ref().map(|f| f.material.clone()))
            .collect();
        materials.sort();
        materials.dedup();
        materials
    }

    /// What an operation took from elsewhere, where that is known.
    pub fn material(&self, op: &impl serde::Serialize) -> Option<Material> {
        self.known(op).map(|found| found.material)
    }

    /// What was found out of an operation's source so far.
    fn known(&self, op: &impl serde::Serialize) -> Option<Found> {
        let cell = lock(&self.found).get(&op_key(op))?.clone();
        lock(&cell).clone()
    }

    /// Works on what is known of an operation's source, one at a time.
    fn once(
        &self,
        key: Digest,
        work: impl FnOnce(Option<Found>) -> Result<Found, RemoteError>,
    ) -> Result<Found, RemoteError> {
        let cell = lock(&self.found).entry(key).or_default().clone();
        let mut known = lock(&cell);
        let found = work(known.take())?;
        *known = Some(found.clone());
        Ok(found)
    }

    /// How the layers of what is fetched are written: they stay here, so that compressing them would be in vain.
    fn layer_options(&self) -> LayerOptions {
        LayerOptions {
            compression: Compression::Uncompressed,
            threads: self.request.jobs,
            ..LayerOptions::default()
        }
    }

    /// The record of something, provided that its layer is here.
    fn record(&self, key: &Digest) -> Option<(Record, Layer)> {
        let record = self.store.records().get(key)?;
        let layer = *record.layers.first()?;
        self.store
            .has_layers(&record.layers)
            .then_some((record, layer))
    }

    /// Keeps the record of something.
    fn keep(
        &self,
        key: &Digest,
        summary: String,
        layer: Layer,
        extra: &[(&str, Option<String>)],
    ) -> Result<(), RemoteError> {
        let extra = extra
            .iter()
            .filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        let record = Record {
            layers: vec![layer],
            created: now(),
            summary,
            extra: extra.collect(),
            ..Record::default()
        };
        Ok(self.store.records().put(key, &record)?)
    }

    /// When the source of something that is kept was last changed.
    fn time(&self, key: &Digest) -> Option<i64> {
        let (record, _) = self.record(key)?;
        record.extra.get(TIME)?.parse().ok()
    }

    /// Begins a digest that no other tenant's build computes.
    fn hasher(&self, kind: &str) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.field(kind.as_bytes());
        hasher.field(self.request.namespace.as_bytes());
        hasher
    }

    /// Looks for a secret of the user's.
    fn secret(&self, id: &str) -> Option<&[u8]> {
        let secrets = self.request.secrets.iter();
        secrets
            .rev()
            .find(|(name, _)| name == id)
            .map(|(_, value)| value.reveal().trim_ascii())
    }
}

fn here(found: Found) -> Here {
    Here {
        layer: found.layer.expect("what was fetched is here"),
        reused: !found.fetched,
    }
}

/// Identifies an operation within a build.
fn op_key(op: &impl serde::Serialize) -> Digest {
    let mut hasher = Hasher::new();
    serde_json::to_writer(&mut hasher, op).expect("plain data is always JSON");
    hasher.finish()
}
