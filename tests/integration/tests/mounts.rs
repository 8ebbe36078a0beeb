//! `RUN --mount` and the flags beside it, through the command line: as an ordinary user in both tiers, and as root where the
//! tests run as root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use stepwell_integration_tests::{Ran, World, ran};
use stepwell_test_support::cmd::{run, tool, which};
use stepwell_test_support::{is_root, program, tools, user};

/// Who builds, and in which tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    root: bool,
    isolation: &'static str,
}

impl Way {
    /// `stepwell build ARGS CONTEXT` with a store of this way's own.
    fn command(self, world: &World, args: &[&str]) -> Command {
        let isolation = format!("--isolation={}", self.isolation);
        let args: Vec<&str> = [&*isolation]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        if !self.root {
            return world.build_command_in(&self.store(), &args);
        }
        let mut command = Command::new(program::debug());
        command
            .args(["build", "--progress=plain", "--root"])
            .arg(world.path(&self.store()))
            .args(args)
            .arg(world.path("context"));
        command
    }

    fn store(self) -> String {
        let who = if self.root { "root" } else { "user" };
        format!("store-{who}-{}", self.isolation)
    }

    fn build(self, world: &World, args: &[&str]) -> Ran {
        ran(&mut self.command(world, args))
    }

    #[track_caller]
    fn built(self, world: &World, args: &[&str]) -> Ran {
        let ran = self.build(world, args);
        assert_eq!(ran.code, Some(0), "{self:?}:\n{}", ran.err);
        ran
    }

    /// Builds, and lists the entries of each layer.
    #[track_caller]
    fn layers(self, world: &World, args: &[&str]) -> Vec<Vec<String>> {
        let dest = world.path(&format!("{}.oci", self.store()));
        let _ = std::fs::remove_dir_all(&dest);
        let output = format!("type=oci,tar=false,dest={}", dest.display());
        let args: Vec<&str> = ["--output", &output]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.built(world, &args);
        let json = |path: PathBuf| -> Value {
            serde_json::from_slice(&std::fs::read(path).expect("a file of the layout"))
                .expect("JSON")
        };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            dest.join("blobs").join(digest.replace(':', "/"))
        };
        let manifest = json(blob(&json(dest.join("index.json"))["manifests"][0]));
        let layers = manifest["layers"].as_array().expect("layers");
        let list = |layer: &Value| {
            let text = run(Command::new("tar").arg("-tf").arg(blob(layer))).expect("a layer");
            text.lines().map(str::to_owned).collect()
        };
        layers.iter().map(list).collect()
    }
}

fn each_way(test: impl Fn(Way)) {
    for root in [false, true] {
        if root && !is_root() {
            println!("skipped: building as root needs root");
            continue;
        }
        for isolation in ["userns", "chroot"] {
            let way = Way { root, isolation };
            eprintln!("{way:?}");
            test(way);
        }
    }
}

/// What a step printed.
fn printed(ran: &Ran) -> Vec<String> {
    const TOLD: [&str; 7] = ["[", "DONE", "CACHED", "ERROR", "pull", "push", "unpack"];
    let lines = ran.err.lines().filter(|line| line.starts_with('#'));
    let lines = lines.filter_map(|line| line.split_once(' ').map(|(_, text)| text));
    lines
        .filter(|text| !TOLD.iter().any(|word| text.starts_with(word)))
        .map(str::to_owned)
        .collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what} does not happen");
        sleep(Duration::from_millis(20));
    }
}

fn started(mut command: Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

fn finished(child: Child) -> Ran {
    let output = child.wait_with_output().expect("the program ends");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Files below a directory whose bytes hold `text`.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let output = Command::new("grep")
        .args(["-rlaF", "--devices=skip", text])
        .arg(dir)
        .output()
        .expect("grep");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What is in `/dev/shm` of a step is on the store's disk, so that a test sees from outside what a step is doing.
fn inside(world: &World, way: Way, path: &str) -> Option<PathBuf> {
    let trees = std::fs::read_dir(world.path(&way.store()).join("v1/trees")).ok()?;
    let found = trees.flatten().map(|t| t.path().join("root").join(path));
    found.into_iter().find(|p| p.exists())
}

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
                printed(&ran).iter().any(|l| l == line),
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
        assert!(printed(&ran).iter().any(|l| l == "writable"), "{}", ran.err);
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
    let way = Way {
        root: false,
        isolation: "userns",
    };
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
        let lines = printed(&ran);
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
            printed(&ran).iter().any(|l| l.starts_with(sum)),
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
            ran_as(way, command).out
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

fn ran_as(way: Way, command: Command) -> Ran {
    if way.root {
        ran(&mut { command })
    } else {
        ran(&mut user::ordinary(command))
    }
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
            printed(&ran).iter().filter(|l| *l == "seeded").count(),
            3,
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            printed(&ran).iter().any(|l| l == "more") && printed(&ran).iter().any(|l| l == "0")
        );
        assert!(
            ran.err.contains("can't create /b/x: Read-only file system"),
            "{}",
            ran.err
        );
    });
}

