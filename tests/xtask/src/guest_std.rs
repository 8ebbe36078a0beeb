//! The Wasm standard library that the guests are compiled with: rustup's where it can be had, else built once from
//! Debian's packages of the compiler and its sources, into a sysroot below the cache directory.
//!
//! host/wasm/guest-build looks for them in the same places.

use std::path::{Path, PathBuf};
use std::process::Command;

use stepwell_test_support::cmd::{run, show};
use stepwell_test_support::{cache_dir, tools};

const TARGET: &str = "wasm32-unknown-unknown";

/// Makes sure that guests can be compiled.
pub fn ensure() -> Result<(), String> {
    if std::env::var_os("STEPWELL_WASM_SYSROOT").is_some()
        || library_dir(None)?.is_dir() && has_std(&library_dir(None)?)
    {
        return Ok(());
    }
    let sysroot = cache_dir().join("wasm-sysroot");
    if has_std(&library_dir(Some(&sysroot))?) {
        return Ok(());
    }
    println!("setup: needs the Rust standard library for {TARGET}");
    if show(Command::new("rustup").args(["--quiet", "target", "add", TARGET])).is_ok()
        && has_std(&library_dir(None)?)
    {
        return Ok(());
    }
    println!("setup: rustup cannot download it; builds it from Debian's packages (two minutes)");
    build(&sysroot)
}

/// Directory of the standard library for the target, in the toolchain or in a sysroot of ours.
fn library_dir(sysroot: Option<&Path>) -> Result<PathBuf, String> {
    match sysroot {
        Some(sysroot) => Ok(sysroot.join("lib/rustlib").join(TARGET).join("lib")),
        None => run(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))
            .map(|p| PathBuf::from(p.trim())),
    }
}

fn has_std(dir: &Path) -> bool {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Builds the standard library with Debian's compiler (`rustc-web`), whose sources are packaged too, and rustup's cargo.
fn build(sysroot: &Path) -> Result<(), String> {
    let compiler = debian_compiler()?;
    let linker = PathBuf::from(run(Command::new("rustc").args(["--print", "sysroot"]))?.trim())
        .join(format!(
            "lib/rustlib/{}-unknown-linux-gnu/bin/rust-lld",
            std::env::consts::ARCH
        ));
    let work = cache_dir().join("wasm-std-build");
    let io = |e: std::io::Error| format!("`{}`: {e}", work.display());
    std::fs::create_dir_all(work.join("src")).map_err(io)?;
    std::fs::write(
        work.join("Cargo.toml"),
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    )
    .map_err(io)?;
    std::fs::write(work.join("src/lib.rs"), "#![no_std]\n").map_err(io)?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(&work)
        .env("RUSTC", &compiler)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Cembed-bitcode=yes -Cdebuginfo=0")
        .env("CARGO_TARGET_DIR", work.join("target"));
    // This cargo is run by another one, whose settings are not for it.
    for name in [
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "RUSTUP_TOOLCHAIN",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    cargo.env("LD_LIBRARY_PATH", tools::library_path());
    run(cargo.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "-Zbuild-std=std,panic_abort",
    ]))?;
    install(
        &work.join("target").join(TARGET).join("release/deps"),
        sysroot,
    )?;
    std::fs::remove_dir_all(&work).map_err(io)
}

/// Copies the libraries into place, atomically.
fn install(deps: &Path, sysroot: &Path) -> Result<(), String> {
    let io = |e: std::io::Error| format!("`{}`: {e}", sysroot.display());
    let part = sysroot.with_extension(format!("part-{}", std::process::id()));
    let into = library_dir(Some(&part))?;
    std::fs::create_dir_all(&into).map_err(io)?;
    for entry in std::fs::read_dir(deps).map_err(io)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".rlib") && !name.starts_with("libempty") {
            std::fs::copy(entry.path(), into.join(&*name)).map_err(io)?;
        }
    }
    let _ = std::fs::remove_dir_all(sysroot);
    std::fs::rename(&part, sysroot).map_err(io)
}

/// Finds or installs Debian's compiler of the newest kind.
fn debian_compiler() -> Result<PathBuf, String> {
    let find = || {
        [
            PathBuf::from("/usr/bin/rustc"),
            tools::unpacked().join("usr/bin/rustc"),
        ]
        .into_iter()
        .find(|p| p.is_file() && has_sources(p))
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    tools::install(&["rustc-web", "rust-web-src"])?;
    find().ok_or_else(|| format!("Debian's `rustc-web` brought no compiler; install the standard library for {TARGET} another way, and set STEPWELL_WASM_SYSROOT to its sysroot"))
}

fn has_sources(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    command.env("LD_LIBRARY_PATH", tools::library_path());
    run(command.args(["--print", "sysroot"])).is_ok_and(|root| {
        Path::new(root.trim())
            .join("lib/rustlib/src/rust/library/std")
            .is_dir()
    })
}
