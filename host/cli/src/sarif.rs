//! Findings as SARIF 2.1.0 (OASIS standard), which code hosts show beside the lines they are about.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stepwell_build::check::Checked;
use stepwell_model::{Diagnostic, Severity};

use crate::check::diagnostics;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// Where each rule has a section.
const HELP: &str = concat!(
    env!("CARGO_PKG_REPOSITORY"),
    "/blob/main/host/docs/checks.md"
);

/// The log of one run.
pub fn log(checked: &[Checked]) -> Value {
    let all = || checked.iter().flat_map(diagnostics);
    let rules: BTreeSet<&str> = all().map(|d| d.code.as_str()).collect();
    let driver = json!({
        "name": "stepwell",
        "version": env!("CARGO_PKG_VERSION"),
        "informationUri": env!("CARGO_PKG_REPOSITORY"),
        "rules": rules.iter().map(|r| json!({ "id": r, "helpUri": format!("{HELP}#{}", r.to_lowercase()) })).collect::<Vec<_>>(),
    });
    let failures = checked.iter().filter_map(|c| {
        let error = c.result.as_ref().err()?;
        Some(json!({ "level": "error", "message": { "text": format!("`{}`: {error}", c.file.display()) } }))
    });
    let failures: Vec<Value> = failures.collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "invocations": [{ "executionSuccessful": failures.is_empty(), "toolExecutionNotifications": failures }],
            "results": checked.iter().flat_map(results).collect::<Vec<_>>(),
        }]
    })
}

fn results(checked: &Checked) -> Vec<Value> {
    let uri = uri(&checked.file.display().to_string());
    diagnostics(checked)
        .iter()
        .map(|d| result(d, &uri))
        .collect()
}

fn result(d: &Diagnostic, uri: &str) -> Value {
    let level = match d.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let text = if d.hint.is_empty() {
        d.message.clone()
    } else {
        format!("{} ({})", d.message, d.hint)
    };
    let mut place = json!({ "artifactLocation": { "uri": uri } });
    if d.span.line > 0 {
        place["region"] = json!({
            "startLine": d.span.line,
            "startColumn": d.span.column,
            "endLine": d.span.end_line,
            "endColumn": d.span.end_column,
        });
    }
    json!({
        "ruleId": d.code,
        "level": level,
        "message": { "text": text },
        "locations": [{ "physicalLocation": place }],
    })
}

/// A path as a relative reference of RFC 3986: what is not plain is written in hexadecimal.
fn uri(path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    path.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepwell_model::Span;

    #[test]
    fn findings_have_rule_level_message_and_region() {
        let finding = Diagnostic {
            severity: Severity::Warning,
            code: "StageNameCasing".into(),
            message: "the stage name `A` should be lower case".into(),
            file: "./a b/Dockerfile".into(),
            span: Span {
                line: 2,
                column: 16,
                end_line: 2,
                end_column: 17,
            },
            source: "FROM scratch AS A".into(),
            hint: "write `a`".into(),
        };
        let checked = [
            Checked {
                file: "./a b/Dockerfile".into(),
                result: Ok(vec![finding]),
            },
            Checked {
                file: "gone".into(),
                result: Err(stepwell_build::BuildError::Interrupted),
            },
        ];
        let log = log(&checked);
        let run = &log["runs"][0];
        assert_eq!(log["version"], "2.1.0");
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "StageNameCasing");
        let result = &run["results"][0];
        assert_eq!(result["level"], "warning");
        assert_eq!(
            result["message"]["text"],
            "the stage name `A` should be lower case (write `a`)"
        );
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b/Dockerfile");
        assert_eq!(
            place["region"],
            json!({ "startLine": 2, "startColumn": 16, "endLine": 2, "endColumn": 17 })
        );
        assert_eq!(run["invocations"][0]["executionSuccessful"], false);
    }
}
