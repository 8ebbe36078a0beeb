//! The sandbox, asserted from inside real steps: every test runs a busybox tree in every tier that this machine
//! permits, as root and as an ordinary user.
//!
//! As root, the ordinary user is a number; as an ordinary user, only that user is tested.  The Debian cases are in
//! `debian.rs`.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{alive_with, each_mode};

#[test]
fn exit_status_signal_and_output_arrive_as_they_are() {
    each_mode(|tree| {
        tree.sh("echo out; echo err >&2; exit 3")
            .code(3)
            .stdout("out\n")
            .stderr("err\n");
        tree.sh("kill -SEGV $$").code(128 + 11);
        tree.sh("head -c 3000000 /bin/busybox | wc -c >/dev/null; yes | head -c 9000000 | tr y z")
            .code(0)
            .stdout_len(9_000_000);
        tree.step(&["true"]).run().code(0).stdout("").stderr("");
    });
}

#[test]
fn programs_that_do_not_start_say_why() {
    each_mode(|tree| {
        tree.step(&["nonesuch"])
            .run()
            .code(127)
            .stderr_has("`nonesuch` is in no directory of the step's PATH");
        tree.step(&["/bin/nonesuch"])
            .run()
            .code(127)
            .stderr_has("`/bin/nonesuch` does not exist in the image");
        tree.step(&["/etc"])
            .run()
            .code(126)
            .stderr_has("it is a directory");
        tree.write("bin/script", "#!/usr/bin/python9\n", 0o755);
        tree.step(&["script"])
            .run()
            .code(127)
            .stderr_has("is a script for `/usr/bin/python9`");
        tree.write("bin/plain", "text\n", 0o755);
        tree.step(&["plain"])
            .run()
            .code(126)
            .stderr_has("has no `#!` line");
    });
}

/// A signal may come while a program is being loaded.
#[test]
fn no_signal_is_lost() {
    each_mode(|tree| {
        tree.sh(
            "for i in $(seq 20); do sleep 10 & kill $!; wait $!; test $? = 143 || exit 1; done",
        )
        .code(0);
    });
}

#[test]
fn a_program_that_is_busy_for_a_moment_is_waited_for() {
    each_mode(|tree| {
        let writing = std::fs::OpenOptions::new()
            .append(true)
            .open(tree.path("bin/busybox"))
            .unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(writing);
        });
        tree.step(&["/bin/busybox", "true"]).run().code(0);
        writer.join().unwrap();
    });
}

#[test]
fn environment_directory_and_user_are_the_steps_own() {
    each_mode(|tree| {
        tree.write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
            0o644,
        );
        tree.write(
            "etc/group",
            "root:x:0:\napp:x:1001:\nextra:x:1002:app\n",
            0o644,
        );
        tree.step(&["env"]).options(&["--env", "A=b c"]).run().code(0).stdout(
            "A=b c\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/root\n",
        );
        tree.step(&["sh", "-c", "pwd; umask"])
            .options(&["--cwd", "/made/for/it"])
            .run()
            .code(0)
            .stdout("/made/for/it\n0022\n");
        tree.step(&["sh", "-c", "echo $HOME; id -u; id -g; id -G"])
            .options(&["--user", "app"])
            .run()
            .code(0)
            .stdout("/home/app\n1000\n1001\n1001 1002\n");
        tree.step(&["id", "-u"])
            .options(&["--user", "nobody"])
            .run()
            .code(125)
            .stderr_has("user `nobody` is not in the image's `/etc/passwd`");
        if tree.mode().container != "docker" {
            tree.sh("cat; hostname").code(0).stdout("buildkitsandbox\n");
        }
    });
}

#[test]
fn output_streams_while_the_step_runs() {
    each_mode(|tree| {
        let started = Instant::now();
        let mut child = tree
            .step(&["sh", "-c", "echo first; sleep 3; echo second"])
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "first");
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "the first line came with the last one"
        );
        assert_eq!(lines.next().unwrap().unwrap(), "second");
        assert!(child.wait().unwrap().success());
    });
}

