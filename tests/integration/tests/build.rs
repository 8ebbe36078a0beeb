//! The whole way, on a busybox base, as an ordinary user: Dockerfile in, image in a registry out.

use stepwell_integration_tests::World;
use stepwell_test_support::bundle;

#[test]
fn a_small_dockerfile_becomes_an_image_that_others_run() {
    let world = World::new();
    world.file("hello.txt", "hello\n").dockerfile(
        "FROM @BUSYBOX@ AS build\nRUN echo built > /built && id -u > /id\nFROM @BUSYBOX@\nCOPY hello.txt /data/\nCOPY --from=build /built /id /data/\nENV WHO=world\nWORKDIR /data\nCMD [\"sh\", \"-c\", \"cat hello.txt built id; echo $WHO\"]\n",
    );
    world.pushed("small", &[]);
    let output = bundle::run_output(&world.fetched("small")).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "hello\nbuilt\n0\nworld\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_second_build_carries_out_nothing_and_gives_the_same_digest() {
    let world = World::new();
    world.file("a", "1").file("b", "1").dockerfile(
        "FROM @BUSYBOX@\nRUN echo first > /first\nCOPY a /a\nRUN cat /a > /second\nCOPY b /b\n",
    );
    let first = world.pushed("twice", &[]);
    let tag = ["--push", "--tag", "@REGISTRY@/twice:latest"];
    let again = world.built(&tag);
    assert!(
        !again.err.contains(" DONE") || again.steps().1 >= 1,
        "{}",
        again.err
    );
    assert_eq!(world.pushed("twice", &[]), first);
}

#[test]
fn the_steps_of_named_stages_are_carried_out_again() {
    let world = World::new();
    world.dockerfile(
        "FROM @BUSYBOX@ AS one\nRUN echo ran-one\nFROM @BUSYBOX@ AS two\nRUN echo ran-two\nFROM @BUSYBOX@\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\nRUN echo ran-last\n",
    );
    let ran = |flags: &[&str]| -> Vec<&'static str> {
        let err = world.built(flags).err;
        let second: Vec<&str> = err
            .lines()
            .filter_map(|l| l.split_whitespace().nth(1))
            .collect();
        let all = ["ran-one", "ran-two", "ran-last"];
        all.into_iter().filter(|w| second.contains(w)).collect()
    };
    assert_eq!(ran(&[]).len(), 3);
    assert_eq!(ran(&[]), [""; 0]);
    assert_eq!(ran(&["--no-cache-filter=TWO"]), ["ran-two"]);
    assert_eq!(
        ran(&["--no-cache-filter=one,two", "--no-cache-filter=none"]),
        ["ran-one", "ran-two"]
    );
}

#[test]
fn one_changed_file_reruns_exactly_what_depends_on_it() {
    let world = World::new();
    world.file("a", "1").file("b", "1").dockerfile("FROM @BUSYBOX@\nRUN echo ran-first\nCOPY b /b\nRUN echo ran-b $(cat /b)\nFROM @BUSYBOX@\nRUN echo ran-other\nCOPY --from=0 /b /b\nCOPY a /a\nRUN echo ran-a $(cat /a)\n");
    let ran = |err: &str, what: &str| {
        err.lines()
            .any(|l| l.split_whitespace().nth(1) == Some(what))
    };
    let first = world.built(&[]).err;
    for what in ["ran-other", "ran-a"] {
        assert!(ran(&first, what), "{what}: {first}");
    }
    world.file("a", "2");
    let second = world.built(&[]).err;
    assert!(
        ran(&second, "ran-a") && !ran(&second, "ran-other") && !ran(&second, "ran-first"),
        "{second}"
    );
    // A file that no step uses matters to nobody.
    world.file("unused", "x");
    let third = world.built(&[]).err;
    for what in ["ran-first", "ran-b", "ran-other", "ran-a"] {
        assert!(!ran(&third, what), "{what}: {third}");
    }
}

#[test]
fn stages_that_do_not_matter_are_not_built() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@ AS broken\nRUN exit 3\nFROM @BUSYBOX@ AS good\nRUN true\nFROM @BUSYBOX@\nRUN exit 4\n");
    world.built(&["--target", "good"]);
}

#[test]
fn a_failing_step_gives_its_own_exit_status_and_its_place() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN echo before; exit 42\n");
    world.build(&[]).failed_with(
        42,
        &[
            "before",
            "Dockerfile:2",
            "RUN echo before; exit 42",
            "exit status 42",
        ],
    );
    world.dockerfile("FROM @BUSYBOX@\nRUN kill -9 $$\n");
    world.build(&[]).failed_with(128 + 9, &["SIGKILL"]);
    world.dockerfile("FROM @BUSYBOX@\nRUN sleep 100\n");
    world
        .build(&["--step-timeout", "1s"])
        .failed_with(75, &["time limit", "`--step-timeout`"]);
}

