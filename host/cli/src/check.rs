//! `stepwell check`: checks many Dockerfiles, and writes what is found as text, JSON or SARIF.

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::{Value, json};
use stepwell_build::BuildError;
use stepwell_build::check::{self, Checked};
use stepwell_model::{Diagnostic, Severity};

use crate::args::{CheckArgs, CheckFormat};
use crate::{exit, report, request, sarif};

/// Exit code where something was found.
pub const FOUND: u8 = 1;

/// `stepwell check`.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut files = Vec::new();
    for path in &args.paths {
        match check::find(path) {
            Ok(found) => files.extend(found),
            Err(BuildError::Read { path, source }) => {
                return exit::usage(&format!("cannot read `{}`: {source}", path.display()));
            }
            Err(other) => return exit::failed(&other),
        }
    }
    // A file that is named twice is checked once.
    files.dedup();
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get()));
    let checked = match check::files(&files, &request::limits(&args.guest), jobs) {
        Ok(checked) => checked,
        Err(error) => return exit::failed(&error),
    };
    write(&checked, args.format);
    outcome(&checked)
}

/// Counts what is worth an exit code: notes are not.
pub fn findings(diagnostics: &[Diagnostic]) -> usize {
    diagnostics
        .iter()
        .filter(|d| d.severity > Severity::Note)
        .count()
}

/// Writes messages for people, to standard error or to standard output.
pub fn print_text(diagnostics: &[Diagnostic], to_stderr: bool) {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let is_terminal = if to_stderr {
        std::io::stderr().is_terminal()
    } else {
        std::io::stdout().is_terminal()
    };
    for diagnostic in diagnostics {
        for line in report::diagnostic(diagnostic, is_terminal && !no_color) {
            if to_stderr {
                eprintln!("{line}");
            } else {
                println!("{line}");
            }
        }
    }
}

fn write(checked: &[Checked], format: CheckFormat) {
    match format {
        CheckFormat::Text => {
            checked
                .iter()
                .for_each(|c| print_text(diagnostics(c), false));
            println!("{}", summary(checked));
        }
        CheckFormat::Json => println!("{:#}", as_json(checked)),
        CheckFormat::Sarif => println!("{:#}", sarif::log(checked)),
    }
}

/// What was found in a file; nothing where it could not be checked.
pub fn diagnostics(checked: &Checked) -> &[Diagnostic] {
    checked.result.as_deref().unwrap_or_default()
}

/// `12 files checked: 1 error, 3 warnings`.
fn summary(checked: &[Checked]) -> String {
    let count = |severity| {
        checked
            .iter()
            .flat_map(diagnostics)
            .filter(|d| d.severity == severity)
            .count()
    };
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let found = match (errors, warnings) {
        (0, 0) => "nothing found".to_owned(),
        _ => format!(
            "{}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    };
    format!("{} checked: {found}", plural(checked.len(), "file"))
}

fn as_json(checked: &[Checked]) -> Value {
    let file = |c: &Checked| {
        let failure = c.result.as_ref().err().map(ToString::to_string);
        json!({ "file": c.file.display().to_string(), "failure": failure, "diagnostics": diagnostics(c) })
    };
    json!({ "format": 1, "files": checked.iter().map(file).collect::<Vec<_>>() })
}

/// A file that could not be checked counts for more than what was found in others.
fn outcome(checked: &[Checked]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for c in checked {
        match &c.result {
            Ok(list) if findings(list) > 0 => code = ExitCode::from(FOUND),
            _ => {}
        }
    }
    for error in checked.iter().filter_map(|c| c.result.as_ref().err()) {
        code = exit::failed(error);
    }
    code
}
