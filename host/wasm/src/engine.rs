//! The engine that all guests of a process share: settings, loading of components, interruption, and how a failed call
//! is told apart.  What a guest can call is in [`crate::frontend`] and [`crate::policy`].

mod cache;
mod config;
mod ticker;
mod trusted;

use std::path::{Path, PathBuf};

use stepwell_model::request::GuestLimits;
use stepwell_model::{Diagnostic, Digest};
use wasmtime::component::{Component, ResourceTableError};
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

pub use config::GUEST_STACK;
use ticker::Ticker;

use crate::builtin::Builtin;
use crate::error::GuestError;
use crate::limits::{self, LimitReached, Meter};
use crate::plain::plain;

/// Runs guests.  One is enough for a process; it may be used by many threads at once.
pub struct GuestEngine {
    engine: Engine,
    ticker: Ticker,
    code_cache: Option<PathBuf>,
}

/// A component that is ready to be instantiated, and what it is called in messages.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub component: Component,
    /// For example ``built-in frontend `dockerfile` ``.
    pub name: String,
    /// Digest of the component, before it was compiled.
    pub digest: Digest,
    pub builtin: bool,
}

impl GuestEngine {
    /// Makes an engine.  `code_cache` is a directory that only the user can write; components from files are compiled
    /// once and kept there.
    pub fn new(code_cache: Option<PathBuf>) -> Result<Self, GuestError> {
        let engine = Engine::new(&config::config())
            .map_err(|e| GuestError::engine("start the WebAssembly engine", &e))?;
        Ok(Self {
            ticker: Ticker::new(engine.clone()),
            engine,
            code_cache,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn load_builtin(&self, kind: &str, guest: &Builtin) -> Result<Loaded, GuestError> {
        let component = trusted::embedded(&self.engine, guest)
            .map_err(|e| GuestError::engine("load the built-in component", &e))?;
        Ok(Loaded {
            component,
            name: format!("built-in {kind} `{}`", guest.name),
            digest: guest.digest,
            builtin: true,
        })
    }

    pub(crate) fn load_file(&self, kind: &str, path: &Path) -> Result<Loaded, GuestError> {
        let bytes = std::fs::read(path).map_err(|source| GuestError::Read {
            path: path.to_owned(),
            source,
        })?;
        let digest = Digest::of(&bytes);
        Ok(Loaded {
            component: self.compile(path, &bytes, digest)?,
            name: format!("{kind} `{}`", path.display()),
            digest,
            builtin: false,
        })
    }

    /// Compiles a component, or takes what was compiled before.  A cache that cannot be used costs time only.
    fn compile(&self, path: &Path, bytes: &[u8], digest: Digest) -> Result<Component, GuestError> {
        let bad = |e: wasmtime::Error| GuestError::NotAComponent {
            path: path.to_owned(),
            reason: format!("{e:#}"),
        };
        let Some(dir) = &self.code_cache else {
            return Component::new(&self.engine, bytes).map_err(bad);
        };
        let entry = cache::Entry::new(dir, &self.engine, digest);
        if let Some(component) = entry
            .read()
            .and_then(|code| trusted::cached(&self.engine, &code))
        {
            return Ok(component);
        }
        let component = Component::new(&self.engine, bytes).map_err(bad)?;
        let code = component
            .serialize()
            .map_err(|e| GuestError::engine("serialise compiled code", &e))?;
        if let Err(error) = entry.write(&code) {
            tracing::warn!(dir = %dir.display(), %error, "cannot keep the compiled component");
        }
        Ok(component)
    }

    /// Makes a store whose guest is metered.
    pub(crate) fn store<T: Metered>(&self, data: T) -> Store<T> {
        let mut store = Store::new(&self.engine, data);
        store.limiter(|data| data.meter());
        store.set_hostcall_fuel(limits::CALL_BYTES);
        store.set_max_component_handles(limits::HANDLES);
        // The ticker raises the epoch; each tick asks the clock whether the guest's time is over.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            store.data_mut().meter().in_time()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store
    }

    /// Calls into a guest while the ticker runs.
    pub(crate) fn interruptible<R>(&self, call: impl FnOnce() -> R) -> R {
        let _running = self.ticker.run();
        call()
    }
}

/// Data of a store that counts what its guest uses.
pub(crate) trait Metered: 'static {
    fn meter(&mut self) -> &mut Meter;
}

/// Makes a meter of limits.
pub(crate) fn meter(limits: &GuestLimits) -> Meter {
    Meter::new(limits)
}

/// Marks errors of making an instance.
#[derive(Debug, thiserror::Error)]
#[error("cannot instantiate it")]
pub(crate) struct Starting;

/// Tells a limit from a crash, and a crash from an engine that gets no memory.  `printed` is what the guest wrote to its
/// standard output and error.
pub(crate) fn classify(
    error: &wasmtime::Error,
    guest: &str,
    printed: &str,
    diagnostics: Vec<Diagnostic>,
) -> GuestError {
    if let Some(limit) = limit_of(error) {
        return GuestError::Limit {
            guest: guest.to_owned(),
            limit,
            diagnostics,
        };
    }
    let trap = error.downcast_ref::<Trap>();
    if trap.is_none() && error.is::<Starting>() {
        return GuestError::engine("instantiate a component", error);
    }
    let mut reason = match trap {
        Some(Trap::UnreachableCodeReached) => "it panicked".to_owned(),
        Some(Trap::StackOverflow) => "its stack overflowed".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    if !printed.is_empty() {
        reason += "; it had printed:\n";
        reason += &plain(printed.to_owned());
    }
    GuestError::Trapped {
        guest: guest.to_owned(),
        reason,
        diagnostics,
    }
}

fn limit_of(error: &wasmtime::Error) -> Option<LimitReached> {
    if let Some(limit) = error.downcast_ref::<LimitReached>() {
        return Some(limit.clone());
    }
    if matches!(
        error.downcast_ref::<ResourceTableError>(),
        Some(ResourceTableError::Full)
    ) {
        return Some(LimitReached::Handles(limits::HANDLES));
    }
    // wasmtime has no types for these two; the hostile guests notice when it words them differently.
    let text = format!("{error:#}");
    if text.contains("handle limit exceeded") {
        return Some(LimitReached::Handles(limits::HANDLES));
    }
    if text.contains("fuel allocated for hostcalls") {
        return Some(LimitReached::CallBytes(limits::CALL_BYTES as u64));
    }
    None
}

/// Lists what a component imports: `interface` or `interface#function`.
pub(crate) fn imports(engine: &GuestEngine, guest: &Loaded) -> Vec<String> {
    let ty = guest.component.component_type();
    let mut names = Vec::new();
    for (name, import) in ty.imports(&engine.engine) {
        names.push(name.to_owned());
        if let wasmtime::component::types::ComponentItem::ComponentInstance(instance) = import.ty {
            let members = instance.exports(&engine.engine);
            names.extend(members.map(|(member, _)| format!("{name}#{member}")));
        }
    }
    names
}
