//! `cargo xtask bench`: Stepwell and Buildah build the same contexts in one run, each from nothing, without a change, and
//! after one changed file; both push to a registry on loopback.  Prints wall time, processor time and peak memory,
//! and the ratios, as a Markdown table.
//!
//! `cargo xtask bench cost` measures RUN steps alone, in each tier ([`cost`]); `cargo xtask bench parse` the Dockerfile
//! frontend ([`parse`]), `cargo xtask bench roots DIR…` how the roots of branches are made ([`roots`]).
//!
//! Nothing here is a test: the machine's other work moves the times, the ratios much less.
#![forbid(unsafe_code)]

mod builder;
mod case;
mod cost;
mod measure;
mod parse;
mod roots;
mod table;

use std::path::Path;
use std::process::ExitCode;

use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, user};

use builder::{Buildah, Builder, Stepwell};
use case::{CASES, Case, Mode};
use table::Table;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let result = match wanted.split_first() {
        Some((first, args)) if first == "cost" => cost::main(args),
        Some((first, args)) if first == "roots" => roots::main(args),
        Some((first, [])) if first == "parse" => parse::main(),
        _ => run(&wanted).map(|table| print!("{table}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases named in `wanted`, or all.
fn run(wanted: &[String]) -> Result<Table, String> {
    let work = tempfile::Builder::new()
        .prefix("stepwell-bench-")
        .tempdir_in("/var/tmp")
        .map_err(|e| format!("a work directory: {e}"))?;
    let registry = Registry::start(&work.path().join("registry"))?;
    let debian = base::push(&base::debian()?, &registry.host(), "debian:12")?;
    base::push(&base::busybox()?, &registry.host(), "busybox:1")?;
    let mut table = Table::default();
    for case in CASES
        .iter()
        .filter(|c| wanted.is_empty() || wanted.iter().any(|w| w == c.name))
    {
        eprintln!("bench: {}: {}", case.name, case.what);
        for builder in [&Stepwell as &dyn Builder, &Buildah] {
            run_case(case, builder, work.path(), &registry, &debian, &mut table)?;
        }
    }
    Ok(table)
}

fn run_case(
    case: &Case,
    builder: &dyn Builder,
    work: &Path,
    registry: &Registry,
    debian: &str,
    table: &mut Table,
) -> Result<(), String> {
    let dir = work.join(format!("{}-{}", case.name, builder.name()));
    let context = dir.join("context");
    std::fs::create_dir_all(&context).map_err(|e| format!("`{}`: {e}", context.display()))?;
    case.write(&context, &registry.host(), debian)?;
    user::give(&dir)?;
    let image = format!(
        "{}/bench/{}-{}:latest",
        registry.host(),
        case.name,
        builder.name()
    );
    for mode in [Mode::Cold, Mode::NoChange, Mode::OneFile] {
        if mode == Mode::OneFile {
            case.touch(&context)?;
        }
        let measured = measure::all(&builder.commands(&dir.join("state"), &context, &image))?;
        eprintln!(
            "bench: {:<10} {:<9} {:<10} {measured}",
            case.name,
            builder.name(),
            mode.name()
        );
        table.add(case.name, mode.name(), builder.name(), measured);
    }
    builder.clean(&dir.join("state"))
}
