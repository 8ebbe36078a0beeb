//! Running frontends: components that turn a definition into a build graph.
//!
//! A fresh instance serves each call.  What the guest imports is implemented in `frontend/imports/`, one file per
//! interface; what the caller has to bring is [`FrontendHost`].

mod bindings;
mod bridge;
mod host;
mod imports;
mod state;

use std::path::PathBuf;

use stepwell_model::inspection::{Argument, Supply, Target};
use stepwell_model::mount::Limit;
use stepwell_model::op::{HostEntry, Network};
use stepwell_model::request::{Call, GuestLimits};
use stepwell_model::{
    Diagnostic, Digest, Graph, History, ImageConfig, Platform, Severity, Span, VertexId,
};
use wasmtime::Store;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::error::Context as _;

use crate::builtin;
use crate::engine::{GuestEngine, Loaded, Starting, classify};
use crate::error::GuestError;
use crate::plain::plain;
use bindings::stepwell::frontend::types::Failure;
pub use host::{
    AccessError, DirectoryEntry, EntryKind, EntryStat, FrontendHost, ResolveError, ResolvedImage,
};
use state::State;

/// Name of the contract.
const WORLD: &str = "stepwell:frontend/frontend@0.1.0";

/// Where a frontend comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrontendSource {
    /// The Dockerfile frontend that is part of the program.
    BuiltinDockerfile,
    /// A component in a file.
    File(PathBuf),
}

/// What stands behind a named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextKind {
    /// A directory, which [`FrontendHost`] reads.
    Directory,
    /// An image: the text that [`FrontendHost::resolve_image`] gets.
    Image(String),
}

