//! Caches: they live on, begin with what they are told, and survive whoever is killed with them.

use std::process::Command;

use stepwell_integration_tests::World;
use stepwell_integration_tests::children::{finished, started, wait_until};
use stepwell_integration_tests::way::each_way;
use stepwell_test_support::cmd::{run, which};
use stepwell_test_support::program;

const CACHES: &str = "\
FROM @BUSYBOX@
RUN --mount=type=cache,target=/cache,id=it,mode=0700,uid=5,gid=6 --mount=type=cache,target=/root/.cache --mount=type=tmpfs,target=/t \\
    stat -c '%a %u:%g' /cache; cat /cache/builds 2>/dev/null; echo $WORD >> /cache/builds; echo x > /t/x; echo x > /root/.cache/x; \\
    ln /cache/builds /hard; ln /bin/busybox /cache/shell 2>/dev/null; mv /cache/moved /moved 2>/dev/null; echo m > /cache/moved; ls -A /t /root/.cache
";

#[test]
fn caches_live_on_and_are_in_no_layer() {
    let world = World::new();
    each_way(|way| {
        world.dockerfile(&CACHES.replace("$WORD", "first"));
        let layers = way.layers(&world, &[]);
        // An unchanged directory comes with what is made in it; the mount points do not.
        assert_eq!(layers.last().unwrap(), &["hard"], "{way:?} {layers:?}");
        world.dockerfile(&CACHES.replace("$WORD", "second"));
        let ran = way.built(&world, &["--no-cache"]);
        let lines = ran.printed();
        assert!(
            lines.iter().any(|l| l == "700 5:6") && lines.iter().any(|l| l == "first"),
            "{way:?}:\n{}",
            ran.err
        );
        let layers = way.layers(&world, &["--no-cache"]);
        assert_eq!(layers.last().unwrap(), &["hard", "moved"], "{way:?}");
        // A later step that writes to the cache changes neither the layer nor the base in the pool.
        world.dockerfile(
            "FROM @BUSYBOX@\nRUN --mount=type=cache,target=/cache,id=it,mode=0700,uid=5,gid=6 echo poison | tee -a /cache/builds > /cache/shell; true\nRUN echo alive && sha256sum /bin/busybox\n",
        );
        let ran = way.built(&world, &["--no-cache"]);
        let busybox = which("busybox").expect("busybox");
        let sum = run(Command::new("sha256sum").arg(busybox)).expect("a sum");
        let sum = sum.split(' ').next().unwrap();
        assert!(
            ran.printed().iter().any(|l| l.starts_with(sum)),
            "{way:?}: {sum}\n{}",
            ran.err
        );
        world.dockerfile(&CACHES.replace("$WORD", "first"));
        let tar = world.path("hard.tar");
        way.built(
            &world,
            &["--output", &format!("type=tar,dest={}", tar.display())],
        );
        let hard = run(Command::new("tar").arg("-xOf").arg(&tar).arg("hard")).expect("the file");
        assert!(!hard.contains("poison"), "{way:?}: {hard}");
        std::fs::remove_file(tar).unwrap();
        let root = world.path(&way.store());
        let stepwell = |args: &[&str]| {
            let mut command = Command::new(program::debug());
            command.args(args).arg("--root").arg(&root);
            way.ran(command).out
        };
        let shown = stepwell(&["du"]);
        assert!(
            shown
                .lines()
                .any(|l| l.starts_with("cache") && l.ends_with("/root/.cache")),
            "{shown}"
        );
        stepwell(&["prune"]);
        assert!(
            stepwell(&["du"]).contains("/root/.cache"),
            "caches are not what is pruned first"
        );
        stepwell(&["prune", "--all"]);
        assert!(!stepwell(&["du"]).contains("/root/.cache"));
    });
}

