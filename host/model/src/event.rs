//! What a build tells while it runs.  `--progress=rawjson` writes one event a line, as JSON.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::diagnostic::{Diagnostic, Origin};

/// Number of a step within one build: vertices of the graph and exports alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId(pub u32);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A step is known.
    Step {
        /// Its number.
        step: StepId,
        /// Text for people, for example `[build 2/5] RUN make`.
        name: String,
        /// Digest of the vertex, where it is one.
        digest: Option<Digest>,
        /// Where it was written.
        origin: Option<Origin>,
    },
    /// A step began.
    Started {
        /// Its number.
        step: StepId,
    },
    /// A step wrote something.
    Output {
        /// Its number.
        step: StepId,
        /// On what.
        stream: Stream,
        /// What; bytes that are not UTF-8 are replaced.
        text: String,
    },
    /// Part of a step moves bytes: a pull, a push, a layer being written.
    Transfer {
        /// Number of the step it belongs to.
        step: StepId,
        /// Tells the transfers of a step apart, usually a short digest.
        id: String,
        /// What is done, for example `pull`, `push`, `unpack`.
        verb: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A step ended.
    Finished {
        /// Its number.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// Time it took, in milliseconds.
        millis: u64,
    },
    /// A message about what the user wrote.
    Diagnostic(Diagnostic),
    /// The build failed; nothing comes after it.
    Failed {
        /// What and why.
        message: String,
        /// Where the step was written that failed, where it was one.
        origin: Option<Origin>,
        /// What the user can do, where that is known.
        hint: Option<String>,
        /// The program's exit code.
        code: u8,
    },
    /// Something the user should know, for example the chosen isolation tier.
    Note {
        /// The text.
        text: String,
    },
}

/// Standard output or error of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It was carried out.
    Done,
    /// An earlier result was taken.
    Cached,
    /// It failed.
    Failed {
        /// Why.
        message: String,
    },
    /// It was given up because something else failed or the user stopped the build.
    Cancelled,
}

/// Receives events; called from many threads, must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn event(&self, event: Event) {
        self(event);
    }
}
