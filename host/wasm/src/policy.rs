//! Running cache policies: components that decide on reuse and eviction, and that import nothing at all.
//!
//! A fresh instance serves each call; there is one call per build.  How an operation looks to a policy is in
//! [`attributes`]; what becomes of the decisions is the business of `stepwell-solve`.

pub mod attributes;
mod bindings;

use std::path::PathBuf;

use stepwell_model::request::GuestLimits;
use stepwell_model::{Digest, Graph};
use wasmtime::component::Linker;
use wasmtime::error::Context as _;

use crate::builtin;
use crate::engine::{GuestEngine, Loaded, Metered, Starting, classify, meter};
use crate::error::GuestError;
use crate::limits::Meter;
use crate::wasi::EmptyWasi;
use bindings::exports::stepwell::cache_policy::policy as wit;

/// Name of the contract.
const WORLD: &str = "stepwell:cache-policy/cache-policy@0.1.0";

/// Where a policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// The default policy, which is part of the program.
    Builtin,
    /// A component in a file.
    File(PathBuf),
}

/// What a policy says of one vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The operation, reduced to what matters for its result.
    pub normal_form: Vec<u8>,
    /// Whether an earlier result may be taken.
    pub reuse: bool,
    /// Whether the content key is tried after the definition key missed.
    pub content_key: bool,
    /// Largest age of a reused result, in seconds.
    pub ttl: Option<u64>,
    /// Whether the result goes into an exported cache.
    pub export: bool,
}

/// What kind of operation a result is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// An image.
    Image,
    /// A context.
    Context,
    /// A command that was run.
    Run,
    /// Files that were made.
    Files,
    /// Layers on top of each other.
    Merge,
    /// Anything else that is kept, for example an unpacked tree.
    Other,
}

/// A result that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Of what kind of operation.
    pub operation: Operation,
    /// In bytes, without what others share.
    pub size: u64,
    /// In seconds since 1970.
    pub created: u64,
    /// In seconds since 1970.
    pub last_used: u64,
    /// How often it was used.
    pub uses: u64,
    /// What else is known of it.
    pub attributes: Vec<(String, String)>,
}

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// The time, in seconds since 1970.
    pub now: u64,
    /// In bytes.
    pub size: Option<u64>,
    /// Since the last use, in seconds.
    pub age: Option<u64>,
}

/// A policy that is ready to be called; each call gets an instance of its own.
pub struct Policy<'a> {
    engine: &'a GuestEngine,
    guest: Loaded,
    pre: bindings::CachePolicyPre<State>,
}

/// Data of the store.
struct State {
    meter: Meter,
    wasi: EmptyWasi,
    table: wasmtime::component::ResourceTable,
}

impl Metered for State {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl wasmtime_wasi::WasiView for State {
    fn ctx(&mut self) -> wasmtime_wasi::WasiCtxView<'_> {
        wasmtime_wasi::WasiCtxView {
            ctx: &mut self.wasi.ctx,
            table: &mut self.table,
        }
    }
}

impl<'a> Policy<'a> {
    /// Loads a policy, and checks that it fits the contract.
    pub fn load(engine: &'a GuestEngine, source: &PolicySource) -> Result<Self, GuestError> {
        let guest = match source {
            PolicySource::Builtin => engine.load_builtin("cache policy", &builtin::CACHE_POLICY)?,
            PolicySource::File(path) => engine.load_file("cache policy", path)?,
        };
        let mut linker = Linker::new(engine.engine());
        if !guest.builtin {
            crate::wasi::link(&mut linker)?;
        }
        let pre = linker
            .instantiate_pre(&guest.component)
            .and_then(bindings::CachePolicyPre::new)
            .map_err(|e| GuestError::WrongWorld {
                guest: guest.name.clone(),
                world: WORLD,
                reason: format!("{e:#}"),
            })?;
        Ok(Self { engine, guest, pre })
    }

    /// Loads the default policy.
    pub fn builtin(engine: &'a GuestEngine) -> Result<Self, GuestError> {
        Self::load(engine, &PolicySource::Builtin)
    }

