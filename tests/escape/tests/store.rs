//! What lies in a store is nobody else's: a step can make set-user-id programs, and they must be of no use to other users of
//! the machine, while it runs and afterwards.

use std::process::{Command, Stdio};

use stepwell_integration_tests::children::{finished, started, wait_until};
use stepwell_integration_tests::way::{Way, each_tier};
use stepwell_integration_tests::{Ran, World, ran};
use stepwell_test_support::cmd::run;
use stepwell_test_support::is_root;

const DOCKERFILE: &str = "\
FROM @BUSYBOX@
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t for d in / /c /t /dev/shm; do cp /bin/busybox $d/program; chmod 6755 $d/program; done; \\
    touch /made; until [ -e /go ]; do sleep 0.1; done
";

/// Runs a command as an account that has nothing to do with who builds.
fn stranger(command: &mut Command) -> Ran {
    let mut strange = Command::new("setpriv");
    strange
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    ran(&mut strange)
}

#[test]
fn programs_of_a_store_are_of_no_use_to_others() {
    if !is_root() {
        stepwell_test_support::not_run("becoming another user needs root");
        return;
    }
    each_tier(|way| {
        let world = World::new();
        world.dockerfile(DOCKERFILE);
        let child = started(way.command(&world, &[]));
        wait_until("the step", || way.inside(&world, "made").is_some());
        // The world itself is open, so that it is not what keeps the stranger out.
        run(Command::new("chmod").arg("755").arg(world.path(""))).expect("chmod");
        std::fs::write(world.path("open"), "open\n").expect("a file");
        assert_eq!(
            stranger(Command::new("cat").arg(world.path("open"))).out,
            "open\n"
        );
        let found = out_of_reach(&world, way);
        // What the kernel holds in memory for a step is in no directory of the machine.
        let on_disk = if way.ids { 2 } else { 4 };
        assert!(
            found >= on_disk,
            "{way:?}: only {found} programs were there"
        );
        let made = way.inside(&world, "made").expect("the tree");
        std::fs::write(made.with_file_name("go"), "").expect("a file");
        let built = finished(child);
        assert_eq!(built.code, Some(0), "{way:?}:\n{}", built.err);
        assert!(out_of_reach(&world, way) >= 1, "{way:?}: nothing was left");
    });
}

/// Asserts that a stranger can neither find nor execute what has the bits; says how much of it there is.
#[track_caller]
fn out_of_reach(world: &World, way: Way) -> usize {
    let store = world.path(&way.store());
    let mut find = Command::new("find");
    find.arg(&store).args(["-type", "f", "-perm", "/6000"]);
    let all = run(&mut find).expect("what root finds");
    for path in all.lines() {
        let strange = stranger(Command::new(path).args(["id", "-u"]));
        assert!(
            strange.code != Some(0) && strange.out.is_empty(),
            "{way:?}: {path} can be executed: {strange:?}"
        );
    }
    find.arg("-readable");
    let theirs = stranger(&mut find);
    assert_eq!(theirs.out, "", "{way:?}: others see what is in the store");
    all.lines().count()
}
