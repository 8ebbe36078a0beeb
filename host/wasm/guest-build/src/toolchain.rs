//! Finding a rustc that can compile for wasm32-unknown-unknown.  Nothing is installed here: `cargo xtask setup` does.
//!
//! In order: a sysroot that `STEPWELL_WASM_SYSROOT` names; the active rustc, where rustup has added the target; the
//! sysroot that the set-up makes where rustup cannot download, `$XDG_CACHE_HOME/stepwell/wasm-sysroot`.  A sysroot
//! fits one version of rustc only, so that each candidate is tried with a crate of one line: the active one, the operating
//! system's, and the one that the set-up unpacks below `stepwell/tools` where it may not install packages.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::TARGET;

/// Names a sysroot that holds the target's standard library.
pub const SYSROOT_VARIABLE: &str = "STEPWELL_WASM_SYSROOT";

/// A rustc of the operating system, for which the set-up builds the standard library where rustup cannot download it.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that has the target's standard library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    rustc: Rustc,
    sysroot: Option<PathBuf>,
    linker: Option<PathBuf>,
}

/// A compiler, and where its shared libraries are when the system's loader does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rustc {
    path: PathBuf,
    libraries: Option<OsString>,
}

/// Why there is no usable compiler.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No candidate works.
    #[error(
        "no rustc can compile for {TARGET}; run `cargo xtask setup`, or `rustup target add {TARGET}` (tried: {tried})"
    )]
    NotFound {
        /// The candidates, and what each said.
        tried: String,
    },
    /// The sysroot that the environment names does not work.
    #[error("the sysroot `{}` of {SYSROOT_VARIABLE} does not work: {tried}", path.display())]
    Sysroot {
        /// The sysroot.
        path: PathBuf,
        /// The candidates, and what each said.
        tried: String,
    },
}

/// Variables of an outer cargo or of its wrappers (clippy) that must not reach the nested one.
const OUTER: [&str; 9] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "MAKEFLAGS",
];

impl Toolchain {
    /// Finds a compiler, by the rules above.
    pub fn find() -> Result<Self, ToolchainError> {
        let path = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
        let active = Rustc::new(path);
        let mut tried = Vec::new();
        if let Some(path) = std::env::var_os(SYSROOT_VARIABLE).map(PathBuf::from) {
            return Self::with_sysroot(&active, &path, &mut tried).ok_or_else(|| {
                ToolchainError::Sysroot {
                    path,
                    tried: tried.join("; "),
                }
            });
        }
        Self::try_one(&active, &active, None, &mut tried)
            .or_else(|| Self::with_sysroot(&active, &made_by_setup()?, &mut tried))
            .ok_or_else(|| ToolchainError::NotFound {
                tried: tried.join("; "),
            })
    }

    /// Makes a cargo command use this compiler for guests, and nothing of an outer cargo's settings.
    pub fn configure(&self, cargo: &mut Command) {
        for name in OUTER {
            cargo.env_remove(name);
        }
        self.rustc.configure(cargo);
        cargo.env("RUSTC", &self.rustc.path);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\x1f"));
        if let Some(linker) = &self.linker {
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
    }

    /// The same source gives the same component in everybody's home, because its digest is part of every cache key: so
    /// the home must not show in the messages of panics.
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        if let Some(sysroot) = &self.sysroot {
            flags.extend(["--sysroot".into(), sysroot.display().to_string()]);
        }
        if let Some(home) = cargo_home() {
            flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
        }
        flags
    }

    fn with_sysroot(active: &Rustc, sysroot: &Path, tried: &mut Vec<String>) -> Option<Self> {
        let system = Rustc::new(SYSTEM_RUSTC.into());
        [Some(active.clone()), Some(system), Rustc::unpacked()]
            .iter()
            .flatten()
            .find_map(|rustc| Self::try_one(active, rustc, Some(sysroot), tried))
    }

    fn try_one(
        active: &Rustc,
        rustc: &Rustc,
        sysroot: Option<&Path>,
        tried: &mut Vec<String>,
    ) -> Option<Self> {
        match rustc.compile_a_line(sysroot) {
            Ok(()) => Some(Self {
                rustc: rustc.clone(),
                sysroot: sysroot.map(Path::to_owned),
                linker: active.linker(),
            }),
            Err(why) => {
                let with = sysroot.map_or_else(String::new, |s| format!(" with {}", s.display()));
                tried.push(format!("{}{with}: {why}", rustc.path.display()));
                None
            }
        }
    }
}

impl Rustc {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            libraries: None,
        }
    }

    /// The compiler that the set-up unpacked from the operating system's packages.
    fn unpacked() -> Option<Self> {
        let tools = cache()?.join("stepwell/tools");
        let path = tools.join("usr/bin/rustc");
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let places = [
            tools.join("usr/lib").join(&triplet),
            tools.join("lib").join(&triplet),
            tools.join("usr/lib"),
        ];
        path.is_file().then(|| Self {
            path,
            libraries: std::env::join_paths(places).ok(),
        })
    }

    /// Lets a command find the compiler's shared libraries.
    fn configure(&self, command: &mut Command) {
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        self.configure(&mut command);
        command
    }

    /// Compiles a crate of one line that needs the standard library; returns the first line of the complaint.
    fn compile_a_line(&self, sysroot: Option<&Path>) -> Result<(), String> {
        let mut command = self.command();
        if let Some(sysroot) = sysroot {
            command.arg("--sysroot").arg(sysroot);
        }
        let mut child = command
            .args(["--target", TARGET, "--crate-type=lib", "--crate-name=probe"])
            // To the standard output: rustc would replace a device that is named here by a file.
            .args(["--emit=metadata=-", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        // A compiler that stops before it reads says why on its standard error.
        let _ = child
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(b"pub fn f() -> String { String::new() }"));
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(stderr.lines().next().unwrap_or("failed").to_owned())
    }

    /// The linker that rustup's toolchains bring; a compiler of the operating system may lack it.
    fn linker(&self) -> Option<PathBuf> {
        let print = |what: &[&str]| {
            let output = self.command().args(what).output().ok()?;
            String::from_utf8(output.stdout).ok()
        };
        let sysroot = print(&["--print", "sysroot"])?;
        let version = print(&["-vV"])?;
        let host = version.lines().find_map(|l| l.strip_prefix("host: "))?;
        let linker = PathBuf::from(sysroot.trim())
            .join("lib/rustlib")
            .join(host)
            .join("bin/rust-lld");
        linker.is_file().then_some(linker)
    }
}

fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

/// The user's cache directory.
fn cache() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty());
    set.map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
}

/// The sysroot that the set-up makes.
fn made_by_setup() -> Option<PathBuf> {
    let sysroot = cache()?.join("stepwell/wasm-sysroot");
    sysroot.is_dir().then_some(sysroot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_without_the_target_says_so() {
        let empty = tempfile();
        let rustc = Rustc::new("rustc".into());
        let why = rustc.compile_a_line(Some(&empty)).unwrap_err();
        assert!(why.contains("error"), "{why}");
        let missing = Rustc::new("/nonexistent/rustc".into());
        assert!(missing.compile_a_line(None).is_err());
    }

    #[test]
    fn this_machine_can_build_guests() {
        let toolchain = Toolchain::find().expect("`cargo xtask setup` was run");
        let mut command = Command::new("true");
        toolchain.configure(&mut command);
        assert!(command.get_envs().any(|(name, _)| name == "RUSTC"));
    }

    fn tempfile() -> PathBuf {
        std::env::temp_dir().join("stepwell-no-such-sysroot")
    }
}
