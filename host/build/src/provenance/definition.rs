//! The build graph, as provenance tells it in the mode `max`.

use serde_json::{Value, json};
use stepwell_model::{Graph, Op, VertexId, remote};

use super::clean;

/// The vertices that a result is made of, each with its operation and its inputs.
pub fn of(graph: &Graph, needed: &[VertexId]) -> Value {
    let steps: Vec<Value> = needed.iter().map(|v| step(graph, *v)).collect();
    json!({"stepwellDefinition": steps})
}

fn step(graph: &Graph, id: VertexId) -> Value {
    let vertex = graph.vertex(id);
    let inputs: Vec<_> = vertex.inputs.iter().map(|i| graph.digest(*i)).collect();
    let mut told = json!({
        "id": graph.digest(id),
        "op": operation(&vertex.op),
        "inputs": inputs,
        "platform": vertex.platform.to_string(),
    });
    // The text is left out: what an instruction comes to is said already, and an address in it may be confidential.
    if let Some(origin) = &vertex.origin {
        told["source"] = json!({
            "file": remote::redact(&origin.file),
            "line": origin.span.line,
            "stage": origin.stage,
        });
    }
    told
}

fn operation(op: &Op) -> Value {
    let mut told = serde_json::to_value(op).unwrap_or_default();
    match op {
        Op::Http(http) => told["url"] = json!(remote::redact(&http.url)),
        Op::Git(git) => told["url"] = json!(remote::redact(&git.url)),
        Op::Run(run) => {
            // They do not count: proxies, most often with a password.
            if let Some(map) = told.as_object_mut() {
                map.remove("uncounted_env");
            }
            for (n, variable) in run.env.iter().enumerate() {
                told["env"][n]["value"] = json!(clean::of_user(&variable.value));
            }
        }
        Op::Image(_) | Op::Context(_) | Op::Files(_) | Op::Merge(_) => {}
    }
    told
}
