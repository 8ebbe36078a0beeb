//! Builds a guest of this workspace into a component: `stepwell-guest-build PACKAGE FILE.wasm`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stepwell_guest_build::{Guest, Toolchain};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [package, file] = &args[..] else {
        eprintln!("usage: stepwell-guest-build PACKAGE FILE.wasm");
        return ExitCode::from(2);
    };
    match build(package, Path::new(file)) {
        Ok(size) => {
            println!("{file}: {size} bytes");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build(package: &str, file: &Path) -> Result<usize, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), PathBuf::from)
        .join("guests");
    let component = Guest::of_workspace(&root, package).component(&Toolchain::find()?, &target)?;
    std::fs::write(file, &component)?;
    Ok(component.len())
}
