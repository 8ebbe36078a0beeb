//! Asks the cache policy about a graph.

use stepwell_model::graph::{Graph, Vertex};
use stepwell_model::op::Op;
use stepwell_model::request::Request;
use stepwell_solve::{Decision, KeyContext};
use stepwell_wasm::GuestEngine;
use stepwell_wasm::policy::{Policy, PolicySource};

use crate::error::BuildError;
use crate::session::Session;

/// Returns what is the same for all keys of the build, and what is decided of each vertex.
pub fn plan(
    engine: &GuestEngine,
    session: &Session<'_>,
) -> Result<(KeyContext, Vec<Decision>), BuildError> {
    let policy = Policy::load(engine, &PolicySource::Builtin).map_err(BuildError::Guest)?;
    let answers = policy
        .plan(
            session.graph,
            &session.request.guest_limits,
            &settings(session.request),
        )
        .map_err(BuildError::Guest)?;
    let request = session.request;
    let again = carried_out_again(session.graph, &request.no_cache_stages);
    let decisions = answers
        .into_iter()
        .zip(session.graph.iter())
        .map(|(a, (_, vertex))| Decision {
            normal_form: a.normal_form,
            reuse: a.reuse && !request.no_cache && !is_filtered(vertex, &request.no_cache_stages),
            definition_key: !vertex.inputs.iter().any(|i| again[i.index()]),
            content_key: a.content_key,
            ttl: a.ttl,
        })
        .collect();
    let context = KeyContext {
        namespace: session.request.namespace.clone(),
        policy: policy.digest(),
        // Times in layers are clamped to it, so layers made with another one are other layers.
        settings: session
            .source_date_epoch
            .map(|t| format!("source-date-epoch={t}"))
            .unwrap_or_default(),
    };
    Ok((context, decisions))
}

/// Says of each vertex whether it, or anything that it is made of, belongs to one of the stages that are carried out again.
fn carried_out_again(graph: &Graph, stages: &[String]) -> Vec<bool> {
    let mut again: Vec<bool> = Vec::new();
    for (_, vertex) in graph.iter() {
        let is_again =
            is_filtered(vertex, stages) || vertex.inputs.iter().any(|i| again[i.index()]);
        again.push(is_again);
    }
    again
}

/// Says whether a step belongs to one of the stages that are carried out again.
fn is_filtered(vertex: &Vertex, stages: &[String]) -> bool {
    if stages.is_empty() || matches!(vertex.op, Op::Image(_) | Op::Context(_)) {
        return false;
    }
    let name = vertex.origin.as_ref().and_then(|o| o.stage_name());
    name.is_some_and(|name| stages.iter().any(|s| s.eq_ignore_ascii_case(name)))
}

fn settings(request: &Request) -> Vec<(String, String)> {
    if request.no_cache {
        vec![("no-cache".to_owned(), "true".to_owned())]
    } else {
        Vec::new()
    }
}
