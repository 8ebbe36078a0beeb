//! Exit codes (after sysexits.h), as `stepwell --help` lists them, and how errors are shown.

use std::process::ExitCode;

use stepwell_build::{BuildError, Exit};
use stepwell_model::Origin;
use stepwell_model::event::Event;

use crate::report;

/// The command line is wrong (EX_USAGE).
pub const USAGE: u8 = 64;
/// What the user wrote is refused (EX_DATAERR).
pub const REFUSED: u8 = 65;
/// A guest trapped or reached a limit (EX_SOFTWARE).
pub const GUEST: u8 = 70;
/// The builder failed (EX_OSERR).
pub const FAILED: u8 = 71;
/// A step reached a limit (EX_TEMPFAIL).
pub const LIMIT: u8 = 75;
/// The isolation that is asked for is not to be had (EX_NOPERM).
pub const ISOLATION: u8 = 77;
/// Interrupted (128 + SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Shows a mistake on the command line.
pub fn usage(message: &str) -> ExitCode {
    report::error(message, &[], None);
    ExitCode::from(USAGE)
}

/// Shows why a build failed and returns the exit code for it.
pub fn failed(error: &BuildError) -> ExitCode {
    let place = report::place(origin(error));
    report::error(&error.to_string(), &place, error.hint().as_deref());
    ExitCode::from(code(error))
}

/// The same as the last event, for those who read events.
pub fn failed_event(error: &BuildError) -> Event {
    Event::Failed {
        message: error.to_string(),
        origin: origin(error).cloned(),
        hint: error.hint(),
        code: code(error),
    }
}

fn origin(error: &BuildError) -> Option<&Origin> {
    match error {
        BuildError::Step { origin, .. } | BuildError::StepSetup { origin, .. } => origin.as_deref(),
        _ => None,
    }
}

/// The exit code for an error.
pub fn code(error: &BuildError) -> u8 {
    match error {
        BuildError::Guest(_) => GUEST,
        BuildError::Step { exit, .. } => step(exit),
        BuildError::Interrupted => INTERRUPTED,
        error if error.is_isolation() => ISOLATION,
        error if error.is_users() => REFUSED,
        _ => FAILED,
    }
}

/// The step's own exit status; a signal as shells have it.
fn step(exit: &Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(*code).unwrap_or(1),
        Exit::Signal(signal) => 128u8.wrapping_add(u8::try_from(*signal).unwrap_or(0)),
        Exit::TimedOut | Exit::OutOfMemory | Exit::TooManyProcesses | Exit::Full { .. } => LIMIT,
        Exit::Cancelled => INTERRUPTED,
    }
}
