//! Tests that find something missing, and say so: what a test prints that passes is shown to nobody by its runner, so it is kept beside
//! what was compiled, and `cargo xtask test` tells it at the end.

use std::collections::BTreeSet;
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
    let line = format!(
        "NOT RUN: {}: {why}\n",
        thread.name().unwrap_or("a part of a test")
    );
    print!("{line}");
    // One write, because tests run side by side.
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

/// Returns the lines since then, in order and each once.
pub fn told() -> BTreeSet<String> {
    let text = fs::read_to_string(list()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
