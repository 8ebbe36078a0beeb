//! Layers are pushed while the steps after them run, so that what is left at the end is the last layer and the manifest.
//!
//! Only a try: whatever of it fails is pushed again at the end, where failures are told.  Where the build ends
//! without an image, what is still being sent is given up.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use stepwell_model::event::StepId;
use stepwell_model::request::{ImageOptions, Output, Request};
use stepwell_model::{Digest, Graph, Op, Reference, VertexId};
use stepwell_registry::{BlobSource, Progress, RegistryError};
use stepwell_store::{Compression, Layer};
use tokio::task::JoinHandle;

use crate::error::BuildError;
use crate::frontend::parse_reference;
use crate::session::{OpenStep, Session, lock};

/// The names that an image gets.
pub fn names(request: &Request, options: &ImageOptions) -> Result<Vec<Reference>, BuildError> {
    let names = if options.names.is_empty() {
        &request.tags
    } else {
        &options.names
    };
    let names = names.iter().map(|n| parse_reference(n));
    Ok(names.collect::<Result<_, _>>()?)
}

/// The input whose files a vertex changes, where it has one.
pub fn base_of(graph: &Graph, vertex: VertexId) -> Option<VertexId> {
    let v = graph.vertex(vertex);
    match &v.op {
        Op::Image(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => None,
        Op::Run(_) | Op::Merge(_) => v.inputs.first().copied(),
        Op::Files(files) => files.base.and_then(|i| v.inputs.get(i as usize)).copied(),
    }
}

/// What is pushed before the build is done.
pub struct Uploads {
    pushes: Vec<Push>,
    /// The vertices whose layers are the result's.
    chain: Vec<VertexId>,
}

/// The push to one name.
struct Push {
    name: Reference,
    compression: Compression,
    step: Mutex<Option<OpenStep>>,
    running: Mutex<HashMap<Digest, JoinHandle<Result<(), RegistryError>>>>,
}

impl Uploads {
    /// Finds out what will be pushed to where; nothing is sent yet.
    pub fn new(
        request: &Request,
        graph: &Graph,
        result: Option<VertexId>,
    ) -> Result<Self, BuildError> {
        let mut pushes: Vec<Push> = Vec::new();
        for output in &request.outputs {
            let Output::Image { push: true, image } = output else {
                continue;
            };
            for name in names(request, image)? {
                // Two tags of one repository share its blobs.
                if pushes.iter().any(|p| p.is_to(&name)) {
                    continue;
                }
                pushes.push(Push {
                    name,
                    compression: image.compression,
                    step: Mutex::default(),
                    running: Mutex::default(),
                });
            }
        }
        let chain = std::iter::successors(result, |v| base_of(graph, *v)).collect();
        Ok(Self { pushes, chain })
    }

    /// Begins to push what a step that was carried out has made, and what is below it; the base's layers may be in the registry
    /// already, which is seen at the end.
    pub fn begin(&self, session: &Session<'_>, vertex: VertexId, layers: &[Layer]) {
        // The last one is followed by the push itself.
        let is_inner = self.chain.iter().skip(1).any(|v| *v == vertex);
        if !is_inner {
            return;
        }
        for push in &self.pushes {
            for layer in layers {
                let is_ready = layer.compression == push.compression
                    && session.images.repository_of(&layer.digest).is_none()
                    && session.store.blobs().has(&layer.digest, Some(layer.size));
                if is_ready {
                    push.begin(session, layer);
                }
            }
        }
    }

    /// The step under which a push to `name` is told: that which began already, or a new one.
    pub fn step(&self, session: &Session<'_>, name: &Reference) -> OpenStep {
        let mut begun = self.pushes.iter().filter(|p| p.name == *name);
        begun
            .find_map(|p| lock(&p.step).take())
            .unwrap_or_else(|| open(session, name))
    }

    /// Waits for the push of a blob, if it was begun; says whether the registry has it.
    pub fn is_done(&self, session: &Session<'_>, name: &Reference, digest: &Digest) -> bool {
        let mut begun = self.pushes.iter().filter(|p| p.is_to(name));
        let Some(running) = begun.find_map(|p| lock(&p.running).remove(digest)) else {
            return false;
        };
        let (_, runtime) = session.images.registry();
        matches!(runtime.block_on(running), Ok(Ok(())))
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        for push in &self.pushes {
            lock(&push.running).values().for_each(JoinHandle::abort);
        }
    }
}

impl Push {
    fn is_to(&self, name: &Reference) -> bool {
        (self.name.registry(), self.name.repository()) == (name.registry(), name.repository())
    }

    fn begin(&self, session: &Session<'_>, layer: &Layer) {
        let mut running = lock(&self.running);
        if running.contains_key(&layer.digest) {
            return;
        }
        let step = lock(&self.step)
            .get_or_insert_with(|| open(session, &self.name))
            .id();
        let (registry, runtime) = session.images.registry();
        let blob = Blob::new(session, step, layer.digest, layer.size);
        let (registry, name) = (registry.clone(), self.name.clone());
        running.insert(
            layer.digest,
            runtime.spawn(async move { blob.push(&registry, &name, &[]).await }),
        );
    }
}

/// A blob of the store on its way to a registry.
pub struct Blob {
    digest: Digest,
    size: u64,
    source: BlobSource,
    progress: Progress,
}

impl Blob {
    /// A blob that the store has.
    pub fn new(session: &Session<'_>, step: StepId, digest: Digest, size: u64) -> Self {
        let path = session.store.blobs().path(&digest);
        Self {
            digest,
            size,
            source: Arc::new(move || {
                Ok(Box::new(std::fs::File::open(&path)?) as Box<dyn Read + Send>)
            }),
            progress: session.transfer(step, "push", digest, size),
        }
    }

    /// Sends it, unless the registry has it or can take it from one of the repositories `from`.
    pub async fn push(
        self,
        registry: &stepwell_registry::Registry,
        name: &Reference,
        from: &[Reference],
    ) -> Result<(), RegistryError> {
        let (size, told) = (self.size, self.progress.clone());
        // What was sent is not there yet: the registry may still refuse it, and then all is sent again.
        let sent: Progress = Arc::new(move |done| told(done.min(size.saturating_sub(1))));
        registry
            .push_blob(name, &self.digest, size, self.source, from, sent)
            .await?;
        (self.progress)(size);
        Ok(())
    }
}

fn open(session: &Session<'_>, name: &Reference) -> OpenStep {
    session.open_step(format!("pushing {}", name.whole()))
}
