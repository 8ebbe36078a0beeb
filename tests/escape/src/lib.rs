//! Hostile steps: what a RUN step tries in order to get out, and the surroundings in which it would show that it did.
//!
//! [`table`] has a row for each attack, with the promise that it is about; the attacks are functions of the program in
//! `helpers/attacks`.  `README.md` says which defence was seen to be missed by which attack.
#![forbid(unsafe_code)]

pub mod outside;
pub mod table;

use std::path::PathBuf;
use std::process::Command;

use stepwell_integration_tests::World;
use stepwell_integration_tests::denial::{compile_all, narrow_flags};

/// Compiles the program of all attacks to `to` in the world.
pub fn attacks(world: &World, to: &str) {
    compile_attacks(world, &[], to);
}

/// The same as a program of 32 bits, whose calls are others.
pub fn narrow_attacks(world: &World, to: &str) {
    compile_attacks(world, &narrow_flags(true), to);
}

fn compile_attacks(world: &World, flags: &[String], to: &str) {
    let sources = std::fs::read_dir(helper("attacks")).expect("the helpers");
    let sources: Vec<PathBuf> = sources
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .collect();
    let mut all = vec!["-D_GNU_SOURCE", "-static", "-pthread"];
    all.extend(flags.iter().map(|flag| &**flag));
    compile_all(&sources, &all, &world.path(to));
}

/// Returns the command that executes what follows it in the surroundings of a careless builder (`helpers/builder.c`).
pub fn careless(world: &World) -> Command {
    let program = world.path("builder");
    if !program.exists() {
        compile_all(&[helper("builder.c")], &["-D_GNU_SOURCE"], &program);
    }
    let mut command = Command::new(program);
    command.arg(world.path("outside/secret"));
    command
}

/// Path of a helper.
pub fn helper(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "helpers", name]
        .iter()
        .collect()
}
