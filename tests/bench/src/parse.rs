//! `cargo xtask bench parse`: what the Dockerfile frontend costs, as a guest and as native code, and its share of a build
//! that changes nothing; how many files `stepwell check` reads in a second.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dockerfile_core::lower::host as core;
use stepwell_model::Platform;
use stepwell_model::request::GuestLimits;
use stepwell_test_support::registry::Registry;
use stepwell_test_support::{base, program, user};
use stepwell_wasm::GuestEngine;
use stepwell_wasm::frontend::{
    AccessError, Definition, DirectoryEntry, EntryStat, Frontend, FrontendHost, FrontendInput,
    FrontendSource, ResolveError, ResolvedImage,
};

use crate::builder::{Builder as _, Stepwell};
use crate::case::CASES;
use crate::measure;

/// Numbers of instructions; the smallest shows what a call costs whatever it reads.
const SIZES: &[usize] = &[1, 10, 100, 1_000, 5_000];

/// Each is measured so often, and the best is told.
const TIMES: usize = 7;

/// Dockerfiles of the tree that is checked.
const FILES: usize = 3_000;

/// Measures and prints.
pub fn main() -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let engine = GuestEngine::new(None).map_err(|e| text(&e))?;
    let load = || Frontend::load(&engine, &FrontendSource::BuiltinDockerfile);
    let (loaded, loading) = best(load);
    let frontend = loaded.map_err(|e| text(&e))?;
    println!(
        "| instructions | in Wasm, µs each | native, µs each | ratio | whole call in Wasm, ms |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for &size in SIZES {
        let content = dockerfile(size);
        let (inside, wasm) = best(|| in_wasm(&frontend, &content));
        inside?;
        let (outside, native) = best(|| natively(&content));
        outside?;
        let each = |d: Duration| d.as_secs_f64() * 1e6 / size as f64;
        println!(
            "| {size} | {:.2} | {:.2} | {:.2} | {:.3} |",
            each(wasm),
            each(native),
            wasm.as_secs_f64() / native.as_secs_f64(),
            wasm.as_secs_f64() * 1e3
        );
    }
    println!(
        "\nLoading the component: {:.3} ms.",
        loading.as_secs_f64() * 1e3
    );
    share(&frontend, loading)?;
    check_tree()
}

/// The frontend's share of a build without a change.
fn share(frontend: &Frontend<'_>, loading: Duration) -> Result<(), String> {
    let work = tempfile::Builder::new()
        .prefix("stepwell-bench-")
        .tempdir_in("/var/tmp")
        .map_err(|e| format!("a work directory: {e}"))?;
    let registry = Registry::start(&work.path().join("registry"))?;
    let busybox = base::push(&base::busybox()?, &registry.host(), "busybox:1")?;
    let context = work.path().join("context");
    std::fs::create_dir_all(&context).map_err(|e| format!("`{}`: {e}", context.display()))?;
    let case = &CASES[0];
    case.write(&context, &registry.host(), &busybox)?;
    user::give(work.path())?;
    let image = format!("{}/bench/parse:latest", registry.host());
    let build = || measure::all(&Stepwell.commands(&work.path().join("state"), &context, &image));
    build()?;
    let mut whole = f64::MAX;
    for _ in 0..TIMES {
        whole = whole.min(build()?.wall);
    }
    // The images of its FROM lines are looked up by the host: here they are none.
    let content = std::fs::read_to_string(context.join("Dockerfile"))
        .map_err(|e| e.to_string())?
        .replace(&busybox, "scratch")
        .replace(&format!("{}/busybox:1", registry.host()), "scratch");
    let (inside, wasm) = best(|| in_wasm(frontend, &content));
    inside?;
    let part = (loading + wasm).as_secs_f64();
    println!(
        "A build without a change (`{}`): {:.1} ms; loading and running the frontend: {:.2} ms, {:.1} %.",
        case.name,
        whole * 1e3,
        part * 1e3,
        100.0 * part / whole
    );
    Stepwell.clean(&work.path().join("state"))
}

/// How long `stepwell check` takes for a tree of Dockerfiles.
fn check_tree() -> Result<(), String> {
    let tree = tempfile::tempdir_in("/var/tmp").map_err(|e| e.to_string())?;
    for n in 0..FILES {
        let dir = tree.path().join(format!("d{}/s{n}", n / 100));
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        std::fs::write(dir.join("Dockerfile"), dockerfile(5 + n % 40))
            .map_err(|e| e.to_string())?;
    }
    let (found, took) = best(|| checked(tree.path()));
    found?;
    println!(
        "`stepwell check` of {FILES} Dockerfiles: {:.2} s, {:.0} a second.",
        took.as_secs_f64(),
        FILES as f64 / took.as_secs_f64()
    );
    Ok(())
}

