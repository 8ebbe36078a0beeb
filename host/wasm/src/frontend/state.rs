//! What the host keeps of one running frontend.

use std::collections::BTreeSet;
use std::time::Instant;

use stepwell_model::inspection::{Argument, Supply, Target};
use stepwell_model::mount;
use stepwell_model::op::{CopyAction, FilesOp, RunOp};
use stepwell_model::request::GuestLimits;
use stepwell_model::{Diagnostic, Digest, GraphBuilder, History, ImageConfig, Origin, VertexId};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::{AccessError, ContextKind, FrontendHost, FrontendInput};
use crate::engine::{Metered, meter};
use crate::limits::{self, Meter};
use crate::wasi::EmptyWasi;

/// Data of the store.
pub struct State {
    pub input: FrontendInput,
    pub host: Box<dyn FrontendHost + Send>,
    pub meter: Meter,
    pub table: ResourceTable,
    pub graph: GraphBuilder,
    /// What `images.resolve` answered: only these images may be used.
    pub resolved: BTreeSet<(String, Digest)>,
    /// Contexts that can be read without waiting for anybody.
    pub opened: BTreeSet<String>,
    pub diagnostics: Vec<Diagnostic>,
    pub targets: Vec<Target>,
    pub arguments: Vec<Argument>,
    pub supplies: Vec<Supply>,
    pub wasi: EmptyWasi,
}

/// A run operation in the making.
pub struct Run {
    pub root: VertexId,
    /// Its mounts are in `mounts` until it is finished.
    pub op: RunOp,
    pub mounts: Vec<Mount>,
}

/// A mount in the making.
pub struct Mount {
    /// Its inputs are not numbered yet: see `from`.
    pub mount: mount::Mount,
    /// Whose files a bind shows or a cache begins with.
    pub from: Option<VertexId>,
}

/// A copy in the making.
pub struct Copy {
    pub from: VertexId,
    pub action: CopyAction,
}

/// A files operation in the making; `op` refers to `inputs`.
pub struct Files {
    pub inputs: Vec<VertexId>,
    pub op: FilesOp,
}

/// A result in the making.
pub struct Image {
    pub root: Option<VertexId>,
    pub config: ImageConfig,
    pub history: Vec<History>,
    pub source_date_epoch: Option<i64>,
}

impl State {
    pub fn new(
        input: FrontendInput,
        limits: &GuestLimits,
        host: Box<dyn FrontendHost + Send>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::HANDLES);
        Self {
            input,
            host,
            meter: meter(limits),
            table,
            graph: GraphBuilder::new(limits.vertices),
            resolved: BTreeSet::new(),
            opened: BTreeSet::new(),
            diagnostics: Vec::new(),
            targets: Vec::new(),
            arguments: Vec::new(),
            supplies: Vec::new(),
            wasi: EmptyWasi::new(),
        }
    }

    /// Makes a context ready to be read, the first time that it is asked for; what that takes is not the guest's time.
    pub fn open(&mut self, name: &str) -> Result<(), AccessError> {
        if !self.is_directory(name) {
            return Err(AccessError::UnknownContext);
        }
        if self.opened.contains(name) {
            return Ok(());
        }
        let started = Instant::now();
        let opened = self.host.open_context(name);
        self.meter.exclude(started.elapsed());
        opened?;
        self.opened.insert(name.to_owned());
        Ok(())
    }

    /// Says whether `name` is a context that can be read.
    pub fn is_directory(&self, name: &str) -> bool {
        let named =
            |(n, kind): &(String, ContextKind)| n == name && *kind == ContextKind::Directory;
        name.is_empty() || self.input.named_contexts.iter().any(named)
    }
}

impl Metered for State {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi.ctx,
            table: &mut self.table,
        }
    }
}

/// Bytes that a few texts take in the host's memory, about: an empty one is not free.
pub fn size<'a>(texts: impl IntoIterator<Item = &'a (impl AsRef<[u8]> + ?Sized + 'a)>) -> usize {
    texts.into_iter().map(|t| t.as_ref().len() + 24).sum()
}

/// Bytes that an origin takes in the host's memory, about.
pub fn size_of_origin(origin: Option<&Origin>) -> usize {
    origin.map_or(0, |o| size([&o.file, &o.text, &o.stage]) + 16)
}
