//! How running a guest fails: it refuses what the user wrote, it misbehaves, it is no guest at all, or the
//! tool itself is broken.

use std::path::PathBuf;

use stepwell_model::{Diagnostic, Severity};

use crate::limits::LimitReached;

/// Why a guest gave no result.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// What the user wrote is wrong; the diagnostics say what.
    #[error("{}", summary(diagnostics))]
    Refused {
        /// At least one of severity error.
        diagnostics: Vec<Diagnostic>,
    },
    /// The guest gave up for a reason of its own.
    #[error("the {guest} gave up: {reason}")]
    GaveUp {
        /// Which guest.
        guest: String,
        /// In the guest's words.
        reason: String,
        /// What it said before.
        diagnostics: Vec<Diagnostic>,
    },
    /// The guest reached a limit and was stopped.
    #[error("the {guest} was stopped: {limit}")]
    Limit {
        /// Which guest.
        guest: String,
        /// Which limit.
        limit: LimitReached,
        /// What it said before.
        diagnostics: Vec<Diagnostic>,
    },
    /// The guest trapped: a panic, a stack overflow, a handle that it does not have, and the like.
    #[error("the {guest} crashed: {reason}")]
    Trapped {
        /// Which guest.
        guest: String,
        /// What kind of trap.
        reason: String,
        /// What it said before.
        diagnostics: Vec<Diagnostic>,
    },
    /// The guest answered something that makes no sense.
    #[error("the {guest} answered {reason}")]
    BadAnswer {
        /// Which guest.
        guest: String,
        /// What.
        reason: String,
    },
    /// The component's file cannot be read.
    #[error("cannot read the component `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a WebAssembly component.
    #[error("`{}` is not a usable WebAssembly component: {reason}", path.display())]
    NotAComponent {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The component does not fit the world that it is used in.
    #[error("the {guest} does not fit the contract `{world}`: {reason}")]
    WrongWorld {
        /// Which guest.
        guest: String,
        /// The world.
        world: &'static str,
        /// What is missing or different.
        reason: String,
    },
    /// wasmtime itself fails here: the tool is broken, not the guest.
    #[error("cannot {operation}: {reason}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// What wasmtime says.
        reason: String,
    },
}

impl GuestError {
    /// Says what of `operation` the engine cannot do.
    pub(crate) fn engine(operation: &'static str, error: &wasmtime::Error) -> Self {
        Self::Engine {
            operation,
            reason: format!("{error:#}"),
        }
    }

    /// Returns what the guest had to say before it failed.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Refused { diagnostics }
            | Self::GaveUp { diagnostics, .. }
            | Self::Limit { diagnostics, .. }
            | Self::Trapped { diagnostics, .. } => diagnostics,
            _ => &[],
        }
    }
}

/// The first error, and how many there are.
fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = || diagnostics.iter().filter(|d| d.severity == Severity::Error);
    let first = errors().next().map_or("no reason given", |d| &d.message);
    match errors().count() {
        0 | 1 => first.to_owned(),
        n => format!("{first} (and {} more)", n - 1),
    }
}
