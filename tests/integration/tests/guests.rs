//! Frontends that are handed over on the command line: the example works, and guests that misbehave
//! (`tests/hostile-guests`) end with the exit code for guests, in bounded time and memory, with words that say why.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stepwell_guest_build::{Guest, Toolchain};
use stepwell_integration_tests::{Ran, World, ran};
use stepwell_test_support::workspace;

/// Builds a guest of the workspace and puts its component into the world.
fn component(world: &World, package: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let toolchain = Toolchain::find().expect("`cargo xtask setup` was run");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let bytes = Guest::of_workspace(&workspace(), package)
        .component(&toolchain, &target)
        .unwrap_or_else(|e| panic!("{e}"));
    let path = world.path(&format!("{package}.wasm"));
    std::fs::write(&path, bytes).expect("the component");
    path
}

/// A build with a frontend of its own, with a bound on the memory of the whole program.
fn with_frontend(world: &World, frontend: &Path, args: &[&str]) -> Ran {
    let file = world.path("context/Dockerfile").display().to_string();
    let mut all = vec!["--frontend", frontend.to_str().expect("a path")];
    if !args.contains(&"--file") {
        all.extend(["--file", &file]);
    }
    all.extend(args);
    let build = world.build_command(&all);
    let mut limited = Command::new("prlimit");
    limited
        .args(["--data=2147483648", "--"])
        .arg(build.get_program())
        .args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    ran(&mut limited)
}

#[test]
fn the_example_frontend_builds_an_image() {
    let world = World::new();
    let frontend = component(&world, "recipe-frontend");
    let recipe = "base = \"@BUSYBOX@\"\n[[step]]\ncopy = [\"greeting\"]\nto = \"/etc/greeting\"\n[[step]]\nrun = \"test -s /etc/greeting\"\noffline = true\n";
    world.file("greeting", "hello\n");
    world.file("recipe.toml", world.expand(recipe));
    let file = world.path("context/recipe.toml").display().to_string();
    let ran = with_frontend(&world, &frontend, &["--file", &file]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

/// A way to misbehave, flags, exit code, and words that have to be in the message.
type Case = (
    &'static str,
    &'static [&'static str],
    i32,
    &'static [&'static str],
);

const CASES: &[Case] = &[
    (
        "loops for ever",
        &["--guest-time", "1s"],
        70,
        &["--guest-time"],
    ),
    (
        "allocates for ever",
        &[],
        70,
        &["256 MiB", "--guest-memory"],
    ),
    (
        "builds an endless graph",
        &["--guest-vertices", "1000"],
        70,
        &["--guest-vertices"],
    ),
    (
        "builds a chain of huge files",
        &["--guest-time", "2s"],
        70,
        &["was stopped"],
    ),
    ("recurses for ever", &[], 70, &["stack overflowed"]),
    (
        "floods diagnostics",
        &["--guest-output", "1mb"],
        70,
        &["--guest-output"],
    ),
    (
        "calls the host for ever",
        &["--guest-calls", "1000"],
        70,
        &["--guest-calls"],
    ),
    (
        "reads for ever",
        &["--guest-read", "1mb"],
        70,
        &["--guest-read"],
    ),
    (
        "points many strings at one place",
        &[],
        70,
        &["in one call"],
    ),
    ("uses a handle twice", &[], 70, &["unknown handle"]),
    ("panics", &[], 70, &["it panicked"]),
    ("gives up", &[], 70, &["gave up: no strength"]),
    ("refuses without a reason", &[], 65, &["does not say why"]),
];

#[test]
fn guests_that_misbehave_are_ended() {
    let world = World::new();
    let frontend = component(&world, "hostile-frontend");
    world.file("file", vec![b'x'; 4096]);
    let mut wrong = Vec::new();
    for (way, args, code, words) in CASES {
        world.dockerfile(way);
        let start = Instant::now();
        let ran = with_frontend(&world, &frontend, args);
        let took = start.elapsed();
        let said = words.iter().all(|w| ran.err.contains(w));
        if ran.code != Some(*code) || !said || took > Duration::from_secs(20) {
            wrong.push(format!("{way}: {:?} in {took:?}:\n{}", ran.code, ran.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_guest_reads_nothing_outside_its_context() {
    let world = World::new();
    let frontend = component(&world, "hostile-frontend");
    world
        .dockerfile("reads outside its context")
        .file("directory/file", "inside");
    std::fs::write(world.path("secret"), "the secret").expect("the secret");
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, world.path("context").join(name)).expect("a link");
    };
    link("..", "link-to-parent");
    link(
        world.path("secret").to_str().expect("a path"),
        "absolute-link",
    );
    link("chain-2", "chain-1");
    link("directory/../../secret", "chain-2");
    link("../../secret", "directory/chain-up");
    link("loop-2", "loop-1");
    link("loop-1", "loop-2");
    let ran = with_frontend(&world, &frontend, &[]);
    for leaked in ["the secret", "root:x:0", "Got", "Listed"] {
        assert!(!ran.err.contains(leaked), "{}", ran.err);
    }
    assert_eq!(ran.err.matches("Refused").count(), 9, "{}", ran.err);
}

#[test]
fn what_a_guest_says_cannot_paint_the_screen() {
    let world = World::new();
    let frontend = component(&world, "hostile-frontend");
    world.dockerfile("paints the screen");
    let ran = with_frontend(&world, &frontend, &[]);
    assert_eq!(ran.code, Some(70), "{}", ran.err);
    assert!(
        !ran.err.contains(['\u{1b}', '\u{7}', '\u{202e}']),
        "{:?}",
        ran.err
    );
}

#[test]
fn a_file_that_is_no_component_is_refused() {
    let world = World::new();
    world
        .dockerfile("FROM @BUSYBOX@\n")
        .file("no.wasm", "no component");
    let ran = with_frontend(&world, &world.path("context/no.wasm"), &[]);
    ran.failed_with(70, &["no.wasm"]);
}
