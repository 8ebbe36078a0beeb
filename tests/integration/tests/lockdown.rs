//! No mount is ever made: the Debian build where the kernel denies the whole family of mount calls, and the trace of a build.
//!
//! Every denial and the trace are first shown to work on a program that does mount, so that no test passes for want of one.

use std::process::{Command, Stdio};

use stepwell_integration_tests::denial::denial;
use stepwell_integration_tests::{Ran, World, ran, under};
use stepwell_test_support::cmd::tool;
use stepwell_test_support::{bundle, user};

/// Two stages on Debian, packages in both, other ids, and what a package's scripts do.
const DOCKERFILE: &str = "\
FROM @DEBIAN@ AS build
RUN apt-get update && apt-get install -y --no-install-recommends hello
RUN hello > /greeting && id -u >> /greeting && ls /proc/self/fd > /dev/null
FROM @DEBIAN@
RUN useradd --create-home --uid 1000 app && install -d -o app -g app /data
COPY --from=build --chown=app:app /greeting /data/
USER app
RUN id -un > /data/who
WORKDIR /data
CMD [\"sh\", \"-c\", \"cat greeting who; stat -c %U:%G greeting\"]
";

/// The calls that make, attach, change or detach a mount, as strace names them.
const FAMILY: &str =
    "mount,umount2,pivot_root,open_tree,move_mount,fsopen,fsconfig,fsmount,fspick,mount_setattr";

#[test]
fn debian_builds_where_landlock_denies_mounts() {
    debian_builds_under("landlock", |control| {
        assert_eq!(control.code, Some(32), "{control:?}");
    });
}

#[test]
fn debian_builds_where_seccomp_answers_eacces() {
    debian_builds_under("seccomp-eacces", |control| {
        assert_eq!(control.code, Some(32), "{control:?}");
    });
}

/// The filter ends whoever tries, so a build that succeeds, whose steps all succeed, did not try.
#[test]
fn debian_builds_where_the_first_attempt_to_mount_kills() {
    debian_builds_under("seccomp-kill", |control| {
        // `None`: by the signal; 128 + SIGSYS: as a shell between reports it.
        assert!(matches!(control.code, None | Some(159)), "{control:?}");
    });
}

/// Unlike the filter that kills, the trace would also show an attempt in a child whose end nobody minds.
#[test]
fn no_call_of_the_mount_family_is_made_by_a_build() {
    let world = World::new();
    world.file("f", "content\n").dockerfile(
        "FROM @BUSYBOX@ AS build\nRUN cat /proc/self/status > /status && echo > /dev/null && ls /sys > /dev/null\nFROM @BUSYBOX@\nCOPY f /f\nRUN chown 5:6 /f\nRUN --mount=target=/s --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=k,required cat /s/f /run/secrets/k > /c/f\nCOPY --from=build /status /status\n",
    );
    let (ran, control) = traced(&world, "control.log", &mounting());
    assert!(
        control.contains("mount("),
        "a mount must show in the trace: {control}\n{ran:?}"
    );
    let image = world.path("image.tar");
    let output = format!("type=oci,dest={}", image.display());
    let build = world.build_command(&["-o", &output, "--secret", "id=k,src=/etc/passwd"]);
    let (built, log) = traced(&world, "build.log", &build);
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert_eq!(log, "", "the build made calls of the mount family");
    assert!(image.is_file());
}

/// Runs a command under strace, and returns what it did and its calls of the mount family.
fn traced(world: &World, log: &str, command: &Command) -> (Ran, String) {
    let log = world.path(log);
    let mut strace = tool("strace");
    strace
        .args(["-f", "-qq", "-e"])
        .arg(format!("trace={FAMILY}"))
        .args(["-e", "signal=none", "-o"])
        .arg(&log)
        .arg("--");
    let ran = ran(&mut under(&strace, command));
    // Of a process that is killed on its way into a call, strace writes `????(` where the call's name should be.
    let named = |line: &&str| FAMILY.split(',').any(|call| line.contains(call));
    let trace = std::fs::read_to_string(&log).expect("the trace");
    (ran, trace.lines().filter(named).collect())
}

/// Runs the Debian build where `mode` denies mounts, after `denied` has looked at what became of a program that mounts.
fn debian_builds_under(mode: &str, denied: impl FnOnce(&Ran)) {
    let world = World::with_debian();
    let denial = denial(&world, mode);
    denied(&ran(&mut under(&denial, &mounting())));
    world.dockerfile(DOCKERFILE);
    let metadata = world.path("metadata.json");
    let build = world.build_command(&[
        "--push",
        "--tag",
        "@REGISTRY@/locked:latest",
        "--metadata-file",
        metadata.to_str().expect("a path"),
    ]);
    let built = ran(&mut under(&denial, &build));
    assert_eq!(built.code, Some(0), "{mode}:\n{}", built.err);
    let output = bundle::run_output(&world.fetched("locked")).expect("crun runs it");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Hello, world!\n0\napp\napp:app\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program of the ordinary user that mounts a file system in name spaces of its own.
fn mounting() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--propagation"])
        .args(["unchanged", "mount", "-t", "tmpfs", "none", "/mnt"])
        .stdin(Stdio::null());
    user::ordinary(command)
}
