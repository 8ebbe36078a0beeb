//! The tests and the benchmark.

use std::path::PathBuf;
use std::process::Command;

use stepwell_test_support::cmd::{run, show, which};
use stepwell_test_support::{cache_dir, is_root, skipped, tools, workspace};

use crate::{file_systems, lockdown, setup};

/// Sets up and runs all tests.
pub fn main(args: &[String]) -> Result<(), String> {
    setup::build()?;
    setup::tools()?;
    // The tests run the program, and so may the set-up; it is built first, into the same target directory.
    show(cargo().args(["build", "--package", "stepwell"]))?;
    setup::images()?;
    skipped::forget()?;
    let mut tests = runner()?;
    tests.args(["--workspace", "--no-fail-fast"]);
    if !is_root() {
        tests.args(["--exclude", lockdown::PACKAGE]);
    }
    // What failed is told again at the end, where it is looked for.
    let result = show(tests.arg("--failure-output=immediate-final").args(args));
    for line in skipped::told() {
        println!("{line}");
    }
    if !is_root() {
        println!("{}", lockdown::NOT_RUN);
    }
    // Who names tests wants those.
    let there = if args.is_empty() {
        file_systems::quick()
    } else {
        Ok(())
    };
    result.and(there)
}

/// The test runner, in the source tree.
pub fn runner() -> Result<Command, String> {
    let runner = nextest()?;
    let mut command = cargo();
    command
        // Crates that know nothing of the set-up run its tools, too.
        .env("PATH", path_with(&runner))
        .args(["nextest", "run"]);
    Ok(command)
}

/// Sets up and runs the benchmark with an optimised program, or with `--debug` (of `bench cost`) as it is tested.
pub fn bench(args: &[String]) -> Result<(), String> {
    setup::build()?;
    setup::tools()?;
    let release = (!args.iter().any(|a| a == "--debug")).then_some("--release");
    show(
        cargo()
            .arg("build")
            .args(release)
            .args(["--package", "stepwell"]),
    )?;
    setup::images()?;
    show(
        cargo()
            .args(["run", "--quiet"])
            .args(release)
            .args(["--package", "stepwell-bench", "--"])
            .args(args),
    )
}

/// Cargo, in the source tree.
pub fn cargo() -> Command {
    at_root("cargo")
}

/// A program, in the source tree.
pub fn at_root(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace());
    command
}

/// Finds the test runner, or builds it once into the cache directory.
fn nextest() -> Result<PathBuf, String> {
    let own = cache_dir().join("nextest");
    if let Some(found) = which("cargo-nextest")
        .or_else(|| Some(own.join("bin/cargo-nextest")).filter(|p| p.is_file()))
    {
        return Ok(found);
    }
    println!("setup: builds the test runner cargo-nextest (some minutes, once)");
    run(cargo()
        .args([
            "install",
            "--quiet",
            "--locked",
            "--no-default-features",
            "--features",
            "default-no-update",
            "--root",
        ])
        .arg(&own)
        .arg("cargo-nextest@0.9.143"))?;
    Ok(own.join("bin/cargo-nextest"))
}

fn path_with(program: &std::path::Path) -> std::ffi::OsString {
    let old = tools::path();
    let dirs = program
        .parent()
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&old));
    std::env::join_paths(dirs).unwrap_or(old)
}
