//! What a security policy would deny: a helper in C that denies it to whatever it executes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stepwell_test_support::cmd::{run, tool};
use stepwell_test_support::tools::{narrow_library, narrow_root};
use stepwell_test_support::user;

use crate::{Ran, World, ran, under};

/// Returns the command that makes the denial `mode` (see `helpers/deny_mounts.c`) and executes what follows it.
pub fn denial(world: &World, mode: &str) -> Command {
    let program = world.path("deny_mounts");
    if !program.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/helpers/deny_mounts.c");
        compile_all(&[source.into()], &[], &program);
    }
    let mut denial = Command::new(program);
    denial.arg(mode);
    denial
}

/// The denial `restricted` (nothing is allowed), after it has been seen to deny.
pub fn restricted(world: &World) -> Command {
    let denial = denial(world, "restricted");
    for denied in [
        &["unshare", "--user", "true"][..],
        &["unshare", "--mount", "true"],
        &["chroot", "/", "true"],
    ] {
        let control = control(&denial, denied, user::ordinary);
        assert_ne!(control.code, Some(0), "{denied:?} was allowed");
    }
    denial
}

/// The denial `docker` (a container's root without namespaces), after it has been seen to deny what it should and
/// nothing more; for root.
pub fn docker(world: &World) -> Command {
    let denial = denial(world, "docker");
    let control = |args: &[&str]| control(&denial, args, |command| command);
    for denied in [
        &["unshare", "--user", "true"][..],
        &["unshare", "--mount", "true"],
    ] {
        assert_ne!(control(denied).code, Some(0), "{denied:?} was allowed");
    }
    let allowed = control(&["chroot", "/", "true"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.err);
    denial
}

fn control(denial: &Command, args: &[&str], by: impl Fn(Command) -> Command) -> Ran {
    let mut command = Command::new(args[0]);
    command.args(&args[1..]).stdin(Stdio::null());
    ran(&mut under(denial, &by(command)))
}

/// Flags for programs of 32 bits: static ones, or such with a linker and a library.
pub fn narrow_flags(is_static: bool) -> Vec<String> {
    let usr = narrow_root().join("usr");
    let mut flags = vec!["-m32".to_owned()];
    // Where the packages are unpacked and not installed, the compiler does not know of their files: headers that both kinds of
    // programs have are those of the machine, the rest is theirs.
    let theirs = std::fs::read_dir(usr.join("lib/gcc/x86_64-linux-gnu"));
    let compilers = theirs.into_iter().flatten().flatten();
    let places = compilers.map(|dir| dir.path().join("32"));
    for place in places.chain([usr.join("lib32")]) {
        flags.extend(["-B", "-L"].map(|flag| format!("{flag}{}", place.display())));
    }
    for include in [usr.join("include"), "/usr/include".into()] {
        let include = include.join("x86_64-linux-gnu").display().to_string();
        flags.extend(["-idirafter".to_owned(), include]);
    }
    if is_static {
        flags.push("-static".to_owned());
        return flags;
    }
    // The names in the linker's script `libc.so` are those of an installed library.
    let library = narrow_library("libc.so.6");
    let beside = library.parent().unwrap_or(&library);
    flags.extend([
        "-pie".to_owned(),
        "-nodefaultlibs".to_owned(),
        library.display().to_string(),
        format!("-Wl,-rpath-link,{}", beside.display()),
        narrow_library("libc_nonshared.a").display().to_string(),
        "-lgcc".to_owned(),
    ]);
    flags
}

/// Compiles a helper in C.
pub fn compile_all(sources: &[PathBuf], flags: &[&str], program: &Path) {
    run(tool("gcc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror"])
        .args(sources)
        .arg("-o")
        .arg(program)
        .args(flags))
    .expect("gcc compiles the helper");
}