fn checked(tree: &Path) -> Result<(), String> {
    let output = std::process::Command::new(program::release())
        .arg("check")
        .arg(tree)
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(format!(
            "`stepwell check` ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// A Dockerfile of so many instructions besides the first, of the kinds that are common.  It has a few names only: each RUN
/// carries the whole environment, so that the graph grows with the product of both.
fn dockerfile(instructions: usize) -> String {
    let mut text = String::from("FROM scratch AS build\n");
    for n in 0..instructions {
        let _ = match n % 6 {
            0 => writeln!(text, "ARG VERSION_{}=1.{n}", n % 60),
            1 => writeln!(
                text,
                "ENV NAME_{}=\"value ${{VERSION_{}:-none}} $PATH\"",
                n % 60,
                (n - 1) % 60
            ),
            2 => writeln!(
                text,
                "RUN apt-get update \\\n    && apt-get install -y package-{n} \\\n    && rm -rf /var/lib/apt/lists/*"
            ),
            3 => writeln!(
                text,
                "COPY --chown=1000:1000 src/{n}/*.rs Cargo.toml /app/{n}/"
            ),
            4 => writeln!(text, "WORKDIR /app/{n}"),
            _ => writeln!(text, "LABEL org.example.part{}=\"part number {n}\"", n % 60),
        };
    }
    text
}

fn in_wasm(frontend: &Frontend<'_>, content: &str) -> Result<(), String> {
    let input = FrontendInput {
        definition: Definition {
            name: "Dockerfile".to_owned(),
            content: content.as_bytes().to_vec(),
        },
        ..FrontendInput::default()
    };
    let built = frontend.build(&input, &GuestLimits::default(), &mut Nothing);
    built.map(drop).map_err(|e| e.to_string())
}

fn natively(content: &str) -> Result<(), String> {
    let host = Platform::host();
    let platform = core::Platform {
        os: host.os,
        architecture: host.architecture,
        variant: String::new(),
    };
    let request = core::Request {
        file: "Dockerfile".to_owned(),
        content: content.as_bytes().to_vec(),
        target_platform: platform.clone(),
        build_platform: platform,
        ..core::Request::default()
    };
    dockerfile_core::build(&request, &mut Counting(0))
        .map(drop)
        .map_err(|e| format!("{e:?}"))
}

/// Does something often and returns the shortest time.
fn best<T>(mut work: impl FnMut() -> T) -> (T, Duration) {
    let mut shortest = Duration::MAX;
    let mut last = None;
    for _ in 0..TIMES {
        let began = Instant::now();
        last = Some(work());
        shortest = shortest.min(began.elapsed());
    }
    (last.expect("done at least once"), shortest)
}

/// An empty context and no registry, for the guest.
struct Nothing;

impl FrontendHost for Nothing {
    fn read(&mut self, _: &str, _: &str, _: u64) -> Result<Vec<u8>, AccessError> {
        Err(AccessError::NotFound)
    }

    fn stat(&mut self, _: &str, _: &str) -> Result<EntryStat, AccessError> {
        Err(AccessError::NotFound)
    }

    fn list(&mut self, _: &str, _: &str) -> Result<Vec<DirectoryEntry>, AccessError> {
        Err(AccessError::NotFound)
    }

    fn resolve_image(&mut self, _: &str, _: &Platform) -> Result<ResolvedImage, ResolveError> {
        Err(ResolveError::NotFound(String::new()))
    }
}

/// The same natively; vertices are counted and dropped, which is what the guest's side of the contract does.
struct Counting(u32);

impl core::Host for Counting {
    fn read(&mut self, _: &str, _: &str, _: u64) -> Result<Vec<u8>, core::ReadError> {
        Err(core::ReadError::NotFound)
    }

    fn resolve(
        &mut self,
        reference: &str,
        _: &core::Platform,
    ) -> Result<core::ResolvedImage, core::ResolveError> {
        unreachable!("`{reference}`: there are no images in these Dockerfiles")
    }

    fn add(&mut self, _: core::Vertex) -> Result<core::VertexId, String> {
        self.0 += 1;
        Ok(core::VertexId(self.0 - 1))
    }
}
