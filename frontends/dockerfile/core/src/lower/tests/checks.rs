//! The examples of `host/docs/checks.md`: each check finds the first and not the second.

use super::super::host::*;
use super::support::*;
use crate::diagnostic::{Severity, rules};

const PAGE: &str = include_str!("../../../../../../host/docs/checks.md");

/// A section of the page.
struct Section {
    name: String,
    ignore: String,
    args: Vec<(String, String)>,
    found: String,
    not_found: String,
}

fn sections() -> Vec<Section> {
    PAGE.split("\n## ").skip(1).map(section).collect()
}

fn section(text: &str) -> Section {
    let blocks = |kind: &str| -> Vec<String> {
        let fence = format!("```{kind}\n");
        let parts = text.split(fence.as_str()).skip(1);
        parts
            .map(|p| p.split("\n```").next().unwrap_or_default().to_owned())
            .collect()
    };
    let examples = blocks("dockerfile");
    let name = text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(examples.len(), 2, "`{name}` has two examples");
    Section {
        ignore: blocks("dockerignore").concat(),
        args: blocks("args")
            .iter()
            .filter_map(|a| a.split_once('='))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect(),
        found: examples[0].clone(),
        not_found: examples[1].clone(),
        name,
    }
}

/// Names of the checks that find something.
fn findings(section: &Section, text: &str) -> Vec<&'static str> {
    let mut memory = memory();
    memory
        .images
        .insert("arm64v8/debian".into(), ImageConfig::default());
    if !section.ignore.is_empty() {
        memory.files.insert(
            (String::new(), ".dockerignore".into()),
            section.ignore.clone(),
        );
    }
    let mut asked = Request {
        call: Call::Check,
        ..request(text)
    };
    asked.build_args = section.args.clone();
    asked.build_args.push((
        "BUILDKIT_DOCKERFILE_CHECK".into(),
        "experimental=all".into(),
    ));
    let list = match super::super::build(&asked, &mut memory) {
        Ok(outcome) => outcome.diagnostics,
        Err(list) => list,
    };
    let findings = list.iter().filter(|d| d.severity == Severity::Warning);
    findings.map(|d| d.code).collect()
}

#[test]
fn every_example_is_found_or_not_as_the_page_says() {
    for section in sections() {
        let found = findings(&section, &section.found);
        assert!(
            found.contains(&section.name.as_str()),
            "`{}` does not find its example: {found:?}",
            section.name
        );
        let not_found = findings(&section, &section.not_found);
        assert_eq!(
            not_found, [""; 0],
            "`{}`: the second example is to be without findings",
            section.name
        );
    }
}

#[test]
fn every_check_has_a_section() {
    let mut on_page: Vec<String> = sections().into_iter().map(|s| s.name).collect();
    let mut warnings: Vec<&str> = rules::ALL
        .iter()
        .filter(|r| r.severity == Severity::Warning)
        .map(|r| r.code)
        .collect();
    on_page.sort();
    warnings.sort_unstable();
    assert_eq!(on_page, warnings);
}
