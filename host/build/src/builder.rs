//! [`Builder`]: what outlives a single build, and the phases of one.

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use stepwell_model::event::{Event, EventSink};
use stepwell_model::inspection::{Argument, Supply, Target};
use stepwell_model::request::{Call, Isolation, Provenance, Request};
use stepwell_model::{Diagnostic, Digest, Graph, VertexId};
use stepwell_registry::{Registry, RegistryOptions};
use stepwell_steps::run::{CancelToken, TierChoice};
use stepwell_steps::source::StatCache;
use stepwell_store::{Ids, Store, StoreOptions};
use stepwell_sys::probe;
use stepwell_wasm::GuestEngine;

use crate::contexts::Contexts;
use crate::error::BuildError;
use crate::explain::{self, Explanation};
use crate::frontend::Read;
use crate::images::Images;
use crate::remote::Remotes;
use crate::session::{Layers, Session};
use crate::stages::Stages;
use crate::tier::Machine;
use crate::uploads::Uploads;
use crate::{drive, export, frontend, policy, provenance, tier};

/// Shorter pauses before a request is sent again are not told.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// What a builder is made with.
#[derive(Debug, Clone)]
pub struct BuilderOptions {
    /// Directory of the store.
    pub root: PathBuf,
    /// How registries are spoken to.
    pub registry: RegistryOptions,
    /// What RUN steps will ask for: those of tier `mediated` cannot hold the owners of files that a container's root can.
    pub isolation: Isolation,
}

/// Builds images.
pub struct Builder {
    store: Store,
    engine: GuestEngine,
    registry: Registry,
    runtime: tokio::runtime::Runtime,
    machine: Machine,
}

/// What is to be said of a definition that is not built.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Notes and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// What can be built, or the one target that was asked about.
    pub targets: Vec<Target>,
    /// What can be given to the build of the target.
    pub arguments: Vec<Argument>,
    /// Secrets and agents that steps of the target mount.
    pub supplies: Vec<Supply>,
}

/// What a build resulted in.
#[derive(Debug)]
pub struct Outcome {
    /// What each output wrote.
    pub exported: Vec<Exported>,
    /// The isolation of RUN steps, where one was carried out.
    pub tier: Option<TierChoice>,
    /// Whether there are RUN steps.
    pub has_run_step: bool,
    /// How it was made (SLSA's provenance), where that was asked for.
    pub provenance: Option<serde_json::Value>,
}

impl Outcome {
    /// The isolation of RUN steps with its reasons, as JSON.
    pub fn isolation(&self) -> serde_json::Value {
        tier::told(self.tier.as_ref(), self.has_run_step)
    }
}

/// What one output wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// An image.
    Image {
        /// Digest of the manifest.
        manifest: Digest,
        /// Media type of the manifest.
        media_type: String,
        /// Length of the manifest in bytes.
        size: u64,
        /// Digest of the configuration.
        config: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// Files.
    Files,
}

impl Builder {
    /// Opens the store; nobody is spoken to yet.
    pub fn new(options: BuilderOptions) -> Result<Self, BuildError> {
        let root = &options.root;
        std::fs::create_dir_all(root).map_err(|source| BuildError::Setup {
            operation: "make the directory of the store",
            source,
        })?;
        // The store and the steps have to agree on who holds the owners of files.
        let owners = options.isolation != Isolation::Mediated && probe::holds_real_owners(root);
        let ids = if owners || probe::holds_real_ids(root) {
            Ids::Real
        } else {
            Ids::Emulated
        };
        let store = Store::open(root, StoreOptions::new(ids))?;
        let engine =
            GuestEngine::new(Some(store.directory().join("guests"))).map_err(BuildError::Guest)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|source| BuildError::Setup {
                operation: "start the network threads",
                source,
            })?;
        let machine = Machine::new(store.directory().to_owned());
        Ok(Self {
            store,
            engine,
            registry: Registry::new(options.registry),
            runtime,
            machine,
        })
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Turns the definition into a graph and carries nothing out (`--print=graph`).
    pub fn graph(
        &self,
        request: &Request,
        events: &Arc<dyn EventSink>,
    ) -> Result<(Graph, Option<VertexId>), BuildError> {
        let cancel = cancel_token()?;
        let images = self.images(request);
        let remotes = self.remotes(request, &cancel);
        let contexts = Contexts::open(request, &remotes)?;
        let planned = self.plan(request, &contexts, &remotes, &images, events)?;
        Ok((planned.output.graph, planned.output.result))
    }

    /// Asks about the definition and builds nothing (`--call`).
    pub fn inspect(
        &self,
        request: &Request,
        call: Call,
        events: &Arc<dyn EventSink>,
    ) -> Result<Inspection, BuildError> {
        let cancel = cancel_token()?;
        let images = self.images(request);
        let remotes = self.remotes(request, &cancel);
        let contexts = Contexts::open(request, &remotes)?;
        let output = frontend::run(
            &self.engine,
            request,
            call,
            &contexts,
            &remotes,
            &images,
            events,
        )?
        .output;
        Ok(Inspection {
            diagnostics: output.diagnostics,
            targets: output.targets,
            arguments: output.arguments,
            supplies: output.supplies,
        })
    }

