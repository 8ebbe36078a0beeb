//! What users are told of the isolation of RUN steps: the demand for a tier, the metadata, and builds that need none.

use std::process::Command;

use serde_json::Value;
use stepwell_integration_tests::{World, denial, ran, under};
use stepwell_test_support::cmd::tool;
use stepwell_test_support::{is_root, program, user};

/// EX_NOPERM: what is asked for is not to be had.
const REFUSED: i32 = 77;

fn isolation(world: &World) -> Value {
    let text = std::fs::read(world.path("metadata.json")).expect("the metadata");
    let metadata: Value = serde_json::from_slice(&text).expect("JSON");
    metadata["stepwell.isolation"].clone()
}

/// `stepwell build` with an archive and the metadata as outputs.
fn build(world: &World, more: &[&str]) -> Command {
    let output = format!("type=oci,dest={}", world.path("image.tar").display());
    let metadata = world.path("metadata.json");
    let mut args = vec![
        "-o",
        &output,
        "--metadata-file",
        metadata.to_str().expect("a path"),
    ];
    args.extend(more);
    world.build_command(&args)
}

#[test]
fn what_is_required_and_to_be_had_is_taken_and_a_contradiction_is_refused() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN echo ran > /ran\n");
    let built = ran(&mut build(&world, &["--require-isolation=userns"]));
    assert_eq!(built.code, Some(0), "{}", built.err);
    let told = isolation(&world);
    assert_eq!(
        (&told["tier"], &told["ids"]),
        (&"userns".into(), &"emulated".into()),
        "{told}"
    );
    let weaker = ["--isolation=mediated", "--require-isolation=chroot"];
    let refused = ran(&mut build(&world, &weaker));
    refused.failed_with(
        64,
        &[
            "`--isolation mediated` is weaker",
            "`--require-isolation chroot`",
        ],
    );
}

#[test]
fn what_is_required_is_refused_with_reasons_and_mends() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN echo ran > /ran\n");
    let denial = denial::denial(&world, "restricted");
    let refused = ran(&mut under(
        &denial,
        &build(&world, &["--require-isolation=chroot"]),
    ));
    refused.failed_with(
        REFUSED,
        &[
            "isolation tier `chroot` is required, and `mediated` is the best",
            "tier `userns`: unshare",
            "EPERM, probably by the seccomp profile of the container; allow `unshare`",
            "tier `chroot`: chroot tree root: EPERM, probably by the lack of CAP_SYS_CHROOT; run as root",
            "`stepwell doctor`",
        ],
    );
    assert!(!world.path("image.tar").exists());
    let mut enough = under(&denial, &build(&world, &["--require-isolation=mediated"]));
    assert_eq!(ran(&mut enough).code, Some(0));
    let told = isolation(&world);
    assert_eq!(told["tier"], "mediated", "{told}");
    let reasons: Vec<_> = told["reasons"]
        .as_array()
        .expect("reasons")
        .iter()
        .map(|r| &r["tier"])
        .collect();
    assert_eq!(reasons, ["userns", "chroot"]);
}

/// Nothing is tried where nothing is to be run: no filter, no tracing, no Landlock.
#[test]
fn builds_without_run_steps_need_no_isolation_and_try_nothing() {
    let world = World::new();
    world.file("f", "content\n");
    let traced = |dockerfile: &str| {
        world.dockerfile(dockerfile);
        let log = world.path("trace.log");
        let mut strace = tool("strace");
        strace.args([
            "-f",
            "-qq",
            "-e",
            "trace=seccomp,ptrace,landlock_create_ruleset",
            "-e",
            "signal=none",
            "-o",
        ]);
        strace.arg(&log).arg("--");
        let built = ran(&mut under(
            &strace,
            &build(&world, &["--require-isolation=userns"]),
        ));
        (built, std::fs::read_to_string(log).expect("the trace"))
    };
    let (_, trace) = traced("FROM @BUSYBOX@\nRUN true\n");
    assert!(
        trace.contains("seccomp("),
        "trying must show in the trace: {trace}"
    );
    let (built, trace) = traced("FROM @BUSYBOX@ AS unused\nRUN false\nFROM @BUSYBOX@\nCOPY f /f\n");
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(
        built.err.contains("no RUN step: no isolation is needed"),
        "{}",
        built.err
    );
    assert_eq!(trace, "", "something was tried");
    let told = isolation(&world);
    assert_eq!(
        (&told["tier"], &told["why"]),
        (&"none".into(), &"there is no RUN step".into())
    );
}