/// Two steps that use one cache, each of which looks for the other for a while.
fn at_once(sharing: &str) -> String {
    let step = |name: &str, other: &str| {
        format!(
            "FROM @BUSYBOX@ AS {name}\nRUN --mount=type=cache,target=/c,id=at-once,sharing={sharing} echo > /c/{name}; n=0; while [ $n -lt 20 ]; do [ -e /c/{other} ] && echo {name}-sees-{other} && break; sleep 0.1; n=$((n+1)); done; rm -f /c/{name}; true\n"
        )
    };
    format!(
        "{}{}FROM @BUSYBOX@\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n",
        step("one", "two"),
        step("two", "one")
    )
}

#[test]
fn steps_that_use_a_cache_at_once_wait_or_get_another() {
    let world = World::new();
    let way = Way {
        root: false,
        isolation: "userns",
    };
    for sharing in ["locked", "shared", "private"] {
        world.dockerfile(&at_once(sharing));
        let ran = way.built(&world, &["--jobs=4", "--no-cache"]);
        assert!(
            !printed(&ran).iter().any(|l| l.contains("-sees-")),
            "{sharing}:\n{}",
            ran.err
        );
        let waits = ran.err.contains("waits for the cache `at-once`");
        assert_eq!(waits, sharing != "private", "{sharing}:\n{}", ran.err);
    }
    // Two builds at once: one waits for the other.
    world.dockerfile("FROM @BUSYBOX@\nARG WHO\nRUN --mount=type=cache,target=/c,sharing=locked echo $WHO >> /c/who; sleep 2; tail -n 1 /c/who\n");
    let children: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|who| {
            (
                who,
                started(way.command(&world, &[&format!("--build-arg=WHO={who}")])),
            )
        })
        .collect();
    for (who, child) in children {
        let ran = finished(child);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(
            printed(&ran),
            [who],
            "another one wrote meanwhile:\n{}",
            ran.err
        );
    }
    // Waiting ends with the build.
    let holder = started(way.command(&world, &["--build-arg=WHO=d"]));
    wait_until("the step", || inside(&world, way, "c/who").is_some());
    let mut waiter = started(way.command(&world, &["--build-arg=WHO=e"]));
    sleep(Duration::from_millis(500));
    run(Command::new("sh").args(["-c", "kill -INT $0", &waiter.id().to_string()])).expect("kill");
    let start = Instant::now();
    assert_eq!(waiter.wait().expect("ends").code(), Some(130));
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(finished(holder).code, Some(0));
    world.dockerfile("FROM @BUSYBOX@\nRUN --mount=type=cache,id=x,target=/a --mount=type=cache,id=x,target=/b true\n");
    way.build(&world, &[]).failed_with(
        65,
        &[
            "the cache `x` is mounted twice in one step",
            "Dockerfile:2:1",
        ],
    );
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
                inside(&world, way, "real/c/round").is_some_and(|p| {
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
                assert_eq!(ran_as(way, prune).code, Some(0));
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
            assert_eq!(printed(&ran), want, "{way:?} round {round}:\n{}", ran.err);
        }
    });
}

