//! Images of registries and OCI layouts: resolved to a manifest, their layers fetched when something needs them.
//!
//! A manifest, index or configuration that was seen is kept as a blob, so that an unchanged tag costs one HEAD request.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stepwell_image::blob::BlobSource as _;
use stepwell_image::config::CONFIG_LIMIT;
use stepwell_image::layout::Layout;
use stepwell_image::manifest::MANIFEST_LIMIT;
use stepwell_image::{Document, HistoryEntry, ImageDocument, Manifest};
use stepwell_model::event::StepId;
use stepwell_model::op::ImageOp;
use stepwell_model::request::NamedContext;
use stepwell_model::{Digest, ImageConfig, Platform, Reference};
use stepwell_registry::{Progress, Registry, RegistryError};
use stepwell_steps::run::CancelToken;
use stepwell_store::{Layer, Store, StoreError};
use tokio::runtime::Handle;

use crate::error::{BuildError, ImageError, StepError};
use crate::frontend::parse_reference;
use crate::session::{Session, lock};

/// How often whoever waits for a registry looks whether the build was given up.
const LOOK_UP: Duration = Duration::from_millis(50);

/// An image that was resolved.
pub struct Image {
    /// The reference, normalised.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// What a container of it runs with.
    pub config: ImageConfig,
    /// When it was made (RFC 3339).
    pub created: Option<String>,
    /// Its history, oldest first.
    pub history: Vec<HistoryEntry>,
    layers: Vec<Layer>,
}

/// Where blobs come from.
#[derive(Clone)]
enum Place {
    Registry(Reference),
    Layout(Arc<Layout>),
}

/// The images of a build.
pub struct Images<'a> {
    store: &'a Store,
    registry: &'a Registry,
    runtime: Handle,
    layouts: HashMap<String, (PathBuf, String)>,
    resolved: Mutex<HashMap<Digest, Arc<Image>>>,
    /// What was asked for: a name stands for one image in a build, even where its tag moves meanwhile.
    asked: Mutex<HashMap<(String, Platform), Arc<Image>>>,
    /// Where the blob of a layer can be fetched.
    places: Mutex<HashMap<Digest, Place>>,
    /// Held while a blob is fetched, so that parallel steps do not fetch it twice.
    fetching: Mutex<HashMap<Digest, Arc<Mutex<()>>>>,
}

impl<'a> Images<'a> {
    /// Knows no image yet.
    pub fn new(
        store: &'a Store,
        registry: &'a Registry,
        runtime: Handle,
        contexts: &[(String, NamedContext)],
    ) -> Self {
        let layouts = contexts.iter().filter_map(|(name, context)| match context {
            NamedContext::OciLayout { path, reference } => Some((
                Self::layout_reference(name),
                (path.clone(), reference.clone()),
            )),
            NamedContext::Directory(_) | NamedContext::Remote(_) | NamedContext::Image(_) => None,
        });
        Self {
            store,
            registry,
            runtime,
            layouts: layouts.collect(),
            resolved: Mutex::default(),
            asked: Mutex::default(),
            places: Mutex::default(),
            fetching: Mutex::default(),
        }
    }

    /// The reference by which a frontend asks for the OCI layout that is the named context `name`.
    pub fn layout_reference(name: &str) -> String {
        format!("oci-layout.invalid/{}", Digest::of(name.as_bytes()).short())
    }

    /// The registry client and the runtime it needs.
    pub fn registry(&self) -> (&Registry, &Handle) {
        (self.registry, &self.runtime)
    }

    /// Resolves a reference to the image for a platform.
    pub fn resolve(&self, reference: &str, platform: &Platform) -> Result<Arc<Image>, BuildError> {
        let key = (reference.to_owned(), platform.clone());
        if let Some(image) = lock(&self.asked).get(&key) {
            return Ok(image.clone());
        }
        let image = self.look_up(reference, platform)?;
        lock(&self.asked).insert(key, image.clone());
        Ok(image)
    }

    fn look_up(&self, reference: &str, platform: &Platform) -> Result<Arc<Image>, BuildError> {
        let (place, name, found) = match self.layouts.get(reference) {
            Some((path, wanted)) => {
                let (layout, found) = self.in_layout(path, wanted, platform)?;
                (Place::Layout(layout), reference.to_owned(), found)
            }
            None => {
                let parsed = parse_reference(reference)?;
                let found = self.in_registry(&parsed, platform)?;
                (Place::Registry(parsed.clone()), parsed.whole(), found)
            }
        };
        let (digest, manifest) = found;
        if let Some(image) = lock(&self.resolved).get(&digest) {
            return Ok(image.clone());
        }
        let image = Arc::new(self.load(name, digest, &manifest, &place)?);
        let mut places = lock(&self.places);
        for layer in &image.layers {
            places.insert(layer.digest, place.clone());
        }
        lock(&self.resolved).insert(digest, image.clone());
        Ok(image)
    }

