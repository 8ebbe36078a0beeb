//! Answers of `--call` as JSON: what we say of a Dockerfile, and beside it the members that docker's tools look for.
//!
//! docker's are those of BuildKit's `subrequests` packages `lint`, `targets` and `outline`; the texts in them are ours.

use serde_json::{Value, json};
use stepwell_build::Inspection;
use stepwell_model::inspection::{SupplyKind, Target};
use stepwell_model::{Diagnostic, Severity, Span};

/// `--call=check`: `diagnostics` are ours, `warnings` and `buildError` docker's.
pub fn check(diagnostics: &[Diagnostic]) -> Value {
    let is = |severity: Severity| move |d: &&Diagnostic| d.severity == severity;
    let warnings = diagnostics
        .iter()
        .filter(is(Severity::Warning))
        .map(|d| json!({ "ruleName": d.code, "detail": d.message, "location": location(d.span) }));
    let mut answer = json!({
        "diagnostics": diagnostics,
        "warnings": warnings.collect::<Vec<_>>(),
    });
    if let Some(error) = diagnostics.iter().find(is(Severity::Error)) {
        answer["buildError"] =
            json!({ "message": error.message, "location": location(error.span) });
    }
    answer
}

/// `--call=targets`.
pub fn targets(targets: &[Target]) -> Value {
    let target = |t: &Target| {
        let mut value = json!(t);
        value["location"] = location(t.span);
        value
    };
    json!({ "targets": targets.iter().map(target).collect::<Vec<_>>() })
}

/// `--call=outline`: `target`, `arguments` and `supplies` are ours, the rest is docker's.
pub fn outline(target: &Target, answer: &Inspection) -> Value {
    let args = answer.arguments.iter().map(|a| {
        json!({
            "name": a.name,
            "description": a.description,
            "value": a.value.clone().unwrap_or_default(),
            "location": location(a.span),
        })
    });
    let supplies = |kind: SupplyKind| -> Vec<Value> {
        let of_kind = answer.supplies.iter().filter(|s| s.kind == kind);
        of_kind
            .map(|s| json!({ "name": s.id, "required": s.required, "location": location(s.span) }))
            .collect()
    };
    json!({
        "target": target,
        "arguments": answer.arguments,
        "supplies": answer.supplies,
        "name": target.name,
        "description": target.description,
        "args": args.collect::<Vec<_>>(),
        "secrets": supplies(SupplyKind::Secret),
        "ssh": supplies(SupplyKind::Ssh),
    })
}

/// A place as BuildKit writes it; its lines count from 1 and its characters from 0.
fn location(span: Span) -> Value {
    let position =
        |line: u32, column: u32| json!({ "line": line, "character": column.saturating_sub(1) });
    let (start, end) = (
        position(span.line, span.column),
        position(span.end_line, span.end_column),
    );
    match span.line {
        0 => json!({}),
        _ => json!({ "ranges": [{ "start": start, "end": end }] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_docker_s_names_too() {
        let found = |severity, line| Diagnostic {
            severity,
            code: "SomeRule".into(),
            message: "what".into(),
            span: Span {
                line,
                column: 3,
                end_line: line,
                end_column: 5,
            },
            file: String::new(),
            source: String::new(),
            hint: String::new(),
        };
        let all = [
            found(Severity::Note, 1),
            found(Severity::Warning, 2),
            found(Severity::Error, 0),
            found(Severity::Error, 4),
        ];
        let answer = check(&all);
        assert_eq!(answer["diagnostics"].as_array().map(Vec::len), Some(4));
        assert_eq!(
            answer["warnings"],
            json!([{
                "ruleName": "SomeRule",
                "detail": "what",
                "location": { "ranges": [{ "start": { "line": 2, "character": 2 }, "end": { "line": 2, "character": 4 } }] },
            }])
        );
        assert_eq!(
            answer["buildError"],
            json!({ "message": "what", "location": {} })
        );
        assert!(check(&[]).get("buildError").is_none());
    }
}