/// What a frontend reads: a Dockerfile, a recipe, …
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    /// Name of its file, for messages.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// What a frontend is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendInput {
    /// What is asked.
    pub call: Call,
    /// The ignore file of a definition that lies outside the main context.
    pub ignore_file: Option<Definition>,
    /// What the frontend reads.
    pub definition: Definition,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, in order.
    pub build_args: Vec<(String, String)>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--opt`, in order.
    pub options: Vec<(String, String)>,
    /// For what the result is.
    pub target_platform: Platform,
    /// What this machine is.
    pub build_platform: Platform,
    /// Contexts besides the main one, whose name is `""`.
    pub named_contexts: Vec<(String, ContextKind)>,
    /// `--add-host`.
    pub extra_hosts: Vec<HostEntry>,
    /// `--network`.
    pub network: Network,
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub limits: Vec<Limit>,
}

impl Default for FrontendInput {
    fn default() -> Self {
        Self {
            call: Call::Build,
            ignore_file: None,
            definition: Definition::default(),
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            options: Vec::new(),
            target_platform: Platform::host(),
            build_platform: Platform::host(),
            named_contexts: Vec::new(),
            extra_hosts: Vec::new(),
            network: Network::Default,
            shm_size: None,
            limits: Vec::new(),
        }
    }
}

/// What a frontend made of a definition.
#[derive(Debug, Clone)]
pub struct FrontendOutput {
    /// The whole graph.
    pub graph: Graph,
    /// The result's files; none means an empty image.
    pub result: Option<VertexId>,
    /// The result's configuration.
    pub config: ImageConfig,
    /// The result's history, from the oldest.
    pub history: Vec<History>,
    /// The time that new files and the image get where the user gives none, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Notes and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Answers [`Call::Targets`], and [`Call::Outline`] with the one target.
    pub targets: Vec<Target>,
    /// Answers [`Call::Outline`].
    pub arguments: Vec<Argument>,
    /// Secrets and agents that steps mount (`outline`).
    pub supplies: Vec<Supply>,
}

/// What a frontend says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Names under which a definition is looked for, the first one that exists is taken.
    pub definition_names: Vec<String>,
}

/// A frontend that is ready to be called; each call gets an instance of its own.
pub struct Frontend<'a> {
    engine: &'a GuestEngine,
    guest: Loaded,
    pre: bindings::FrontendPre<State>,
}

impl<'a> Frontend<'a> {
    /// Loads a frontend, and checks that it fits the contract.
    pub fn load(engine: &'a GuestEngine, source: &FrontendSource) -> Result<Self, GuestError> {
        let guest = match source {
            FrontendSource::BuiltinDockerfile => {
                engine.load_builtin("frontend", &builtin::DOCKERFILE)?
            }
            FrontendSource::File(path) => engine.load_file("frontend", path)?,
        };
        let mut linker = Linker::new(engine.engine());
        bindings::Frontend::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)
            .map_err(|e| GuestError::engine("link the frontend's imports", &e))?;
        if !guest.builtin {
            crate::wasi::link(&mut linker)?;
        }
        let pre = linker
            .instantiate_pre(&guest.component)
            .and_then(bindings::FrontendPre::new)
            .map_err(|e| GuestError::WrongWorld {
                guest: guest.name.clone(),
                world: WORLD,
                reason: format!("{e:#}"),
            })?;
        Ok(Self { engine, guest, pre })
    }

    /// Returns the digest of the component.
    pub fn digest(&self) -> Digest {
        self.guest.digest
    }

    /// Lists the interfaces and functions that the component imports.
    pub fn imports(&self) -> Vec<String> {
        crate::engine::imports(self.engine, &self.guest)
    }

    /// Asks the frontend what it is.
    pub fn describe(&self, limits: &GuestLimits) -> Result<Description, GuestError> {
        let state = State::new(FrontendInput::default(), limits, Box::new(host::Nothing));
        let mut store = self.engine.store(state);
        let answer = self.engine.interruptible(|| {
            let instance = self.pre.instantiate(&mut store).context(Starting)?;
            instance.stepwell_frontend_entry().call_describe(&mut store)
        });
        let handle = answer.map_err(|e| self.failed(&e, &mut store))?;
        let description = store.data_mut().table.delete(handle);
        description.map_err(|e| self.failed(&e.into(), &mut store))
    }

    /// Has the frontend turn a definition into a graph.  The guest runs on a thread of its own; `host` is called on
    /// this one.
    pub fn build(
        &self,
        input: &FrontendInput,
        limits: &GuestLimits,
        host: &mut dyn FrontendHost,
    ) -> Result<FrontendOutput, GuestError> {
        bridge::with_host(host, |bridge| {
            self.build_here(State::new(input.clone(), limits, Box::new(bridge)))
        })?
    }

    fn build_here(&self, state: State) -> Result<FrontendOutput, GuestError> {
        let mut store = self.engine.store(state);
        let answer = self.engine.interruptible(|| {
            let instance = self.pre.instantiate(&mut store).context(Starting)?;
            instance.stepwell_frontend_entry().call_build(&mut store)
        });
        match answer.map_err(|e| self.failed(&e, &mut store))? {
            Ok(handle) => {
                let image = store.data_mut().table.delete(handle);
                let image = image.map_err(|e| self.failed(&e.into(), &mut store))?;
                self.output(store.into_data(), image)
            }
            Err(Failure::Refused) => Err(refused(store.into_data().diagnostics)),
            Err(Failure::Broken(reason)) => Err(GuestError::GaveUp {
                guest: self.guest.name.clone(),
                reason: plain(reason),
                diagnostics: store.into_data().diagnostics,
            }),
        }
    }

    fn output(&self, state: State, image: state::Image) -> Result<FrontendOutput, GuestError> {
        // A frontend that reports an error and answers an image all the same does not get its way.
        if state
            .diagnostics
            .iter()
            .any(|d| d.severity == Severity::Error)
        {
            return Err(refused(state.diagnostics));
        }
        Ok(FrontendOutput {
            graph: state.graph.finish(),
            result: image.root,
            config: image.config,
            history: image.history,
            source_date_epoch: image.source_date_epoch,
            diagnostics: state.diagnostics,
            targets: state.targets,
            arguments: state.arguments,
            supplies: state.supplies,
        })
    }

    fn failed(&self, error: &wasmtime::Error, store: &mut Store<State>) -> GuestError {
        let state = store.data_mut();
        let diagnostics = std::mem::take(&mut state.diagnostics);
        classify(error, &self.guest.name, &state.wasi.printed(), diagnostics)
    }
}

/// A refusal has a reason, even if the frontend forgot to give one.
fn refused(mut diagnostics: Vec<Diagnostic>) -> GuestError {
    if !diagnostics.iter().any(|d| d.severity == Severity::Error) {
        diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: "Refused".into(),
            message: "the frontend refused the definition and does not say why".into(),
            file: String::new(),
            span: Span::default(),
            source: String::new(),
            hint: String::new(),
        });
    }
    GuestError::Refused { diagnostics }
}
