//! What the tests, the demonstration and the benchmarks need besides Stepwell: tools from Debian's packages, a real registry
//! on loopback, a real Debian base image.  Almost only the standard library, so that
//! `cargo xtask` compiles in seconds.
#![forbid(unsafe_code)]

pub mod base;
pub mod bundle;
pub mod cmd;
mod debian;
pub mod program;
pub mod registry;
pub mod skipped;
pub mod tools;
pub mod user;

pub use skipped::not_run;

use std::path::PathBuf;

/// Returns the directory in which prepared things are kept between runs: `$XDG_CACHE_HOME/stepwell`, by default
/// `~/.cache/stepwell`.
pub fn cache_dir() -> PathBuf {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
        }
    };
    base.join("stepwell")
}

/// Returns the root of the source tree.
pub fn workspace() -> PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Says whether this process is the machine's root (not a root inside a user namespace of its own).
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
        && std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