/// Daemons of all kinds: in the background, forked twice, in sessions of their own, ignoring signals, stopped.
const DAEMONS: &str = "
    sleep MARK & (sleep MARK &) ; setsid sleep MARK & (setsid sh -c 'trap \"\" TERM HUP INT; sleep MARK & wait' &)
    sleep MARK & kill -STOP $!
    sh -c 'sleep MARK & exec sleep MARK' & sleep 0.3; ";

#[test]
fn nothing_of_a_step_survives_it() {
    each_mode(|tree| {
        let mark = tree.mark();
        let daemons = DAEMONS.replace("MARK", &mark);
        tree.sh(&format!("{daemons} exit 5")).code(5);
        assert_eq!(alive_with(&mark), 0, "after a regular end");
        tree.sh(&format!("{daemons} kill -9 $$")).code(137);
        assert_eq!(alive_with(&mark), 0, "after a signal");
    });
}

#[test]
fn a_time_limit_and_a_cancellation_end_everything_at_once() {
    each_mode(|tree| {
        let mark = tree.mark();
        let script = format!(
            "{} echo ready; sleep {mark}",
            DAEMONS.replace("MARK", &mark)
        );
        for (option, code) in [("--timeout", 124), ("--cancel", 130)] {
            let started = Instant::now();
            tree.step(&["sh", "-c", &script])
                .options(&[option, "2"])
                .run()
                .code(code)
                .stdout("ready\n");
            assert!(
                started.elapsed() < Duration::from_secs(9),
                "{option} took {:?}",
                started.elapsed()
            );
            assert_eq!(alive_with(&mark), 0, "after {option}");
        }
    });
}