#[test]
fn a_build_whose_run_steps_are_cached_says_so() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN echo ran > /ran\n");
    for wanted in [
        Value::Null,
        "the results of all RUN steps were there already".into(),
    ] {
        assert_eq!(ran(&mut build(&world, &[])).code, Some(0));
        assert_eq!(isolation(&world)["why"], wanted);
    }
}

#[test]
fn the_doctor_explains_every_rung() {
    let world = World::new();
    world.give();
    let doctor = |format: &str| {
        let mut doctor = Command::new(program::debug());
        doctor
            .args(["doctor", "--format", format, "--root"])
            .arg(world.path("store"));
        ran(&mut under(
            &denial::denial(&world, "restricted"),
            &user::ordinary(doctor),
        ))
    };
    let text = doctor("text");
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "RUN steps get the isolation tier `mediated` with emulated ids",
        "✘ tier `userns`: a user namespace, and chroot(2) in it",
        "probably by the seccomp profile of the container (`Seccomp: 2` in /proc/self/status)",
        "probably by the lack of CAP_SYS_CHROOT (CapEff in /proc/self/status is without it)",
        "change: run as root in the container",
        "✔ tier `mediated`",
        "no_new_privs",
    ] {
        assert!(
            text.out.contains(part),
            "`{part}` is missing in:\n{}",
            text.out
        );
    }
    let json: Value = serde_json::from_str(&doctor("json").out).expect("JSON");
    assert_eq!(json["isolation"]["tier"], "mediated");
    let works: Vec<_> = json["rungs"]
        .as_array()
        .expect("rungs")
        .iter()
        .map(|r| &r["works"])
        .collect();
    assert_eq!(works, [false, false, true]);
}

/// `stepwell doctor | head`
#[test]
fn the_doctor_ends_with_who_listens() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let world = World::new();
    let mut doctor = Command::new(program::debug());
    doctor.arg("doctor").arg("--root").arg(world.path("store"));
    let output = doctor.stdout(writer).output().expect("the doctor");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Where `/proc` is missing altogether, what needs it says so, and what does not need it works.
#[test]
fn without_proc_files_are_copied_and_the_rest_says_what_is_missing() {
    if !is_root() {
        stepwell_test_support::not_run("taking `/proc` away needs root");
        return;
    }
    let world = World::new();
    let without = |build: &Command| {
        let mut bare = Command::new("unshare");
        let script = "mount -t tmpfs -o mode=555 none /proc && exec \"$@\"";
        bare.args(["--mount", "sh", "-c", script, "sh"]);
        ran(&mut under(&bare, build))
    };
    world.file("f", "from the context\n").dockerfile(
        "FROM @BUSYBOX@ AS a\nWORKDIR /w\nCOPY --chown=5:6 --chmod=4755 f /f\nFROM @BUSYBOX@\nCOPY f /f\nCOPY --from=a /f /g\n",
    );
    let built = without(&build(&world, &["--target=a"]));
    assert_eq!(built.code, Some(0), "{}", built.err);
    let from = without(&build(&world, &[]));
    assert!(
        from.code == Some(0) || from.err.contains("`/proc` is not mounted"),
        "{}",
        from.err
    );
    world.dockerfile("FROM @BUSYBOX@\nRUN true\n");
    without(&build(&world, &[]))
        .failed_with(71, &["`/proc` is not mounted here, and RUN steps need it"]);
    let mut doctor = Command::new(program::debug());
    doctor.arg("doctor");
    let doctor = without(&user::ordinary(doctor));
    assert!(doctor.err.contains("`/proc` is not mounted"), "{doctor:?}");
    // And with it, in the same store, everything is there.
    world.dockerfile("FROM @BUSYBOX@ AS a\nCOPY f /f\nFROM @BUSYBOX@\nCOPY --from=a /bin/busybox /g\nRUN cmp /g /bin/busybox\n");
    let built = ran(&mut build(&world, &[]));
    assert_eq!(built.code, Some(0), "{}", built.err);
}
