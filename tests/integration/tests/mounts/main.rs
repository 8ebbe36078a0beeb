//! `RUN --mount` and the flags beside it, through the command line: as an ordinary user in every tier, and as root where the
//! tests run as root.

mod binds;
mod caches;
mod others;
mod secrets;
mod sharing;

use std::path::Path;
use std::process::Command;

/// Files below a directory whose bytes hold `text`.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let output = Command::new("grep")
        .args(["-rlaF", "--devices=skip", text])
        .arg(dir)
        .output()
        .expect("grep");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