    /// Returns the image that an operation names.
    pub fn get(&self, op: &ImageOp) -> Result<Arc<Image>, ImageError> {
        lock(&self.resolved)
            .get(&op.digest)
            .cloned()
            .ok_or_else(|| ImageError::Unknown {
                reference: op.reference.clone(),
                digest: op.digest,
            })
    }

    /// Returns its layers; their blobs need not be in the store.
    pub fn layers(&self, op: &ImageOp) -> Result<Vec<Layer>, ImageError> {
        Ok(self.get(op)?.layers.clone())
    }

    /// Says whether a blob can be fetched.
    pub fn knows(&self, digest: &Digest) -> bool {
        lock(&self.places).contains_key(digest)
    }

    /// The image that has this layer, by its diff id or by its blob.
    pub fn with_layer(&self, layer: Option<Digest>) -> Option<String> {
        let layer = layer?;
        lock(&self.resolved)
            .values()
            .find(|i| {
                i.layers
                    .iter()
                    .any(|l| l.diff_id == layer || l.digest == layer)
            })
            .map(|i| i.reference.clone())
    }

    /// The repository that a blob comes from, where it is in a registry.
    pub fn repository_of(&self, digest: &Digest) -> Option<Reference> {
        match lock(&self.places).get(digest) {
            Some(Place::Registry(reference)) => Some(reference.clone()),
            _ => None,
        }
    }