const SECRETS: &str = "\
FROM @BUSYBOX@
RUN --mount=type=secret,id=token,required --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token,target=/etc/app/key,mode=0440,gid=1000 \\
    --mount=type=secret,id=missing --mount=type=secret,id=missing,env=MISSING \\
    sha256sum < /run/secrets/token; echo -n \"$TOKEN\" | sha256sum; ls -l /etc/app/key /run/secrets; echo ${MISSING-unset}; \\
    touch /dev/shm/running; [ -z \"$WAIT\" ] || sleep 1000
USER 1000:1000
RUN --mount=type=secret,id=token --mount=type=secret,id=token,target=/etc/app/key,mode=0440,gid=1000 sha256sum < /etc/app/key; ! cat /run/secrets/token
";

#[test]
fn secrets_are_never_on_a_disk() {
    let world = World::new();
    let hush = "Nobody-must-read-this-7c1d9";
    std::fs::write(world.path("token"), hush).unwrap();
    let sum = run(Command::new("sh").args(["-c", &format!("printf %s {hush} | sha256sum")]))
        .expect("a sum");
    let sum = sum.trim();
    each_way(|way| {
        world.dockerfile(SECRETS);
        let secret = format!("id=token,src={}", world.path("token").display());
        let archive = world.path("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let ran = way.built(&world, &["--secret", &secret, "--output", &output]);
        assert_eq!(
            printed(&ran).iter().filter(|l| *l == sum).count(),
            3,
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            printed(&ran).iter().any(|l| l == "unset")
                && ran
                    .err
                    .contains("can't open '/run/secrets/token': Permission denied"),
            "{}",
            ran.err
        );
        assert!(!ran.err.contains(hush));
        let layers = way.layers(&world, &["--secret", &secret]);
        assert!(
            layers
                .iter()
                .flatten()
                .all(|e| !e.contains("secrets") && !e.contains("app/key")),
            "{layers:?}"
        );
        world.dockerfile(&SECRETS.replace("$WAIT", "wait"));
        let mut child = started(way.command(&world, &["--secret", &secret]));
        wait_until("the step", || {
            inside(&world, way, "dev/shm/running").is_some()
        });
        let while_it_runs = holding(&world.path(&way.store()), hush);
        child.kill().expect("SIGKILL");
        drop(finished(child));
        assert_eq!(while_it_runs, [""; 0], "{way:?}");
        assert_eq!(holding(&world.path(&way.store()), hush), [""; 0], "{way:?}");
        assert_eq!(holding(&archive, hush), [""; 0], "{way:?}");
        wait_until("the end of all", || {
            world.processes_of(&way.store()).is_empty()
        });
        // The search finds what there is.
        let mut control = std::fs::File::create(world.path(&way.store()).join("control")).unwrap();
        std::io::Write::write_all(&mut control, hush.as_bytes()).unwrap();
        assert_eq!(holding(&world.path(&way.store()), hush).len(), 1);
        let _ = std::fs::remove_file(&archive);
    });
}

#[test]
fn what_was_not_given_is_named_with_the_flag_that_gives_it() {
    let world = World::new();
    world.dockerfile("FROM @BUSYBOX@\nRUN true\nRUN --mount=type=secret,id=token,required true\n");
    world.build(&[]).failed_with(
        65,
        &[
            "the secret `token` is required, and was not given",
            "Dockerfile:3:1",
            "hint: add `--secret id=token,src=FILE` or `--secret id=token,env=VARIABLE`",
        ],
    );
    world.dockerfile("FROM @BUSYBOX@\nRUN --mount=type=ssh,required true\n");
    world.build(&[]).failed_with(
        65,
        &[
            "the SSH agent `default` is required",
            "Dockerfile:2:1",
            "--ssh default",
        ],
    );
    world.dockerfile("FROM @BUSYBOX@\nRUN --mount=type=ssh echo ${SSH_AUTH_SOCK-none}\n");
    assert_eq!(printed(&world.built(&[])), ["none"]);
    for (args, parts) in [
        (
            &["--secret", "src=x"][..],
            &["lacks its id", "id=NAME,src=FILE"][..],
        ),
        (
            &["--secret", "id=x,env=NONESUCH"],
            &["`NONESUCH` is not set"],
        ),
        (&["--ssh", "default"], &["SSH_AUTH_SOCK is not set"]),
        (
            &["--ulimit", "files=3"],
            &["`files` is not a limit", "nofile"],
        ),
        (&["--add-host", "x"], &["HOST:IP"]),
    ] {
        let mut command = world.build_command(args);
        command.env_remove("SSH_AUTH_SOCK");
        ran(&mut command).failed_with(64, parts);
    }
}

/// The directory of the context that holds `ssh-add` of this machine and what it needs to run in any image.
fn ssh_add(world: &World) -> String {
    let program = which("ssh-add").expect("ssh-add");
    let mut ldd = Command::new("ldd");
    if program.starts_with(tools::unpacked()) {
        ldd.env("LD_LIBRARY_PATH", tools::library_path());
    }
    let libraries = run(ldd.arg(&program)).expect("ldd");
    let paths = libraries.split_whitespace().filter(|w| w.starts_with('/'));
    let mut loader = String::new();
    for path in paths.chain([program.to_str().expect("a path")]) {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        world.file(
            &format!("tools/{name}"),
            std::fs::read(path).expect("a library"),
        );
        run(Command::new("chmod")
            .arg("755")
            .arg(world.path("context/tools").join(name)))
        .expect("chmod");
        if name.starts_with("ld-") {
            loader = format!("/t/{name} --library-path /t /t/ssh-add");
        }
    }
    loader
}

#[test]
fn an_agent_answers_in_a_step() {
    let world = World::new();
    let add = ssh_add(&world);
    each_way(|way| {
        let dir = world.path("agent");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let own = |command: Command| {
            if way.root {
                command
            } else {
                user::ordinary(command)
            }
        };
        user::give(world.path("").as_path()).expect("the user's files");
        let (socket, key) = (dir.join("socket"), dir.join("key"));
        let mut make = tool("ssh-keygen");
        make.args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "the-test's-key",
            "-f",
        ])
        .arg(&key);
        run(&mut own(make)).expect("a key");
        let mut agent = tool("ssh-agent");
        agent.args(["-D", "-a"]).arg(&socket);
        let mut agent = own(agent).stdout(Stdio::null()).spawn().expect("the agent");
        wait_until("the agent's socket", || socket.exists());
        let mut load = tool("ssh-add");
        load.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
        run(&mut own(load)).expect("the key is in the agent");
        world.dockerfile(&format!(
            "FROM @BUSYBOX@\nRUN --mount=source=tools,target=/t --mount=type=ssh {add} -l; stat -c '%n %a' $SSH_AUTH_SOCK\nRUN --mount=source=tools,target=/t --mount=type=ssh,id=other,target=/agent {add} -l; echo $SSH_AUTH_SOCK; echo second\n"
        ));
        let other = format!("other={}", socket.display());
        let mut command = way.command(&world, &["--ssh", "default", "--ssh", &other, "--no-cache"]);
        command.env("SSH_AUTH_SOCK", &socket);
        let built = ran(&mut command);
        let _ = agent.kill();
        let _ = agent.wait();
        assert_eq!(built.code, Some(0), "{way:?}:\n{}", built.err);
        let keys = printed(&built)
            .iter()
            .filter(|l| l.contains("the-test's-key (ED25519)"))
            .count();
        assert_eq!(keys, 2, "{way:?}:\n{}", built.err);
        for line in ["/run/buildkit/ssh_agent.1 600", "/agent", "second"] {
            assert!(
                printed(&built).iter().any(|l| l == line),
                "{line}:\n{}",
                built.err
            );
        }
    });
}

