//! Binds: what they show, that they leave nothing, and what of them counts.

use stepwell_integration_tests::World;
use stepwell_integration_tests::way::{Way, each_way};

const BINDS: &str = "\
FROM @BUSYBOX@ AS made
RUN mkdir -p /out/deep && echo made > /out/deep/file && echo other > /out/other
FROM @BUSYBOX@
RUN mkdir /hidden && echo image > /hidden/own
WORKDIR /work
RUN --mount=type=bind,target=/src --mount=type=bind,source=sub/only,target=/etc/only.conf \\
    --mount=type=bind,from=made,source=/out/deep,target=/hidden --mount=type=bind,from=@BUSYBOX@,source=/bin,target=/tools,rw \\
    ls /src > seen; ls /src/ignored; cat /src/a.txt /etc/only.conf /hidden/file; /tools/busybox echo tool; \\
    ! echo x > /src/a.txt; ! rm /hidden/file; ! mkdir /src/new; echo x > /tools/new && rm /tools/ls && echo writable; \\
    stat -c '%u:%g' /src/a.txt; cp -r /src/sub copied
RUN cat /hidden/own && ls /src /tools /etc/only.conf; ls /bin/ls
";

#[test]
fn binds_show_files_and_leave_nothing() {
    let world = World::new();
    world
        .file("a.txt", "a\n")
        .file("sub/only", "only\n")
        .file("ignored", "not to be seen")
        .file(".dockerignore", "ignored\nDockerfile\n")
        .dockerfile(BINDS);
    each_way(|way| {
        let layers = way.layers(&world, &[]);
        assert_eq!(
            layers[3],
            ["work/", "work/copied/", "work/copied/only", "work/seen"],
            "{way:?} {:#?}",
            &layers[1..]
        );
        let ran = way.built(&world, &["--no-cache"]);
        for line in [
            "a", "only", "made", "tool", "writable", "0:0", "image", "/bin/ls",
        ] {
            assert!(
                ran.printed().iter().any(|l| l == line),
                "{way:?}: {line}:\n{}",
                ran.err
            );
        }
        for refused in [
            "can't create /src/a.txt: Read-only file system",
            "can't remove '/hidden/file': Read-only file system",
            "can't create directory '/src/new': Read-only file system",
        ] {
            assert!(
                ran.err.contains(refused),
                "{way:?}: {refused}:\n{}",
                ran.err
            );
        }
        assert!(
            ran.err.contains("ls: /src/ignored: No such file"),
            "{}",
            ran.err
        );
        assert_eq!(
            std::fs::read_to_string(world.path("context/a.txt")).unwrap(),
            "a\n"
        );
        // What the writable copy lost is there again for the next one.
        let ran = way.built(&world, &["--no-cache"]);
        assert!(ran.printed().iter().any(|l| l == "writable"), "{}", ran.err);
    });
}

#[test]
fn what_is_mounted_counts_and_what_is_not_does_not() {
    let world = World::new();
    let dockerfile = |word: &str| {
        format!(
            "FROM @BUSYBOX@ AS stage\nRUN mkdir /out && echo {word} > /other && echo same > /out/f\nFROM @BUSYBOX@\n\
             RUN --mount=source=src,target=/src --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token cat /src/f; echo $TOKEN\n\
             RUN --mount=from=stage,source=/out,target=/o --mount=type=cache,target=/c date >> /c/dates; cat /o/f\n"
        )
    };
    world
        .file("src/f", "one\n")
        .file("beside", "one\n")
        .file("token-1", "hush-1")
        .file("token-2", "hush-2")
        .dockerfile(&dockerfile("one"));
    let way = Way::USERNS;
    let build = |token: &str| {
        let file = format!(
            "id=token,src={}",
            world.path("context").join(token).display()
        );
        let ran = way.built(&world, &["--secret", &file]);
        let carried_out = |word: &str| {
            ran.err.lines().filter(|l| l.contains(word)).any(|l| {
                let number = l.split_whitespace().next().unwrap_or_default();
                ran.err
                    .lines()
                    .any(|l| l.starts_with(&format!("{number} DONE")))
            })
        };
        (
            carried_out("RUN --mount=source=src"),
            carried_out("RUN --mount=from=stage"),
        )
    };
    assert_eq!(build("token-1"), (true, true));
    assert_eq!(build("token-1"), (false, false));
    assert_eq!(
        build("token-2"),
        (false, false),
        "a secret's content does not count"
    );
    world.file("beside", "two\n");
    assert_eq!(
        build("token-1"),
        (false, false),
        "what is beside the source does not count"
    );
    world.file("src/f", "two\n");
    assert_eq!(
        build("token-1"),
        (true, false),
        "the source counts; a step whose base came out the same goes by its content"
    );
    world.dockerfile(&dockerfile("two"));
    assert_eq!(
        build("token-1"),
        (false, false),
        "what else the stage has does not count"
    );
    let explained = world.path("context/src/f");
    std::fs::write(explained, "three\n").unwrap();
    assert_eq!(build("token-1"), (true, false));
}
