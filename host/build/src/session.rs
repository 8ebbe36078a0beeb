//! One build while it runs: what all its steps share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use stepwell_model::event::{Event, EventSink, StepId, StepOutcome};
use stepwell_model::op::FilesOp;
use stepwell_model::request::{Output, Request};
use stepwell_model::{Digest, Graph, Op, VertexId};
use stepwell_registry::Progress;
use stepwell_steps::files::{self, Selected};
use stepwell_steps::run::{CancelToken, TierChoice};
use stepwell_steps::source::{SourceError, SourceTree, StatCache};
use stepwell_store::{Compression, Layer, LayerOptions, Record, Store};

use crate::contexts::Contexts;
use crate::error::{BuildError, StepError};
use crate::images::Images;
use crate::names;
use crate::provenance::Time;
use crate::remote::{RemoteError, Remotes};
use crate::stages::Stages;
use crate::tier::Machine;
use crate::uploads::Uploads;

/// Transfers are told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What all steps of a build share.
pub struct Session<'a> {
    pub request: &'a Request,
    pub store: &'a Store,
    pub images: &'a Images<'a>,
    pub contexts: &'a Contexts,
    pub remotes: &'a Remotes<'a>,
    pub graph: &'a Graph,
    pub events: &'a Arc<dyn EventSink>,
    pub cancel: &'a CancelToken,
    pub stat_cache: &'a StatCache,
    pub machine: &'a Machine,
    /// The tier of this build; found out when the first RUN step needs one.
    pub tier: OnceLock<TierChoice>,
    /// Checkouts of stages that files are copied from.
    pub stages: Stages<'a>,
    /// What is pushed while steps run.
    pub uploads: Uploads,
    /// The time that new files and images get: the user's, else the definition's; in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// When the result was made, in seconds since 1970; told when it is there.
    pub created: OnceLock<u64>,
    /// Numbers of steps that are no vertices.
    pub next_step: AtomicU32,
    /// Digests of the files that vertices select from contexts.
    pub selected: Mutex<HashMap<(VertexId, u32), Digest>>,
    /// Where the definition is, for slots.
    pub definition: String,
    /// What it is called.
    pub definition_name: String,
    /// When the build began.
    pub began: Time,
    /// Tells it from all other builds.
    pub invocation: String,
    /// What is said of it beside images; the same for all outputs.
    pub attested: OnceLock<serde_json::Value>,
}

