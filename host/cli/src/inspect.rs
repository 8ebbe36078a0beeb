//! `stepwell build --check` and `--call=…`: what can be said of a definition without building it.

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Arc;

use stepwell_build::{BuildError, Inspection};
use stepwell_model::Diagnostic;
use stepwell_model::event::{Event, EventSink};
use stepwell_model::inspection::{Argument, SupplyKind, Target};
use stepwell_model::request::{Call, Request};

use crate::args::BuildArgs;
use crate::{build, check, docker, report};

/// What is asked, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// What.
    pub call: Call,
    /// Whether the answer is JSON.
    pub json: bool,
}

impl Asked {
    /// Asks for text.
    pub fn of(call: Call) -> Self {
        Self { call, json: false }
    }
}

/// Parses the value of `--call`: a method, and `format=text|json` where it is given.
pub fn call(text: &str) -> Result<Asked, String> {
    let mut parts = text.split(',');
    let method = parts.next().unwrap_or_default();
    let name = method.strip_prefix("method=").unwrap_or(method);
    let known = Call::NAMES
        .iter()
        .map(|(n, _)| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ");
    // The old name, which buildx takes too.
    let name = if name == "lint" { "check" } else { name };
    let found = Call::NAMES.iter().find(|(n, _)| *n == name);
    let (_, call) = found.ok_or_else(|| format!("`{name}` cannot be asked; there are {known}"))?;
    let mut asked = Asked::of(*call);
    for part in parts {
        asked.json = match part {
            "format=json" => true,
            "format=text" => false,
            other => {
                return Err(format!(
                    "`{other}` is not an option of `--call`: there are `format=text` and `format=json`"
                ));
            }
        };
    }
    Ok(asked)
}

/// Asks, and writes the answer to standard output; what a check finds makes the exit code 1.
pub fn run(args: &BuildArgs, request: &Request, asked: Asked) -> ExitCode {
    let found = Cell::new(0);
    let code = build::run(args, |builder, _, _| {
        let answer = builder.inspect(
            request,
            asked.call,
            &(Arc::new(Silent) as Arc<dyn EventSink>),
        );
        match (asked.call, answer) {
            (Call::Check, Ok(Inspection { diagnostics, .. }))
            | (Call::Check, Err(BuildError::Refused(diagnostics))) => {
                found.set(check::findings(&diagnostics));
                print_check(&diagnostics, asked.json);
                Ok(())
            }
            (_, Err(BuildError::Refused(diagnostics))) => {
                check::print_text(&diagnostics, true);
                Err(BuildError::Refused(diagnostics))
            }
            (Call::Outline, Ok(answer)) => {
                print_outline(&answer, asked.json);
                Ok(())
            }
            (_, Ok(answer)) => {
                print_targets(&answer.targets, asked.json);
                Ok(())
            }
            (_, Err(other)) => Err(other),
        }
    });
    if found.get() > 0 {
        ExitCode::from(check::FOUND)
    } else {
        code
    }
}

/// The answer says it all.
struct Silent;

impl EventSink for Silent {
    fn event(&self, _: Event) {}
}

fn print_check(diagnostics: &[Diagnostic], json: bool) {
    if json {
        println!("{:#}", docker::check(diagnostics));
    } else if diagnostics.is_empty() {
        println!("check complete, nothing found");
    } else {
        check::print_text(diagnostics, false);
    }
}

fn print_targets(targets: &[Target], json: bool) {
    if json {
        return println!("{:#}", docker::targets(targets));
    }
    let name = |t: &Target| match (t.name.as_str(), t.default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    };
    let rows = targets
        .iter()
        .map(|t| [report::plain(&name(t)), report::plain(&t.description)]);
    table(["TARGET", "DESCRIPTION"], rows.collect());
}

fn print_outline(answer: &Inspection, json: bool) {
    let target = answer.targets.first().cloned().unwrap_or_default();
    if json {
        return println!("{:#}", docker::outline(&target, answer));
    }
    if !target.name.is_empty() {
        println!("TARGET:      {}", report::plain(&target.name));
    }
    if !target.description.is_empty() {
        println!("DESCRIPTION: {}", report::plain(&target.description));
    }
    println!();
    let row = |a: &Argument| {
        [
            a.name.clone(),
            a.value.clone().unwrap_or_default(),
            a.description.clone(),
        ]
        .map(|cell| report::plain(&cell))
    };
    table(
        ["BUILD ARG", "VALUE", "DESCRIPTION"],
        answer.arguments.iter().map(row).collect(),
    );
    for (kind, head) in [(SupplyKind::Secret, "SECRET"), (SupplyKind::Ssh, "SSH")] {
        let of_kind = answer.supplies.iter().filter(|s| s.kind == kind);
        let rows: Vec<_> = of_kind
            .map(|s| {
                let required = if s.required { "true" } else { "" };
                [s.id.clone(), required.to_owned()]
            })
            .collect();
        if !rows.is_empty() {
            println!();
            table([head, "REQUIRED"], rows);
        }
    }
}

/// Writes rows in columns that are as wide as they have to be.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let width = |i: usize| {
        rows.iter()
            .map(|r| r[i].chars().count())
            .chain([head[i].len()])
            .max()
            .unwrap_or(0)
            + 4
    };
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<width$}", width = width(i)));
        println!("{}", padded.collect::<String>().trim_end());
    };
    line(head.to_vec());
    for row in &rows {
        line(row.iter().map(String::as_str).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_a_method_and_a_format() {
        for (text, want) in [
            ("check", Ok((Call::Check, false))),
            ("lint,format=json", Ok((Call::Check, true))),
            ("method=outline,format=text", Ok((Call::Outline, false))),
            ("build", Ok((Call::Build, false))),
            (
                "x",
                Err("`x` cannot be asked; there are `build`, `check`, `targets`, `outline`"),
            ),
            (
                "check,json",
                Err(
                    "`json` is not an option of `--call`: there are `format=text` and `format=json`",
                ),
            ),
        ] {
            let got = call(text).map(|a| (a.call, a.json));
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        }
    }
}
