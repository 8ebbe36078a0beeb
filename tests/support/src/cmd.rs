//! Running programs, with errors that say what was run and what it said.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::tools;

/// A command with the tools that set-up unpacked (if any) on its `PATH`.
pub fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", tools::path());
    command
}

/// Runs a command to its end; anything but success is an error with its output.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = output(command)?;
    if !output.status.success() {
        return Err(format!(
            "`{command:?}` ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end and returns whatever it did.
pub fn output(command: &mut Command) -> Result<Output, String> {
    command.stdin(Stdio::null()).output().map_err(|e| {
        format!(
            "`{}` cannot be run: {e}",
            command.get_program().to_string_lossy()
        )
    })
}

/// Runs a command whose output the user sees.
pub fn show(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| {
        format!(
            "`{}` cannot be run: {e}",
            command.get_program().to_string_lossy()
        )
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{command:?}` ended with {status}"))
    }
}

/// Finds the file of a program that [`tool`] can run.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&tools::path())
        .filter(|dir| *dir != tools::wrappers())
        .chain(tools::programs())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
