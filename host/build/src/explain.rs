//! `stepwell explain`: for each step that would not be reused, what changed since the latest result in the same place of
//! the definition.

use stepwell_model::{Op, VertexId};
use stepwell_solve::explain::{Change, explain};
use stepwell_solve::keys::FETCHED;
use stepwell_solve::{Decision, KeyContext, Part, Preimage};

use crate::drive;
use crate::error::BuildError;
use crate::names;
use crate::selections;
use crate::session::Session;

/// Why one step would be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The step, for people.
    pub step: String,
    /// Why; empty where it would be reused.
    pub reasons: Vec<String>,
}

/// Explains all steps that `target` needs, in the order of the definition.
pub fn run(
    session: &Session<'_>,
    target: VertexId,
    context: &KeyContext,
    decisions: &[Decision],
) -> Result<Vec<Explanation>, BuildError> {
    let needed = session.graph.needed_by(target);
    let solver = drive::solver(session, &needed, target, context, decisions)?;
    let steps = needed
        .into_iter()
        .filter(|v| !matches!(session.graph.vertex(*v).op, Op::Image(_) | Op::Context(_)));
    Ok(steps
        .map(|vertex| {
            one(
                session,
                vertex,
                &decisions[vertex.index()],
                solver.preimage(vertex),
            )
        })
        .collect())
}

fn one(
    session: &Session<'_>,
    vertex: VertexId,
    decision: &Decision,
    now: &Preimage,
) -> Explanation {
    let v = session.graph.vertex(vertex);
    let step = names::of(v);
    let records = session.store.records();
    if !decision.reuse {
        return Explanation {
            step,
            reasons: vec![
                "reuse is not wanted: `--no-cache`, or the cache policy says so".to_owned(),
            ],
        };
    }
    if records.get(&now.key()).is_some_and(|r| session.has(&r)) {
        return Explanation {
            step,
            reasons: Vec::new(),
        };
    }
    let before = names::slot(&session.definition, v).and_then(|slot| records.latest(&slot));
    let Some((_, record)) = before else {
        return Explanation {
            step,
            reasons: vec!["nothing was built at this place of the definition before".to_owned()],
        };
    };
    let before = Preimage(
        record
            .preimage
            .iter()
            .map(|(label, value)| Part {
                label: label.clone(),
                value: value.clone(),
            })
            .collect(),
    );
    let mut reasons: Vec<_> = explain(&before, now)
        .iter()
        .flat_map(|change| describe(session, vertex, change))
        .collect();
    if reasons.is_empty() {
        reasons.push("its layers are no longer in the store".to_owned());
    }
    Explanation { step, reasons }
}

/// Says one change; files are named where both lists are known.
fn describe(session: &Session<'_>, vertex: VertexId, change: &Change) -> Vec<String> {
    match change {
        Change::Operation { before, now } => lines("instruction", before, now),
        Change::Files { input, before, .. } => selections::changes(session, vertex, *input, before),
        Change::Input { input } => {
            let inputs = &session.graph.vertex(vertex).inputs;
            let name = inputs.get(*input as usize).map_or_else(
                || "a step that is gone".to_owned(),
                |i| names::of(session.graph.vertex(*i)),
            );
            vec![format!("it builds on `{name}`, which changed")]
        }
        Change::Setting { name, .. } if name == FETCHED => {
            vec!["what is behind the address changed".to_owned()]
        }
        Change::Setting { name, before, now } => {
            vec![format!("{name} changed from `{before}` to `{now}`")]
        }
    }
}

/// Says which lines of a normal form differ.
fn lines(what: &str, before: &str, now: &str) -> Vec<String> {
    let gone = before
        .lines()
        .filter(|l| !now.lines().any(|n| n == *l))
        .map(|l| format!("{what}: was `{l}`"));
    let come = now
        .lines()
        .filter(|l| !before.lines().any(|b| b == *l))
        .map(|l| format!("{what}: is  `{l}`"));
    gone.chain(come).collect()
}
