//! `cargo xtask`: set-up, the demonstration, the tests and the benchmark, each by one command on a fresh machine.
//!
//! Only the standard library and `tests/support`, so that it compiles in seconds.
#![forbid(unsafe_code)]

mod demo;
mod file_systems;
mod guest_std;
mod lockdown;
mod setup;
mod test;

use std::process::ExitCode;

/// A command: name, what it does, how.
type Command = (
    &'static str,
    &'static str,
    fn(&[String]) -> Result<(), String>,
);

const COMMANDS: &[Command] = &[
    (
        "setup",
        "installs what is missing: packages, the Wasm standard library, base images",
        setup::main,
    ),
    (
        "demo",
        "sets up, builds a multi-stage Debian image without privilege, pushes it to a registry on loopback and runs it",
        demo::main,
    ),
    (
        "test",
        "sets up and runs all tests (arguments go to the test runner)",
        test::main,
    ),
    (
        "file-systems",
        "sets up and runs the tests of trees and builds on xfs and btrfs (as root)",
        file_systems::main,
    ),
    (
        "lockdown",
        "sets up and runs the builds in real lockdowns, with Debian's kernels and AppArmor: half an hour (as root)",
        lockdown::main,
    ),
    (
        "bench",
        "sets up and runs the benchmark beside Buildah; `bench cost`: of RUN steps in each tier; `bench roots DIR…`: of their roots",
        test::bench,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((_, _, run)) = args
        .first()
        .and_then(|name| COMMANDS.iter().find(|(n, ..)| n == name))
    else {
        eprintln!("usage: cargo xtask COMMAND\n");
        for (name, what, _) in COMMANDS {
            eprintln!("  {name:<14}{what}");
        }
        return ExitCode::from(2);
    };
    match run(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
