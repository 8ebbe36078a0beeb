//! Builds guests written in Rust into WebAssembly components, by a nested cargo.  Used by the build script of
//! `stepwell-wasm` for the built-in guests and by tests for theirs.
//!
//! It compiles nothing ahead of time and knows nothing of wasmtime; finding a compiler that has the target's
//! standard library is in [`toolchain`].
#![forbid(unsafe_code)]

pub mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use toolchain::{Toolchain, ToolchainError};

/// The target of all guests in Rust: no operating system, hence no WASI import.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The cargo profile of the guests, in the workspace's Cargo.toml.
pub const PROFILE: &str = "guest";

/// A guest that is to be built.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Cargo.toml of the workspace or package that holds it.
    pub manifest: PathBuf,
    /// Name of its package: a `cdylib`.
    pub package: String,
}

/// Why a guest cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GuestBuildError {
    /// There is no usable compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The nested cargo cannot be started.
    #[error("cannot start `{cargo}` to build the guest `{package}`: {source}")]
    Spawn {
        /// The cargo.
        cargo: String,
        /// The guest.
        package: String,
        /// Why.
        source: std::io::Error,
    },
    /// The nested cargo failed.
    #[error("building the guest `{package}` failed:\n{stderr}")]
    Cargo {
        /// The guest.
        package: String,
        /// What cargo wrote.
        stderr: String,
    },
    /// The module that cargo made cannot be read.
    #[error("cannot read the guest's module `{path}`: {source}")]
    Read {
        /// The module.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The module is no component in the making: it lacks the type that the SDK's macro adds, or an export.
    #[error("cannot make a component of the guest `{package}`: {reason}")]
    Encode {
        /// The guest.
        package: String,
        /// Why.
        reason: String,
    },
}

impl Guest {
    /// Names the guest `package` of the workspace at `root`.
    pub fn of_workspace(root: &Path, package: &str) -> Self {
        Self {
            manifest: root.join("Cargo.toml"),
            package: package.to_owned(),
        }
    }

    /// Builds the guest below `target_dir` and returns its component.
    pub fn component(
        &self,
        toolchain: &Toolchain,
        target_dir: &Path,
    ) -> Result<Vec<u8>, GuestBuildError> {
        self.cargo(toolchain, target_dir)?;
        let file = format!("{}.wasm", self.package.replace('-', "_"));
        let path = target_dir.join(TARGET).join(PROFILE).join(file);
        let module =
            std::fs::read(&path).map_err(|source| GuestBuildError::Read { path, source })?;
        self.encode(&module)
    }

    fn cargo(&self, toolchain: &Toolchain, target_dir: &Path) -> Result<(), GuestBuildError> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(&cargo);
        toolchain.configure(&mut command);
        let output = command
            .args([
                "build",
                "--locked",
                "--target",
                TARGET,
                "--profile",
                PROFILE,
            ])
            .args(["--package", &self.package, "--manifest-path"])
            .arg(&self.manifest)
            .arg("--target-dir")
            .arg(target_dir)
            // cargo lets rustc read the standard input when it asks it what it can do.
            .stdin(Stdio::null())
            .output()
            .map_err(|source| GuestBuildError::Spawn {
                cargo,
                package: self.package.clone(),
                source,
            })?;
        if output.status.success() {
            return Ok(());
        }
        Err(GuestBuildError::Cargo {
            package: self.package.clone(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn encode(&self, module: &[u8]) -> Result<Vec<u8>, GuestBuildError> {
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(module)
            .and_then(|encoder| encoder.encode())
            .map_err(|error| GuestBuildError::Encode {
                package: self.package.clone(),
                reason: format!("{error:#}"),
            })
    }
}
