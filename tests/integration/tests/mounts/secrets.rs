//! Secrets and agents: they reach the step, and nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use stepwell_integration_tests::children::{finished, started, wait_until};
use stepwell_integration_tests::way::each_way;
use stepwell_integration_tests::{World, ran};
use stepwell_test_support::cmd::{run, tool, which};
use stepwell_test_support::{tools, user};

use crate::holding;

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
            ran.printed().iter().filter(|l| *l == sum).count(),
            3,
            "{way:?}:\n{}",
            ran.err
        );
        assert!(
            ran.printed().iter().any(|l| l == "unset")
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
            way.inside(&world, "dev/shm/running").is_some()
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
    assert_eq!(world.built(&[]).printed(), ["none"]);
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
        // It is there before anybody listens on it.
        wait_until("the agent", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
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
        let keys = built
            .printed()
            .iter()
            .filter(|l| l.contains("the-test's-key (ED25519)"))
            .count();
        assert_eq!(keys, 2, "{way:?}:\n{}", built.err);
        for line in ["/run/buildkit/ssh_agent.1 600", "/agent", "second"] {
            assert!(
                built.printed().iter().any(|l| l == line),
                "{line}:\n{}",
                built.err
            );
        }
    });
}
