//! Tests that find something missing, and say so: what a test prints that passes is shown to nobody by its runner, so it is kept beside
//! what was compiled, and `cargo xtask test` tells it at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use crate::program::target_dir;

fn list() -> PathBuf {
    target_dir().join("not-run")
}

/// Says that this test, or a part of it, is not run here, and why.
pub fn not_run(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a part of a test");
    println!("NOT RUN: {test}: {why}");
    // One write, because tests run side by side.
    let line = format!("{why}\t{test}\n");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(list())
        .expect("the list of what is not run");
    file.write_all(line.as_bytes())
        .expect("the list of what is not run");
}

/// Begins a new list.
pub fn forget() -> Result<(), String> {
    match fs::remove_file(list()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("`{}`: {error}", list().display()))
        }
        _ => Ok(()),
    }
}

/// Returns what was said since then, a line for each reason.
pub fn told() -> Vec<String> {
    let text = fs::read_to_string(list()).unwrap_or_default();
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (why, test) in text.lines().filter_map(|line| line.split_once('\t')) {
        reasons.entry(why).or_default().insert(test);
    }
    let line = |(why, tests): (&str, BTreeSet<&str>)| {
        let tests: Vec<&str> = tests.into_iter().collect();
        format!("NOT RUN, all or a part: {why}: {}", tests.join(", "))
    };
    reasons.into_iter().map(line).collect()
}