#[test]
fn a_killed_builder_takes_its_step_along() {
    each_mode(|tree| {
        let mark = tree.mark();
        let mut child = with_daemons(tree, &mark);
        assert!(alive_with(&mark) >= 6);
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while alive_with(&mark) > 0 {
            assert!(
                Instant::now() < deadline,
                "{} processes are left",
                alive_with(&mark)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_killed_holder_takes_its_step_along() {
    each_mode(|tree| {
        let mark = tree.mark();
        let mut child = with_daemons(tree, &mark);
        let holders = children_of(child.id());
        assert!(!holders.is_empty());
        for holder in holders {
            let number = rustix::process::Pid::from_raw(holder).unwrap();
            rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(125));
        assert_eq!(alive_with(&mark), 0, "after the holder was killed");
    });
}

/// Starts a step that leaves daemons of every kind behind, and waits until they are there.
fn with_daemons(tree: &support::TestTree, mark: &str) -> Child {
    let script = format!("{} echo ready; sleep {mark}", DAEMONS.replace("MARK", mark));
    let mut child = tree
        .step(&["sh", "-c", &script])
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn children_of(parent: u32) -> Vec<i32> {
    let lists = std::fs::read_dir(format!("/proc/{parent}/task"))
        .unwrap()
        .flatten();
    let text = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("children"));
    let texts: Vec<String> = lists.filter_map(|entry| text(entry).ok()).collect();
    let numbers = texts.iter().flat_map(|text| text.split_whitespace());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn a_step_reaches_nothing_outside() {
    each_mode(|tree| {
        let outside = std::process::id();
        // A process of the same user, outside the step.
        let mut victim = Guard(tree.outside(&["sleep", "1000"]).spawn().unwrap());
        tree.sh(&format!("kill -0 {outside} || kill -0 {}", victim.0.id()))
            .code(1);
        tree.sh("kill -9 -1; echo alive").code(0);
        assert!(
            victim.0.try_wait().unwrap().is_none(),
            "kill -1 reached a process outside"
        );
        tree.sh("mkdir -p /sub/bin; cp /bin/busybox /sub/bin/true; chroot /sub true")
            .code(i32::from(!tree.mode().has_kernel_world()));
        tree.sh("cd /; cd ../../..; test -x bin/busybox && test ! -e var/tmp")
            .code(0);
        tree.sh("mkdir -p /mnt; mount -t tmpfs none /mnt")
            .code_not(0);
        tree.sh("unshare -U true || unshare -m true")
            .code_not(0)
            .stderr_has("Operation not permitted");
    });
}

struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_network_there_is_loopback_only() {
    each_mode(|tree| {
        let step = |script| {
            tree.step(&["sh", "-c", script])
                .options(&["--network", "none"])
                .run()
        };
        if tree.mode().is_confined() || tree.mode().isolation == "mediated" {
            step("ping -c1 -W2 127.0.0.1 2>&1")
                .code_not(0)
                .stdout_has("ddress family not supported");
        } else {
            step("ip -o link | cut -d: -f2; ping -c1 -W2 127.0.0.1 >/dev/null && echo loopback")
                .code(0)
                .stdout(" lo\nloopback\n");
        }
        step("wget -q -T2 -O- http://192.0.2.1/").code_not(0);
    });
}

#[test]
fn inline_files_are_there_for_the_step_only() {
    each_mode(|tree| {
        let file = "/dev/pipes/EOF=#!/bin/sh\necho from the file";
        tree.step(&["/dev/pipes/EOF"])
            .options(&["--file", file])
            .run()
            .code(0)
            .stdout("from the file\n");
        assert!(!tree.path("dev/pipes").exists());
    });
}

#[test]
fn no_mount_is_needed() {
    for deny in ["seccomp", "landlock"] {
        each_mode(|tree| {
            tree.step(&["sh", "-c", "echo > /tmp/f && mv /tmp/f /etc/g && exit 7"])
                .options(&["--deny-mounts", deny])
                .run()
                .code(7);
        });
    }
}

#[test]
fn a_fork_bomb_ends_with_its_time() {
    each_mode(|tree| {
        let mark = tree.mark();
        let bomb = format!("b() {{ sleep {mark} & sleep 0.15; b & b & wait; }}; b");
        tree.step(&["sh", "-c", &bomb])
            .options(&["--timeout", "1"])
            .run()
            .code(124);
        assert_eq!(alive_with(&mark), 0);
    });
}

/// Whoever forks and executes without end comes to wait behind everybody else, and not the other way round.
#[test]
fn a_crowd_that_executes_without_end_leaves_others_their_turn() {
    each_mode(|tree| {
        let crowd = "for i in $(seq 80); do (while :; do busybox true; done) & done";
        let script = format!("{crowd}; for i in $(seq 3); do busybox true; done; exit 7");
        tree.step(&["sh", "-c", &script])
            .options(&["--timeout", "60"])
            .run()
            .code(7);
    });
}

/// Processes whose parents are gone end faster than they can be reaped, and somebody has to look at the builder in between.
#[test]
fn orphans_without_end_end_with_their_time() {
    each_mode(|tree| {
        let mark = tree.mark();
        let orphans = "(while :; do (busybox true &); done) &";
        let script = format!("{orphans} {orphans} {orphans} sleep {mark}");
        tree.step(&["sh", "-c", &script])
            .options(&["--timeout", "1"])
            .run()
            .code(124);
        assert_eq!(alive_with(&mark), 0);
    });
}

#[test]
fn too_much_memory_and_too_many_processes_end_a_step() {
    each_mode(|tree| {
        let mark = tree.mark();
        let many = format!("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep {mark} & done; wait");
        let limited = |option, value, script: &str, code| {
            tree.step(&["sh", "-c", script])
                .options(&[option, value])
                .run()
                .code(code);
            assert_eq!(alive_with(&mark), 0, "{option}");
        };
        limited("--processes", "8", &many, 123);
        limited("--processes", "100", &many.replace("wait", "exit 5"), 5);
        // Between the number and the kernel's own limit at twice of it.
        let large = "busybox dd if=/dev/zero of=/dev/null bs=96M";
        limited("--memory", "67108864", large, 122);
        limited("--memory", "268435456", &format!("{large} count=1"), 0);
    });
}

#[test]
fn many_steps_at_once_do_not_meet() {
    each_mode(|tree| {
        std::thread::scope(|scope| {
            for n in 0..6 {
                scope.spawn(move || {
                    let env = format!("N={n}");
                    let step = [
                        "sh",
                        "-c",
                        "echo $N > /tmp/n; sleep 0.2; cat /tmp/n; exit $N",
                    ];
                    tree.another()
                        .step(&step)
                        .options(&["--env", &env])
                        .run()
                        .code(n)
                        .stdout(&format!("{n}\n"));
                });
            }
        });
    });
}