#[test]
fn a_cache_begins_with_what_it_is_told() {
    let world = World::new();
    world.file("seed/f", "from the context\n").dockerfile(
        "FROM @BUSYBOX@ AS base\nRUN mkdir -p /seed/d && echo seeded > /seed/d/f\nFROM @BUSYBOX@\n\
         RUN --mount=type=cache,target=/a,from=base,source=/seed --mount=type=cache,target=/b,from=base,source=/seed/d,ro \\\n\
         cat /a/d/f /b/f; ! echo x > /b/x; echo more >> /a/d/f\n\
         RUN --mount=type=cache,target=/a,from=base,source=/seed cat /a/d/f\n\
         RUN --mount=type=cache,target=/a ls -A /a | wc -l\n",
    );
    each_way(|way| {
        let ran = way.built(&world, &[]);
        assert_eq!(
            ran.printed().iter().filter(|l| *l == "seeded").count(),
            3,
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            ran.printed().iter().any(|l| l == "more") && ran.printed().iter().any(|l| l == "0")
        );
        assert!(
            ran.err.contains("can't create /b/x: Read-only file system"),
            "{}",
            ran.err
        );
    });
}

#[test]
fn a_cache_survives_whoever_is_killed_with_it() {
    let world = World::new();
    each_way(|way| {
        world.dockerfile("FROM @BUSYBOX@\nRUN mkdir -p /real && ln -s /real /link\nRUN --mount=type=cache,id=k,target=/link/c for n in $(seq 50); do mkdir /link/c/$n && echo $n > /link/c/$n/f; done\nRUN --mount=type=cache,id=inner,target=/i echo inner > /i/f\n");
        way.built(&world, &[]);
        for round in 0..6 {
            // With the cache behind a link, within a bind, moved away, and with a store that is looked after by others.
            let nested = match round {
                1 => "--mount=target=/real/c/in ",
                3 => {
                    "--mount=target=/real/c/9 --mount=type=tmpfs,target=/real/c/9/t --mount=type=cache,id=inner,target=/real/c/9/i "
                }
                5 => {
                    "--mount=type=cache,id=inner,target=/real/c/1 --mount=type=cache,id=outer,target=/real "
                }
                _ => "",
            };
            let moved = if round == 4 {
                "rm -r /real/c/7; mv -T /real/c /else 2>/dev/null; "
            } else {
                ""
            };
            world.dockerfile(&format!("FROM @BUSYBOX@\nRUN mkdir -p /real && ln -s /real /link\nRUN --mount=type=cache,id=k,target=/link/c {nested}{moved}echo {round} > /link/c/round; sleep 1000\n"));
            let mut child = started(way.command(&world, &[]));
            wait_until("the step", || {
                way.inside(&world, "real/c/round").is_some_and(|p| {
                    std::fs::read_to_string(p).is_ok_and(|t| t.trim() == round.to_string())
                })
            });
            child.kill().expect("SIGKILL");
            drop(finished(child));
            wait_until("the end of all", || {
                world.processes_of(&way.store()).is_empty()
            });
            if round % 3 == 2 {
                let mut prune = Command::new(program::debug());
                prune
                    .args(["prune", "--older-than=0s", "--root"])
                    .arg(world.path(&way.store()));
                assert_eq!(way.ran(prune).code, Some(0));
            }
            world.dockerfile("FROM @BUSYBOX@\nRUN mkdir -p /real && ln -s /real /link\nRUN --mount=type=cache,id=k,target=/link/c cat /link/c/round; cat /link/c/[0-9]*/f | wc -l; ls /link/c | wc -l\nRUN --mount=type=cache,id=inner,target=/i cat /i/f\n");
            let layers = way.layers(&world, &["--no-cache"]);
            assert!(
                layers.iter().flatten().all(|e| !e.contains("real/c")),
                "{layers:?}"
            );
            let ran = way.built(&world, &["--no-cache"]);
            let files = if round < 4 { 50 } else { 49 };
            let want = [
                round.to_string(),
                files.to_string(),
                (files + 1).to_string(),
                "inner".to_owned(),
            ];
            assert_eq!(ran.printed(), want, "{way:?} round {round}:\n{}", ran.err);
        }
    });
}
