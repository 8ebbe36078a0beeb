//! `stepwell`: from the command line to a `Request`, and from events and errors to what people and scripts read.
//!
//! The only place that prints, reads the environment or the home directory, or exits.
#![forbid(unsafe_code)]

mod args;
mod attest;
mod build;
mod check;
mod docker;
mod doctor;
mod environment;
mod exit;
mod inspect;
mod output;
mod progress;
mod report;
mod request;
mod sarif;
mod signals;
mod sources;
mod storage;
mod supplies;
mod values;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use stepwell_steps::run::init;
use stepwell_sys::process;

use args::{Cli, Command};

fn main() -> ExitCode {
    // A RUN step's first process is this program again; it must do nothing else.
    if init::is_init_invocation() {
        init::init_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(exit::USAGE)
            };
        }
    };
    if !matches!(cli.command, Command::Build(_) | Command::Prune(_)) {
        // What only tells something ends with who reads it (`stepwell doctor | head`).
        process::reset_signals();
    }
    match cli.command {
        Command::Build(args) => build::build(&args),
        Command::Explain(args) => build::explain(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Du(args) => storage::du(&args),
        Command::Prune(args) => storage::prune(&args),
    }
}
