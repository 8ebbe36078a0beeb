//! What a build takes from elsewhere: ADD of files and repositories, contexts and Dockerfiles behind addresses.

mod contexts;
mod faults;
mod files;
mod git;
mod provenance;
mod repository;
mod ssh;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use stepwell_integration_tests::archive::{self, Entry};
use stepwell_integration_tests::proxy::Tamper;
use stepwell_integration_tests::{Ran, World};
use stepwell_test_support::{program, user};

/// The files of a result, by path.
type Files = BTreeMap<String, Entry>;

/// An answer with this body.
fn page(body: impl AsRef<[u8]>) -> Tamper {
    Tamper::Answer(200, vec![], body.as_ref().to_vec())
}

/// Builds the world's context, and returns the files of the result.
fn built(world: &World, args: &[&str]) -> Files {
    let context = world.path("context").display().to_string();
    built_of(world, &context, args, None)
}

/// Builds a context of any kind, and returns the files of the result.
#[track_caller]
fn built_of(world: &World, context: &str, args: &[&str], input: Option<&[u8]>) -> Files {
    let dir = world.path("out");
    std::fs::create_dir_all(&dir).expect("a directory for the result");
    let out = dir.join("result.tar");
    let output = format!("--output=type=tar,dest={}", out.display());
    let all: Vec<&str> = args.iter().copied().chain([output.as_str()]).collect();
    let ran = build_of(world, context, &all, input);
    assert_eq!(ran.code, Some(0), "the build failed:\n{}", ran.err);
    let tar = std::fs::read(&out).expect("the result");
    archive::entries(&tar)
        .into_iter()
        .map(|e| (e.path.clone(), e))
        .collect()
}

/// Runs `stepwell build ARGS CONTEXT` as the ordinary user, with `input` on its standard input.
fn build_of(world: &World, context: &str, args: &[&str], input: Option<&[u8]>) -> Ran {
    let stdin = match input {
        None => Stdio::null(),
        Some(bytes) => {
            let path = world.path("input");
            std::fs::write(&path, bytes).expect("the input");
            std::fs::File::open(&path).expect("the input").into()
        }
    };
    world.give();
    let mut command = Command::new(program::debug());
    command
        .args(["build", "--progress=plain", "--root"])
        .arg(world.path("store"))
        .args(args.iter().map(|a| world.expand(a)))
        .arg(context);
    let out = user::ordinary(command)
        .stdin(stdin)
        .output()
        .expect("the program runs");
    Ran {
        code: out.status.code(),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// The content of a file of the result.
#[track_caller]
fn content(files: &Files, path: &str) -> String {
    let entry = files
        .get(path)
        .unwrap_or_else(|| panic!("`{path}` is not in {:?}", files.keys()));
    String::from_utf8_lossy(&entry.content).into_owned()
}

/// Asserts that nothing in the world's store has `text` in it.
#[track_caller]
fn is_not_in_store(world: &World, text: &str) {
    let found = Command::new("grep")
        .args(["-rlF", text])
        .arg(Path::new(&world.path("store")))
        .output()
        .expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