    /// Builds.
    pub fn build(
        &self,
        request: &Request,
        events: &Arc<dyn EventSink>,
        cancel: &CancelToken,
    ) -> Result<Outcome, BuildError> {
        self.with_session(request, events, cancel, |session, planned| {
            let has_run_step = tier::is_needed(session, planned.output.result);
            let layers = self.solve(session, planned)?;
            // All steps went well: whoever gives the build up now is the user, whatever fails for it.
            let exported = export::run(session, &planned.output, &layers).map_err(|e| {
                if cancel.is_cancelled() {
                    BuildError::Interrupted
                } else {
                    e
                }
            })?;
            let provenance = request.told_provenance.map(|mode| {
                let wanted = Provenance {
                    mode,
                    ..request.provenance.clone().unwrap_or_default()
                };
                provenance::predicate(session, planned.output.result, &wanted, clock())
            });
            Ok(Outcome {
                exported,
                tier: session.tier.get().cloned(),
                has_run_step,
                provenance,
            })
        })
    }

    /// Says why steps would not be reused.
    pub fn explain(
        &self,
        request: &Request,
        events: &Arc<dyn EventSink>,
    ) -> Result<Vec<Explanation>, BuildError> {
        let cancel = cancel_token()?;
        self.with_session(request, events, &cancel, |session, planned| {
            let Some(target) = planned.output.result else {
                return Ok(Vec::new());
            };
            let (context, decisions) = policy::plan(&self.engine, session)?;
            explain::run(session, target, &context, &decisions)
        })
    }

    fn with_session<T>(
        &self,
        request: &Request,
        events: &Arc<dyn EventSink>,
        cancel: &CancelToken,
        work: impl FnOnce(&Session<'_>, &Read) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let began = clock();
        self.store.heed(cancel.flag());
        let images = self.images(request);
        let remotes = self.remotes(request, cancel);
        let contexts = Contexts::open(request, &remotes)?;
        let planned = self.plan(request, &contexts, &remotes, &images, events)?;
        let stat_cache = StatCache::load(&self.store.directory().join("stat-cache"));
        let uploads = Uploads::new(request, &planned.output.graph, planned.output.result)?;
        let session = Session {
            request,
            store: &self.store,
            images: &images,
            contexts: &contexts,
            remotes: &remotes,
            graph: &planned.output.graph,
            events,
            cancel,
            stat_cache: &stat_cache,
            machine: &self.machine,
            tier: OnceLock::new(),
            stages: Stages::new(&self.store),
            uploads,
            source_date_epoch: request
                .source_date_epoch
                .or(planned.output.source_date_epoch),
            created: OnceLock::new(),
            selected: Mutex::default(),
            next_step: AtomicU32::new(planned.output.graph.len() as u32 + 1),
            definition: planned.place.clone(),
            definition_name: planned.name.clone(),
            began,
            invocation: invocation(began),
            attested: OnceLock::new(),
        };
        let result = work(&session, &planned);
        // A cache of digests that cannot be kept costs the next build time, and this one nothing.
        let _ = stat_cache.save();
        result
    }

    /// Tells when a registry is waited for: a build that stands still for no reason that is seen looks hung.
    fn tell_retries(&self, events: &Arc<dyn EventSink>) {
        let events = events.clone();
        self.registry.on_retry(Arc::new(move |error, pause| {
            if pause >= WORTH_TELLING {
                let text = format!("{error}; trying again in {:.0} s", pause.as_secs_f64());
                events.event(Event::Note { text });
            }
        }));
    }

    fn remotes<'a>(&'a self, request: &'a Request, cancel: &'a CancelToken) -> Remotes<'a> {
        let runtime = self.runtime.handle().clone();
        Remotes::new(&self.store, &self.registry, runtime, request, cancel)
    }

    fn images<'a>(&'a self, request: &Request) -> Images<'a> {
        Images::new(
            &self.store,
            &self.registry,
            self.runtime.handle().clone(),
            &request.named_contexts,
        )
    }

    fn plan(
        &self,
        request: &Request,
        contexts: &Contexts,
        remotes: &Remotes<'_>,
        images: &Images<'_>,
        events: &Arc<dyn EventSink>,
    ) -> Result<Read, BuildError> {
        self.tell_retries(events);
        frontend::run(
            &self.engine,
            request,
            Call::Build,
            contexts,
            remotes,
            images,
            events,
        )
    }

    fn solve(&self, session: &Session<'_>, planned: &Read) -> Result<Layers, BuildError> {
        let Some(target) = planned.output.result else {
            return Ok(Layers::default());
        };
        let (context, decisions) = policy::plan(&self.engine, session)?;
        drive::drive(session, target, &context, &decisions)
    }
}

/// The time, in seconds since 1970 and nanoseconds.
pub(crate) fn clock() -> provenance::Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or((0, 0), |d| {
        let secs = i64::try_from(d.as_secs()).unwrap_or(0);
        (secs, d.subsec_nanos())
    })
}

/// Tells one build from all others.
fn invocation(began: provenance::Time) -> String {
    let text = format!("{} {began:?}", std::process::id());
    Digest::of(text.as_bytes()).hex()[..25].to_owned()
}

fn cancel_token() -> Result<CancelToken, BuildError> {
    CancelToken::new().map_err(|e| BuildError::Setup {
        operation: "make an event descriptor",
        source: std::io::Error::other(e.to_string()),
    })
}