impl Session<'_> {
    /// How new layers are written.
    pub fn layer_options(&self) -> LayerOptions {
        let image = self.request.outputs.iter().find_map(|o| match o {
            Output::Image { image, .. } | Output::Oci { image, .. } => Some(image),
            Output::Docker { .. } | Output::Local { .. } | Output::Tar { .. } => None,
        });
        LayerOptions {
            compression: image.map_or(Compression::Gzip, |i| i.compression),
            level: image.and_then(|i| i.level),
            clamp_mtime: self.source_date_epoch,
            threads: self.request.jobs,
        }
    }

    /// Returns the digest of the files that the vertex selects from its input `input`.
    pub fn selection(
        &self,
        vertex: VertexId,
        input: u32,
        tree: &SourceTree,
    ) -> Result<Digest, BuildError> {
        self.selection_of(vertex, input, tree)
            .map_err(|e| self.step_error(vertex, e))
    }

    fn selection_of(
        &self,
        vertex: VertexId,
        input: u32,
        tree: &SourceTree,
    ) -> Result<Digest, StepError> {
        self.with_selection(vertex, input, tree, |selected| {
            Ok(selected.digest(self.stat_cache)?)
        })
    }

    /// Lists the files that the vertex selects from the context `input`.
    pub fn listing(
        &self,
        vertex: VertexId,
        input: u32,
    ) -> Result<Vec<(String, Digest)>, BuildError> {
        let Op::Context(op) = &self
            .graph
            .vertex(self.graph.vertex(vertex).inputs[input as usize])
            .op
        else {
            return Ok(Vec::new());
        };
        let list = || {
            self.with_selection(
                vertex,
                input,
                &self.contexts.tree(op, self.remotes)?,
                |selected| Ok(selected.listing(self.stat_cache)?),
            )
        };
        list().map_err(|e: StepError| self.step_error(vertex, e))
    }

    /// Digests of the files that the vertex selects from contexts, by input.
    pub fn selected_by(&self, vertex: VertexId) -> Vec<(u32, Digest)> {
        lock(&self.selected)
            .iter()
            .filter(|((v, _), _)| *v == vertex)
            .map(|((_, input), digest)| (*input, *digest))
            .collect()
    }

    /// Works with what the copy actions of the vertex that read `input` select from `tree`.
    fn with_selection<T>(
        &self,
        vertex: VertexId,
        input: u32,
        tree: &SourceTree,
        work: impl FnOnce(&Selected<'_>) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        let v = self.graph.vertex(vertex);
        let actions = match &v.op {
            Op::Files(op) => op
                .actions
                .iter()
                .filter(|a| reads(a, input))
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        let only = FilesOp {
            base: None,
            actions,
        };
        let trees: Vec<_> = (0..v.inputs.len() as u32)
            .map(|i| (i == input).then(|| tree.clone()))
            .collect();
        work(&files::select(&only, &trees)?)
    }

    /// Returns the inputs that a vertex selects files from, which are not its base.
    pub fn selecting(&self, vertex: VertexId) -> Vec<u32> {
        match &self.graph.vertex(vertex).op {
            Op::Files(op) => (0..self.graph.vertex(vertex).inputs.len() as u32)
                .filter(|i| op.actions.iter().any(|a| reads(a, *i)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Computes the digests of all files that the vertices select from contexts.
    pub fn select_all(
        &self,
        needed: &[VertexId],
    ) -> Result<HashMap<(VertexId, u32), Digest>, BuildError> {
        let mut wanted = Vec::new();
        for &vertex in needed {
            for input in self.selecting(vertex) {
                if let Op::Context(op) = &self
                    .graph
                    .vertex(self.graph.vertex(vertex).inputs[input as usize])
                    .op
                {
                    wanted.push((vertex, input, op));
                }
            }
        }
        let selected = wanted.into_iter().map(|(vertex, input, op)| {
            let tree = self
                .contexts
                .tree(op, self.remotes)
                .map_err(|e| self.step_error(vertex, e))?;
            Ok(((vertex, input), self.selection(vertex, input, &tree)?))
        });
        let selected: HashMap<_, _> = selected.collect::<Result<_, BuildError>>()?;
        *lock(&self.selected) = selected.clone();
        Ok(selected)
    }

    /// Finds out what is behind the addresses that vertices take something from, several at a time.
    pub fn identify_all(
        &self,
        needed: &[VertexId],
    ) -> Result<HashMap<VertexId, Digest>, BuildError> {
        let remote: Vec<VertexId> = needed
            .iter()
            .copied()
            .filter(|v| names::is_remote(&self.graph.vertex(*v).op))
            .collect();
        type Found = (VertexId, Result<Option<Digest>, RemoteError>);
        let next = AtomicU32::new(0);
        let found: Mutex<Vec<Found>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..self.request.jobs.min(remote.len()) {
                scope.spawn(|| {
                    while let Some(vertex) =
                        remote.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                    {
                        let step = step_id(*vertex);
                        let tell = self.fetching(step);
                        let identity = self.remotes.identify(&self.graph.vertex(*vertex).op, &tell);
                        lock(&found).push((*vertex, identity));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Which one is told of where several fail does not depend on which was quicker.
        found.sort_by_key(|(vertex, _)| *vertex);
        let mut identities = HashMap::new();
        for (vertex, identity) in found {
            let identity = identity.map_err(|e| self.step_error(vertex, e.into()))?;
            identities.extend(identity.map(|digest| (vertex, digest)));
        }
        Ok(identities)
    }

    /// Tells how much of something from elsewhere has come.
    pub fn fetching(&self, step: StepId) -> impl Fn(u64, Option<u64>) + Sync {
        let (events, last) = (self.events.clone(), Mutex::new(None::<Instant>));
        move |done, total| {
            let mut last = lock(&last);
            if Some(done) == total || last.is_none_or(|l| l.elapsed() > TELL_EVERY) {
                *last = Some(Instant::now());
                events.event(Event::Transfer {
                    step,
                    id: "download".to_owned(),
                    verb: "fetch".to_owned(),
                    done,
                    total,
                });
            }
        }
    }

    /// Makes sure that a context's files are still those that the vertex has its key for: else their layer would be kept under
    /// the key of other files.
    pub fn check_unchanged(
        &self,
        vertex: VertexId,
        trees: &[Option<SourceTree>],
    ) -> Result<(), StepError> {
        let known = lock(&self.selected);
        for (index, tree) in trees.iter().enumerate() {
            let (Some(tree), Some(before)) = (tree, known.get(&(vertex, index as u32))) else {
                continue;
            };
            if self.selection_of(vertex, index as u32, tree)? != *before {
                return Err(SourceError::Changed {
                    path: names::of(self.graph.vertex(vertex)),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Wraps what went wrong with a step.
    pub fn step_error(&self, vertex: VertexId, source: StepError) -> BuildError {
        let v = self.graph.vertex(vertex);
        if let StepError::Remote(RemoteError::Interrupted) = source {
            return BuildError::Interrupted;
        }
        let source = match source {
            StepError::Store(source) => match self.images.with_layer(source.broken_layer()) {
                Some(image) => StepError::Broken {
                    image,
                    source: Box::new(source),
                },
                None => StepError::Store(source),
            },
            other => other,
        };
        BuildError::StepSetup {
            step: names::of(v),
            origin: v.origin.clone().map(Box::new),
            source: Box::new(source),
        }
    }

    /// Tells that a step began; the guard tells how it ended.
    pub fn begin(&self, vertex: VertexId) -> Instant {
        self.events.event(Event::Started {
            step: step_id(vertex),
        });
        Instant::now()
    }

    /// Tells how a step ended.
    pub fn end(&self, vertex: VertexId, began: Option<Instant>, outcome: StepOutcome) {
        let millis = began.map_or(0, |b| b.elapsed().as_millis() as u64);
        self.events.event(Event::Finished {
            step: step_id(vertex),
            outcome,
            millis,
        });
    }

    /// Returns a function that tells how many bytes of a transfer are done; not more often than a person can see.
    pub fn transfer(
        &self,
        step: StepId,
        verb: &'static str,
        digest: Digest,
        total: u64,
    ) -> Progress {
        let (events, last) = (self.events.clone(), Mutex::new(None::<Instant>));
        Arc::new(move |done| {
            let mut last = lock(&last);
            if done == total || last.is_none_or(|l| l.elapsed() > TELL_EVERY) {
                *last = Some(Instant::now());
                events.event(Event::Transfer {
                    step,
                    id: digest.short(),
                    verb: verb.to_owned(),
                    done,
                    total: Some(total),
                });
            }
        })
    }

    /// Tells that a step began that is no vertex.
    pub fn open_step(&self, name: String) -> OpenStep {
        let id = StepId(self.next_step.fetch_add(1, Ordering::Relaxed));
        self.events.event(Event::Step {
            step: id,
            name,
            digest: None,
            origin: None,
        });
        self.events.event(Event::Started { step: id });
        OpenStep {
            id,
            began: Instant::now(),
            events: self.events.clone(),
            outcome: StepOutcome::Cancelled,
        }
    }

    /// Carries out a step that is no vertex, and tells how it goes.
    pub fn extra_step<T>(
        &self,
        name: String,
        work: impl FnOnce(StepId) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        self.open_step(name).carry_out(work)
    }

    /// Hears how far the unpacking of a tree for a step is.
    pub fn unpacking(&self, step: StepId) -> impl Fn(u64, u64) + Sync {
        let (events, last) = (self.events.clone(), Mutex::new(None::<Instant>));
        move |done, total| {
            let mut last = lock(&last);
            if done == total || last.is_none_or(|l| l.elapsed() > TELL_EVERY) {
                *last = Some(Instant::now());
                events.event(Event::Transfer {
                    step,
                    id: "tree".to_owned(),
                    verb: "unpack".to_owned(),
                    done,
                    total: Some(total),
                });
            }
        }
    }

    /// Says whether a record's layers can still be had.
    pub fn has(&self, record: &Record) -> bool {
        record
            .layers
            .iter()
            .all(|l| self.store.has_layers(&[*l]) || self.images.knows(&l.digest))
    }
}

/// A step that is no vertex, from its begin on; what is dropped without having been carried out is told as cancelled.
pub struct OpenStep {
    id: StepId,
    began: Instant,
    events: Arc<dyn EventSink>,
    outcome: StepOutcome,
}

impl OpenStep {
    /// Its number.
    pub fn id(&self) -> StepId {
        self.id
    }

    /// Does the work of the step.
    pub fn carry_out<T>(
        mut self,
        work: impl FnOnce(StepId) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let result = work(self.id);
        self.outcome = match &result {
            Ok(_) => StepOutcome::Done,
            Err(error) => StepOutcome::Failed {
                message: error.to_string(),
            },
        };
        result
    }
}

impl Drop for OpenStep {
    fn drop(&mut self) {
        self.events.event(Event::Finished {
            step: self.id,
            outcome: self.outcome.clone(),
            millis: self.began.elapsed().as_millis() as u64,
        });
    }
}

/// Number of the step that a vertex is.
pub fn step_id(vertex: VertexId) -> StepId {
    StepId(vertex.0 + 1)
}

fn reads(action: &stepwell_model::op::FileAction, input: u32) -> bool {
    matches!(action, stepwell_model::op::FileAction::Copy(copy) if copy.from == input)
}

/// The time, in seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// The layers of a vertex, bottom first.
pub type Layers = Arc<Vec<Layer>>;

/// A lock that a panicking thread left is still good: everything behind these locks is replaced as a whole.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
