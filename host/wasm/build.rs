//! Builds the built-in guests and compiles them ahead of time, for `src/builtin.rs` to embed.
//!
//! Code is compiled for the target's baseline processor, not for the one that this machine happens to have: the
//! program is to run elsewhere.

use std::error::Error;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use stepwell_guest_build::{Guest, Toolchain};

#[path = "src/engine/config.rs"]
#[allow(dead_code, reason = "the program uses what the build script does not")]
mod config;

/// Name of the embedded file, and package of the guest.
const GUESTS: [(&str, &str); 2] = [
    ("dockerfile", "dockerfile-component"),
    ("cache-policy", "cache-policy-component"),
];

/// What a guest is made of, below the root of the workspace.
const SOURCES: [&str; 5] = [
    "guest-sdk",
    "frontends",
    // Not the directory above it, in which rustc puts something for a moment when a toolchain is tried.
    "host/wasm/guest-build/src",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    if let Err(error) = build() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=src/engine/config.rs");
    println!("cargo::rerun-if-env-changed=STEPWELL_WASM_SYSROOT");

    let toolchain = Toolchain::find()?;
    let engine = wasmtime::Engine::new(config::config().target(&std::env::var("TARGET")?)?)?;
    let target_dir = target_dir(&out).join("guests");
    let mut table = String::new();
    for (name, package) in GUESTS {
        let component = Guest::of_workspace(&root, package).component(&toolchain, &target_dir)?;
        let code = engine.precompile_component(&component)?;
        std::fs::write(out.join(format!("{name}.cwasm")), code)?;
        table += &row(name, &Sha256::digest(&component));
    }
    std::fs::write(out.join("builtin.rs"), table)?;
    Ok(())
}

/// The line of `src/builtin.rs` that embeds a guest.
fn row(name: &str, digest: &[u8]) -> String {
    let constant = name.to_uppercase().replace('-', "_");
    format!(
        "pub const {constant}: Builtin = Builtin {{ name: {name:?}, digest: Digest::from_bytes({digest:?}), \
         code: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.cwasm\")) }};\n"
    )
}

/// The target directory that `out` lies in, so that all profiles share one build of the guests.
fn target_dir(out: &Path) -> &Path {
    out.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .unwrap_or(out)
}