    /// Makes sure that the blobs of `layers` are in the store; those that are missing are fetched at the same time.
    pub fn fetch(
        &self,
        layers: &[Layer],
        session: &Session<'_>,
        step: StepId,
    ) -> Result<(), StepError> {
        let missing: Vec<_> = layers
            .iter()
            .filter(|l| !self.store.has_layers(&[**l]))
            .collect();
        std::thread::scope(|scope| {
            let fetches: Vec<_> = missing
                .into_iter()
                .map(|layer| scope.spawn(move || self.fetch_one(layer, session, step)))
                .collect();
            fetches.into_iter().try_for_each(|f| {
                f.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn fetch_one(
        &self,
        layer: &Layer,
        session: &Session<'_>,
        step: StepId,
    ) -> Result<(), StepError> {
        let turn = lock(&self.fetching)
            .entry(layer.digest)
            .or_default()
            .clone();
        let _turn = lock(&turn);
        if self.store.has_layers(&[*layer]) {
            return Ok(());
        }
        let place = lock(&self.places)
            .get(&layer.digest)
            .cloned()
            .ok_or(ImageError::LostLayer(layer.digest))?;
        match place {
            Place::Registry(reference) => self.pull(
                &reference,
                layer,
                session.transfer(step, "pull", layer.digest, layer.size),
                session.cancel,
            )?,
            Place::Layout(layout) => {
                let mut writer = self.store.blobs().writer()?;
                layout
                    .open(&layer.digest)
                    .and_then(|mut blob| std::io::copy(&mut blob, &mut writer))
                    .map_err(|e| StoreError::io("copy", "layer", e))?;
                writer.commit(Some((layer.digest, layer.size)))?;
            }
        }
        self.store
            .adopt_layer(layer.diff_id, layer.digest, layer.size, layer.compression)?;
        Ok(())
    }

    /// Streams a blob into the store; the store's writer stays on this thread, the network on its own.
    fn pull(
        &self,
        reference: &Reference,
        layer: &Layer,
        progress: Progress,
        cancel: &CancelToken,
    ) -> Result<(), StepError> {
        let (sender, pieces) = sync_channel(16);
        let (registry, reference, digest, size) = (
            self.registry.clone(),
            reference.clone(),
            layer.digest,
            layer.size,
        );
        let transfer = self.runtime.spawn(async move {
            registry
                .pull_blob(&reference, &digest, size, Pieces(sender), progress)
                .await
                .map(drop)
        });
        let written = self.write(&pieces, cancel);
        drop(pieces);
        if cancel.is_cancelled() {
            // It may be waiting for a registry that says nothing.
            transfer.abort();
            return written.and(Err(StoreError::Interrupted.into()));
        }
        let transferred = self
            .runtime
            .block_on(transfer)
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        // A store that takes no more (a full disk) is why the transfer ended then; a transfer that ends early by itself is
        // no error of the store.
        let written = written?;
        transferred?;
        written.commit(Some((layer.digest, layer.size)))?;
        Ok(())
    }

    fn write(
        &self,
        pieces: &Receiver<Vec<u8>>,
        cancel: &CancelToken,
    ) -> Result<stepwell_store::BlobWriter<'a>, StepError> {
        let mut writer = self.store.blobs().writer()?;
        while !cancel.is_cancelled() {
            match pieces.recv_timeout(LOOK_UP) {
                Ok(piece) => writer
                    .write_all(&piece)
                    .map_err(|e| StoreError::io("write", "blob", e))?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(writer)
    }

    fn in_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(Digest, Manifest), BuildError> {
        let mut digest: Digest = match reference.digest() {
            Some(pinned) => pinned.parse().map_err(ImageError::from)?,
            None => self
                .runtime
                .block_on(self.registry.head(reference))?
                .digest()
                .to_string()
                .parse()
                .map_err(ImageError::from)?,
        };
        for _ in 0..=stepwell_image::manifest::INDEX_DEPTH {
            let pinned = reference.clone_with_digest(digest.to_string());
            let (bytes, delivered) = match self.store.blobs().read(&digest, MANIFEST_LIMIT) {
                Ok(bytes) => (bytes, None),
                Err(_) => {
                    let found = self.runtime.block_on(self.registry.manifest(&pinned));
                    let found = found.map_err(|e| missing(reference, &digest, e))?;
                    self.store.blobs().put(&found.bytes)?;
                    (
                        found.bytes.to_vec(),
                        Some(found.descriptor.media_type().to_string()),
                    )
                }
            };
            match Document::parse(&bytes, delivered.as_deref())
                .map_err(|source| manifest_error(reference, source))?
            {
                Document::Manifest(manifest) => return Ok((digest, manifest)),
                Document::Index(index) => {
                    digest = index
                        .select(platform)
                        .map_err(|source| manifest_error(reference, source))?
                        .digest
                }
            }
        }
        Err(manifest_error(reference, stepwell_image::ManifestError::Depth).into())
    }

    fn in_layout(
        &self,
        path: &Path,
        wanted: &str,
        platform: &Platform,
    ) -> Result<(Arc<Layout>, (Digest, Manifest)), BuildError> {
        let fail = |source| ImageError::Layout {
            path: path.to_owned(),
            source,
        };
        let layout = Layout::open(path).map_err(fail)?;
        let image = layout.resolve(wanted, platform).map_err(fail)?;
        self.store.blobs().put(&image.config_bytes)?;
        Ok((Arc::new(layout), (image.descriptor.digest, image.manifest)))
    }

    fn load(
        &self,
        reference: String,
        digest: Digest,
        manifest: &Manifest,
        place: &Place,
    ) -> Result<Image, BuildError> {
        let bytes = self.configuration(manifest, place)?;
        let fail = |source| ImageError::Manifest {
            reference: reference.clone(),
            source,
        };
        let document = ImageDocument::parse(&bytes).map_err(fail)?;
        if document.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::LayerCount {
                reference,
                layers: manifest.layers.len(),
                diff_ids: document.diff_ids.len(),
            }
            .into());
        }
        let layers = manifest
            .layers
            .iter()
            .zip(&document.diff_ids)
            .map(|(descriptor, diff_id)| {
                let compression = descriptor.compression().map_err(fail)?;
                Ok(Layer {
                    diff_id: *diff_id,
                    digest: descriptor.digest,
                    size: descriptor.size,
                    compression,
                })
            });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        Ok(Image {
            reference,
            digest,
            platform: document.platform,
            config: document.config,
            created: document.created,
            history: document.history,
            layers,
        })
    }

    fn configuration(&self, manifest: &Manifest, place: &Place) -> Result<Vec<u8>, BuildError> {
        let config = &manifest.config;
        if let Ok(bytes) = self.store.blobs().read(&config.digest, CONFIG_LIMIT) {
            return Ok(bytes);
        }
        let bytes = match place {
            Place::Registry(reference) => self.runtime.block_on(self.registry.blob(
                reference,
                &config.digest,
                config.size,
                CONFIG_LIMIT,
            ))?,
            // The configuration of a layout's image was kept when it was resolved.
            Place::Layout(_) => return Err(ImageError::LostLayer(config.digest).into()),
        };
        self.store.blobs().put(&bytes)?;
        Ok(bytes)
    }
}

/// A manifest that is not there is the user's mistake only where the user wrote its digest.
fn missing(reference: &Reference, digest: &Digest, source: RegistryError) -> BuildError {
    let is_the_users = reference.digest() == Some(digest.to_string().as_str());
    if source.status() != Some(404) || is_the_users {
        return source.into();
    }
    ImageError::Inconsistent {
        reference: reference.whole(),
        digest: *digest,
        source,
    }
    .into()
}

fn manifest_error(reference: &Reference, source: stepwell_image::ManifestError) -> ImageError {
    ImageError::Manifest {
        reference: reference.whole(),
        source,
    }
}

/// Hands pieces of a stream to another thread.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.0.send(piece.to_vec()).map_err(|_| {
            std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the store takes no more")
        })?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