#[test]
fn limits_hosts_sizes_and_networks_reach_the_step() {
    let world = World::new();
    world.dockerfile(
        "FROM @BUSYBOX@\nRUN ulimit -n; ulimit -Hn; grep -c db.example /etc/hosts; stat -f -c '%b %S' /dev/shm; ls /sys/class/net\nRUN --network=none ls /sys/class/net; ! wget -q -T 2 -O - http://@REGISTRY@/v2/\nRUN --network=host --security=sandbox wget -q -O - http://@REGISTRY@/v2/ && echo reached\n",
    );
    each_way(|way| {
        let ran = way.built(
            &world,
            &[
                "--ulimit",
                "nofile=99:100",
                "--add-host",
                "db.example:10.1.2.3",
                "--shm-size",
                "1m",
            ],
        );
        let lines = printed(&ran);
        assert_eq!(
            lines[..4],
            ["99", "100", "1", "256 4096"].map(str::to_owned),
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            lines.iter().any(|l| l.ends_with("reached")),
            "{way:?}:\n{}",
            ran.err
        );
        let ran = way.built(&world, &["--network=none", "--no-cache"]);
        assert!(
            printed(&ran)
                .iter()
                .filter(|l| l.ends_with("reached"))
                .count()
                == 1,
            "the file's own word counts more"
        );
    });
}
