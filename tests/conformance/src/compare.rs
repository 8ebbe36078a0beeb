//! What is not as a case says.

use serde_json::Value;

use crate::case::Case;
use crate::image::Image;
use crate::run::Built;

/// Lists the differences; none means that the case holds.
pub fn differences(case: &Case, built: &Built) -> Vec<String> {
    let mut found = Vec::new();
    outcome(case, built, &mut found);
    messages("error", &case.errors, built, &mut found);
    if let Some(warnings) = &case.warnings {
        messages("warning", warnings, built, &mut found);
    }
    for text in case
        .output
        .iter()
        .filter(|t| !built.output.contains(t.as_str()))
    {
        found.push(format!("`{text}` is not in the output:\n{}", built.output));
    }
    match &built.image {
        Some(Ok(image)) => found.extend(image_differences(case, image)),
        Some(Err(why)) => found.push(format!("the image cannot be read: {why}")),
        None if case.tree.is_some() || !case.config.is_empty() || case.history.is_some() => {
            found.push("there is no image".to_owned());
        }
        None => {}
    }
    found
}

fn outcome(case: &Case, built: &Built, found: &mut Vec<String>) {
    let wanted = match &case.fails {
        Some(failure) => failure.code,
        None if case.errors.is_empty() => 0,
        None => 65,
    };
    if built.code != Some(wanted) {
        let messages: Vec<_> = built.messages.iter().map(|(_, m)| m.as_str()).collect();
        found.push(format!(
            "exit code {:?}, not {wanted}: {} {}",
            built.code,
            messages.join("; "),
            built.stderr.trim()
        ));
    }
    if let Some(failure) = case
        .fails
        .as_ref()
        .filter(|f| !built.stderr.contains(&f.text) && !built.output.contains(&f.text))
    {
        found.push(format!(
            "`{}` is not in: {}",
            failure.text,
            built.stderr.trim()
        ));
    }
}

fn messages(severity: &str, wanted: &[String], built: &Built, found: &mut Vec<String>) {
    let got: Vec<&str> = built
        .messages
        .iter()
        .filter(|(s, _)| s == severity)
        .map(|(_, m)| m.as_str())
        .collect();
    let fits = got.len() == wanted.len()
        && got
            .iter()
            .zip(wanted)
            .all(|(g, w)| g.starts_with(w.as_str()));
    if !fits {
        found.push(format!(
            "{severity}s:\n      got  {got:?}\n      want {wanted:?}"
        ));
    }
}

/// Compares an image with what a case says of it.
pub fn image_differences(case: &Case, image: &Image) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(wanted) = &case.tree {
        let got = image.tree(&case.below);
        let missing = wanted
            .iter()
            .filter(|l| !got.contains(l))
            .map(|l| format!("      - {l}"));
        let more = got
            .iter()
            .filter(|l| !wanted.contains(l))
            .map(|l| format!("      + {l}"));
        let lines: Vec<String> = missing.chain(more).collect();
        if !lines.is_empty() {
            found.push(format!("files (- wanted, + there):\n{}", lines.join("\n")));
        }
    }
    for (pointer, wanted) in &case.config {
        let got = image.config.pointer(pointer);
        let wanted = serde_json::to_value(wanted).unwrap_or_default();
        if got != Some(&wanted) {
            let got = got.map_or("nothing".to_owned(), Value::to_string);
            found.push(format!("`{pointer}` is {got}, not {wanted}"));
        }
    }
    for pointer in &case.absent {
        if let Some(got) = image.config.pointer(pointer).filter(|v| !v.is_null()) {
            found.push(format!("`{pointer}` is {got}, not absent"));
        }
    }
    if let Some(wanted) = &case.history {
        let lines = image.config["history"].as_array().into_iter().flatten();
        let own = lines.filter(|h| h["comment"] == "buildkit.dockerfile.v0");
        let got: Vec<&str> = own.filter_map(|h| h["created_by"].as_str()).collect();
        if got != *wanted {
            found.push(format!(
                "history:\n      got  {got:?}\n      want {wanted:?}"
            ));
        }
    }
    found
}
