//! Asks the cache policy about a graph.

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
    let no_cache = session.request.no_cache;
    let decisions = answers
        .into_iter()
        .map(|a| Decision {
            normal_form: a.normal_form,
            reuse: a.reuse && !no_cache,
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

fn settings(request: &Request) -> Vec<(String, String)> {
    if request.no_cache {
        vec![("no-cache".to_owned(), "true".to_owned())]
    } else {
        Vec::new()
    }
}