#[test]
fn limits_of_steps_are_told_with_their_flags() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN for n in $(seq 15); do sleep 1000 & done; wait\n");
    world
        .build(&["--step-processes", "10"])
        .failed_with(75, &["more processes", "`--step-processes`"]);
    world.dockerfile("FROM @BUSYBOX@\nRUN dd if=/dev/zero of=/dev/null bs=96M\n");
    world
        .build(&["--step-memory", "64m"])
        .failed_with(75, &["more memory", "`--step-memory`"]);
    world.dockerfile("FROM @BUSYBOX@\nRUN --mount=type=tmpfs,target=/t,size=1m head -c 2m /dev/zero >/t/x; sleep 1000\n");
    world
        .build(&[])
        .failed_with(75, &["into `/t`", "1048576 bytes", "`size=` of the mount"]);
    world.dockerfile("FROM @BUSYBOX@\nRUN head -c 2m /dev/zero >/dev/shm/x\n");
    world
        .build(&["--shm-size", "1m"])
        .failed_with(75, &["into `/dev/shm`", "1048576 bytes", "`--shm-size`"]);
    // The step is not disturbed by what is not shown of it.
    world.dockerfile("FROM @BUSYBOX@\nRUN seq 100000 && echo the end && touch /done\n");
    let built = world.built(&["--step-output", "1k"]);
    let lines: Vec<&str> = built.err.lines().collect();
    let has = |what: &str| lines.iter().any(|l| l.contains(what));
    assert!(
        has("output clipped") && has("`--step-output`") && has("the end"),
        "{}",
        built.err
    );
    assert!(!built.err.contains("50000"), "{}", built.err);
}

#[test]
fn a_definition_that_is_wrong_is_refused_with_its_place() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUM echo\n");
    world
        .build(&[])
        .failed_with(65, &["Dockerfile:2:1", "RUM echo", "RUN"]);
    world.dockerfile("FROM @BUSYBOX@\nCOPY missing /\n");
    world
        .build(&[])
        .failed_with(65, &["Dockerfile:2", "missing"]);
}

#[test]
fn outputs_of_every_type_are_written() {
    let world = World::new();
    world
        .file("f", "content\n")
        .dockerfile("FROM @BUSYBOX@\nCOPY f /f\n");
    let out = world.path("out");
    std::fs::create_dir(&out).unwrap();
    let at = |name: &str| out.join(name).display().to_string();
    world.built(&[
        "--tag",
        "example.org/x:1",
        "-o",
        &format!("type=oci,dest={}", at("oci.tar")),
        "-o",
        &format!("type=oci,tar=false,compression=zstd,dest={}", at("oci")),
        "-o",
        &format!("type=docker,dest={}", at("docker.tar")),
        "-o",
        &format!("type=local,dest={}", at("local")),
        "-o",
        &format!("type=tar,dest={}", at("files.tar")),
    ]);
    use std::process::Command;
    use stepwell_test_support::cmd::{run, tool};
    for (transport, name) in [
        ("oci-archive", "oci.tar"),
        ("oci", "oci"),
        ("docker-archive", "docker.tar"),
    ] {
        let copy = world.path(&format!("copy-{transport}"));
        run(tool("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .arg(format!("{transport}:{}", at(name)))
            .arg(format!("dir:{}", copy.display())))
        .unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(out.join("local/f")).unwrap(),
        "content\n"
    );
    assert_eq!(
        run(Command::new("tar").args(["-xOf", &at("files.tar"), "f"])).unwrap(),
        "content\n"
    );
}

#[test]
fn explain_names_what_changed() {
    let world = World::new();
    world
        .file("src/a", "1")
        .file("src/b", "1")
        .dockerfile("FROM @BUSYBOX@\nRUN echo one\nCOPY src /src\nRUN cat /src/a\n");
    world.built(&[]);
    let reused = world.explain(&[]);
    assert!(
        reused.lines().all(|l| l.starts_with("reused")) && reused.lines().count() == 3,
        "{reused}"
    );
    world.file("src/a", "2").file("src/c", "new");
    let files = world.explain(&[]);
    for part in [
        "reused      [2/4] RUN echo one",
        "file `src/a` changed",
        "file `src/c` is new",
        "it builds on `[3/4] COPY src /src`",
    ] {
        assert!(files.contains(part), "{part}: {files}");
    }
    assert!(!files.contains("src/b"), "{files}");
    world.dockerfile("FROM @BUSYBOX@\nRUN echo two\nCOPY src /src\nRUN cat /src/a\n");
    let instruction = world.explain(&[]);
    assert!(
        instruction.contains("echo one") && instruction.contains("echo two"),
        "{instruction}"
    );
}
