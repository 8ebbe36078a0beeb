//! The isolation of a build's RUN steps: the machine is probed when the first one comes, and the choice is told once.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};
use stepwell_model::event::Event;
use stepwell_model::{Op, VertexId};
use stepwell_steps::run::{self, InitProgram, RunError, TierChoice, at_least, choose_tier};
use stepwell_sys::probe::Facts;

use crate::error::StepError;
use crate::session::Session;

/// What this machine permits, found out by a process of its own when it is first asked for.
pub struct Machine {
    /// A directory on the file system of the store.
    dir: PathBuf,
    facts: OnceLock<Result<Facts, RunError>>,
}

impl Machine {
    /// Nothing is tried yet.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            facts: OnceLock::new(),
        }
    }

    /// Returns what this machine permits.
    pub fn facts(&self) -> Result<&Facts, RunError> {
        self.facts
            .get_or_init(|| run::probe(&InitProgram::Myself, &self.dir))
            .as_ref()
            .map_err(Clone::clone)
    }
}

/// Says whether a build of `target` has RUN steps, and tells where it has none; nothing is tried then.
pub fn is_needed(session: &Session<'_>, target: Option<VertexId>) -> bool {
    let needed = target.map_or_else(Vec::new, |target| session.graph.needed_by(target));
    let is_run = |id: &VertexId| matches!(session.graph.vertex(*id).op, Op::Run(_));
    let any = needed.iter().any(is_run);
    if !any {
        session.events.event(Event::Note {
            text: "no RUN step: no isolation is needed".to_owned(),
        });
    }
    any
}

/// The isolation that RUN steps got, with ids and reasons, as JSON; `none` where none was carried out, with the reason for that.
pub fn told(tier: Option<&TierChoice>, has_run_step: bool) -> Value {
    let why = match has_run_step {
        true => "the results of all RUN steps were there already",
        false => "there is no RUN step",
    };
    match tier {
        Some(choice) => json!(choice),
        None => json!({"tier": "none", "reasons": [], "why": why}),
    }
}

/// Chooses the tier, the first time it is asked.
pub fn choose(session: &Session<'_>) -> Result<TierChoice, StepError> {
    if let Some(choice) = session.tier.get() {
        return Ok(choice.clone());
    }
    let request = session.request;
    let choice = choose_tier(request.isolation, session.machine.facts()?)?;
    let choice = at_least(request.require_isolation, choice)?;
    if session.tier.set(choice.clone()).is_ok() {
        session.events.event(Event::Note {
            text: format!(
                "RUN steps: isolation tier `{}`, {}",
                choice.tier, choice.ids
            ),
        });
        for reason in &choice.reasons {
            session.events.event(Event::Note {
                text: format!("no better tier: {reason}"),
            });
        }
    }
    Ok(choice)
}