    /// Returns the digest of the component, which is part of every cache key.
    pub fn digest(&self) -> Digest {
        self.guest.digest
    }

    /// Lists the interfaces and functions that the component imports.
    pub fn imports(&self) -> Vec<String> {
        crate::engine::imports(self.engine, &self.guest)
    }

    /// Asks the policy for its name and version.
    pub fn describe(&self, limits: &GuestLimits) -> Result<(String, String), GuestError> {
        let about = self.call(limits, |policy, store| policy.call_describe(store))?;
        Ok((about.name, about.version))
    }

    /// Has the policy decide on all vertices of a graph, in the graph's order.  `settings` are those of the build, for
    /// example `no-cache` = `true`.
    pub fn plan(
        &self,
        graph: &Graph,
        limits: &GuestLimits,
        settings: &[(String, String)],
    ) -> Result<Vec<Decision>, GuestError> {
        let settings: Vec<_> = settings.iter().map(attribute_to).collect();
        let steps: Vec<_> = graph.iter().map(|(_, v)| attributes::step(v)).collect();
        let decisions = self.call(limits, |policy, store| {
            policy.call_plan(store, &settings, &steps)
        })?;
        if decisions.len() != steps.len() {
            return Err(self.bad_answer(format!(
                "{} decisions on {} steps",
                decisions.len(),
                steps.len()
            )));
        }
        Ok(decisions.into_iter().map(decision_from).collect())
    }

    /// Has the policy choose the results that go, so that the rest keeps the budget; returns their indices in ascending
    /// order.
    pub fn retain(
        &self,
        budget: Budget,
        results: &[RecordInfo],
        limits: &GuestLimits,
    ) -> Result<Vec<usize>, GuestError> {
        let budget = wit::Budget {
            now: budget.now,
            size: budget.size,
            age: budget.age,
        };
        let kept: Vec<_> = results.iter().map(kept_to).collect();
        let gone = self.call(limits, |policy, store| {
            policy.call_retain(store, budget, &kept)
        })?;
        let mut gone: Vec<usize> = gone.into_iter().map(|i| i as usize).collect();
        gone.sort_unstable();
        gone.dedup();
        match gone.last() {
            Some(last) if *last >= results.len() => {
                Err(self.bad_answer(format!("result {last} of {}", results.len())))
            }
            _ => Ok(gone),
        }
    }

    fn call<R>(
        &self,
        limits: &GuestLimits,
        call: impl FnOnce(&wit::Guest, &mut wasmtime::Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, GuestError> {
        let mut store = self.engine.store(State {
            meter: meter(limits),
            wasi: EmptyWasi::new(),
            table: wasmtime::component::ResourceTable::new(),
        });
        let answer = self.engine.interruptible(|| {
            let instance = self.pre.instantiate(&mut store).context(Starting)?;
            call(instance.stepwell_cache_policy_policy(), &mut store)
        });
        answer.map_err(|e| {
            let printed = store.data().wasi.printed();
            classify(&e, &self.guest.name, &printed, Vec::new())
        })
    }

    fn bad_answer(&self, reason: String) -> GuestError {
        GuestError::BadAnswer {
            guest: self.guest.name.clone(),
            reason,
        }
    }
}

fn attribute_to((name, value): &(String, String)) -> wit::Attribute {
    wit::Attribute {
        name: name.clone(),
        value: value.clone(),
    }
}

fn decision_from(d: wit::Decision) -> Decision {
    Decision {
        normal_form: d.normal_form,
        reuse: d.reuse,
        content_key: d.content_key,
        ttl: d.ttl,
        export: d.export,
    }
}

fn kept_to(record: &RecordInfo) -> wit::Kept {
    wit::Kept {
        operation: match record.operation {
            Operation::Image => wit::Operation::Image,
            Operation::Context => wit::Operation::Context,
            Operation::Run => wit::Operation::Run,
            Operation::Files => wit::Operation::Files,
            Operation::Merge => wit::Operation::Merge,
            Operation::Other => wit::Operation::Other,
        },
        size: record.size,
        created: record.created,
        last_used: record.last_used,
        uses: record.uses,
        attributes: record.attributes.iter().map(attribute_to).collect(),
    }
}
