//! Exit codes (after sysexits.h), as `stepwell --help` lists them, and how errors are shown.

use std::process::ExitCode;

use stepwell_build::{BuildError, Exit, GuestError};

use crate::report;

/// The command line is wrong (EX_USAGE).
pub const USAGE: u8 = 64;
/// What the user wrote is refused (EX_DATAERR).
pub const REFUSED: u8 = 65;
/// A guest trapped or reached a limit (EX_SOFTWARE).
pub const GUEST: u8 = 70;
/// The builder failed (EX_OSERR).
pub const FAILED: u8 = 71;
/// A step reached its time limit (EX_TEMPFAIL).
pub const TIME_LIMIT: u8 = 75;
/// Interrupted (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Shows a mistake on the command line.
pub fn usage(message: &str) -> ExitCode {
    report::error(message, &[], None);
    ExitCode::from(USAGE)
}

/// Shows why a build failed and returns the exit code for it.
pub fn failed(error: &BuildError) -> ExitCode {
    let (code, hint) = meaning(error);
    match error {
        BuildError::Step { origin, .. } | BuildError::StepSetup { origin, .. } => report::error(
            &error.to_string(),
            &report::place(origin.as_deref()),
            hint.as_deref(),
        ),
        _ => report::error(&error.to_string(), &[], hint.as_deref()),
    }
    ExitCode::from(code)
}

fn meaning(error: &BuildError) -> (u8, Option<String>) {
    match error {
        BuildError::Refused(_) => (REFUSED, None),
        BuildError::Guest(GuestError::Limit { .. }) => (
            GUEST,
            Some(
                "limits of guests have flags of their own: see `stepwell build --help`".to_owned(),
            ),
        ),
        BuildError::Guest(_) => (GUEST, None),
        BuildError::Step { exit, .. } => (step(exit), None),
        BuildError::StepSetup { source, .. } => (
            if source.is_users() { REFUSED } else { FAILED },
            source.hint(),
        ),
        BuildError::Interrupted => (INTERRUPTED, None),
        BuildError::Read { .. } => (REFUSED, Some("name the file with `--file`".to_owned())),
        BuildError::Registry(e) => (FAILED, e.hint().map(str::to_owned)),
        _ => (FAILED, None),
    }
}

/// The step's own exit status; a signal as shells have it.
fn step(exit: &Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(*code).unwrap_or(1),
        Exit::Signal(signal) => 128u8.wrapping_add(u8::try_from(*signal).unwrap_or(0)),
        Exit::TimedOut => TIME_LIMIT,
        Exit::Cancelled => INTERRUPTED,
    }
}
