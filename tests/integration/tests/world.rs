//! The world that a step finds itself in, the same in every tier: what programs of Debian and of languages' runtimes look at
//! and use.  Asserted from inside the step, and on the layer.
//!
//! The table of `host/steps/tests/supervisor.rs` is about the same with busybox, in detail; ways out are in `tests/escape`.

use std::path::Path;
use std::process::Command;

use stepwell_integration_tests::World;
use stepwell_integration_tests::denial::{compile_all, narrow_flags};
use stepwell_integration_tests::way::Way;
use stepwell_test_support::cmd::run;
use stepwell_test_support::not_run;
use stepwell_test_support::tools::narrow_library;

/// A script for bash, and what it prints.
type Case = (&'static str, &'static str);

const PROC: &[Case] = &[
    (
        "readlink /proc/self/exe; cd /etc; readlink /proc/self/cwd /proc/self/root",
        "/usr/bin/readlink\n/etc\n/\n",
    ),
    (
        "[[ $(readlink /proc/thread-self) =~ ^[0-9]+/task/[0-9]+$ ]] && cat /proc/thread-self/comm",
        "cat\n",
    ),
    (
        "cd /proc/self && cat comm && cd task && ls | wc -l",
        "bash\n1\n",
    ),
    (
        "cd /dev/fd && pwd -P | tr 0-9 n | tr -s n; cd /proc/net && ls -d dev; cd /proc/thread-self && cat comm; cd /; for l in self thread-self mounts; do [ -h /proc/$l ] && echo $l; done",
        "/proc/n/fd\ndev\nbash\nself\nthread-self\nmounts\n",
    ),
    // What has links that it takes for directories does not come to its end.
    (
        "find / -maxdepth 3 > /dev/null; echo $?; find /proc /dev -name self -o -name fd -prune | grep -c self",
        "0\n1\n",
    ),
    (
        "grep -c '\\[stack\\]' /proc/self/maps; grep -m1 -o /usr/bin/grep /proc/self/maps",
        "1\n/usr/bin/grep\n",
    ),
    (
        "awk '$2 == \"/\"' /proc/mounts | wc -l; df / | wc -l",
        "1\n2\n",
    ),
    (
        "[[ $(grep -c ^processor /proc/cpuinfo) = $(nproc --all) ]] && grep -c ^MemTotal /proc/meminfo",
        "1\n",
    ),
    (
        "for f in kernel/pid_max kernel/hostname vm/overcommit_memory net/core/somaxconn fs/file-max kernel/random/boot_id; do cat /proc/sys/$f | wc -l; done | uniq",
        "1\n",
    ),
    (
        "sleep 100 & until grep -q sleep /proc/$!/comm; do :; done; for p in /proc/[0-9]*; do read -r name < $p/comm; echo $name; done | sort -u | grep -c -x -e sleep -e bash; kill $!",
        "2\n",
    ),
    (
        "grep -q ^Name:.*grep /proc/self/status && grep -c ^Uid:.0.0.0.0 /proc/self/status; wc -l < /proc/self/limits",
        "1\n17\n",
    ),
    (
        "cat /proc/self/cmdline | tr '\\0' ' '; A=1 B=2 exec env -i C=3 cat /proc/self/environ",
        "cat /proc/self/cmdline C=3\0",
    ),
];

/// What the JVM, Go, Node and allocators read.
const SYS: &[Case] = &[
    (
        "cat /sys/devices/system/cpu/online /sys/devices/system/cpu/possible | grep -c ^0",
        "2\n",
    ),
    (
        "cat /sys/kernel/mm/transparent_hugepage/hpage_pmd_size /sys/kernel/mm/transparent_hugepage/enabled | wc -l",
        "2\n",
    ),
    (
        "cat /proc/self/cgroup | wc -l | grep -c '^[1-9]'; ls -d /sys/fs/cgroup /sys/class/net/lo",
        "1\n/sys/class/net/lo\n/sys/fs/cgroup\n",
    ),
    (
        "ls -d /sys/devices/system/node/node0 /sys/devices/system/cpu/cpu0",
        "/sys/devices/system/cpu/cpu0\n/sys/devices/system/node/node0\n",
    ),
];

const IDS: &[Case] = &[
    (
        "useradd -m -u 1000 app && su app -c 'id -un; echo $HOME; id -G'",
        "app\n/home/app\n1000\n",
    ),
    (
        "setpriv --reuid app --regid app --init-groups id -u",
        "1000\n",
    ),
    (
        "install -d -o app -g app -m 750 /data && install -o app -m 4640 /etc/hostname /data/i && stat -c '%U:%G %a' /data /data/i",
        "app:app 750\napp:root 4640\n",
    ),
    (
        "tar -cpf - -C / data | tar -xpf - -C /mnt && stat -c '%U:%G %a' /mnt/data/i",
        "app:root 4640\n",
    ),
    (
        "touch /data/new && chown app: /data/new && su app -c 'echo mine > /data/new; chmod 600 /data/new' && stat -c '%U:%G %a %s' /data/new",
        "app:app 600 5\n",
    ),
    (
        "groupadd -g 77 team && usermod -aG team app && su app -c 'id -Gn'; chsh -s /bin/sh app; getent passwd app",
        "app team\napp:x:1000:1000::/home/app:/bin/sh\n",
    ),
];

const FILES: &[Case] = &[
    (
        "mkdir -p /nodes && mkfifo /nodes/pipe && stat -c %F /nodes/pipe",
        "fifo\n",
    ),
    (
        "d=$(printf d%.0s {1..250}); cd /tmp; for i in {1..15}; do mkdir $d && cd $d; done; echo deep > f; p=$(pwd)/f; echo ${#p}; cat $p; ls $p$(printf x%.0s {1..300}) 2>&1 | grep -o 'File name too long'",
        "3771\ndeep\nFile name too long\n",
    ),
    (
        "d=$(printf d%.0s {1..250}); cd /tmp; for i in {1..15}; do cd $d; done; for i in {1..4}; do mkdir $d && cd $d; done; echo deeper > f; cat f; cd /; rm -r /tmp/d*; ls /tmp",
        "deeper\n",
    ),
    (
        "echo own > /etc/hosts; cp /etc/hosts /etc/h; mv /etc/h /etc/hosts; cat /etc/hosts; echo nameserver 192.0.2.9 >> /etc/resolv.conf; tail -1 /etc/resolv.conf; rm /etc/hostname",
        "own\nnameserver 192.0.2.9\n",
    ),
    (
        "echo x > /dev/shm/x; ls -ld /dev/shm | cut -c1-10; echo x | tee /dev/null | cat; ls -l /dev/null | cut -c1",
        "drwxrwxrwt\nx\nc\n",
    ),
    (
        "ln -L /proc/version /tmp/no/x 2>&1 | grep -o 'No such file.*'; ln -L /proc/version /tmp/x 2>&1 | grep -o 'Invalid cross.*'; exec 3< /etc/passwd; ln -L /proc/self/fd/3 /dev/null 2>&1 | grep -o 'File exists'",
        "No such file or directory\nInvalid cross-device link\nFile exists\n",
    ),
    // A slash asks for a directory, also at the end of a link; where something is made it follows none.
    (
        "cd /tmp; echo f > f; ln -s f/ l; stat -L l 2>&1 | grep -o 'Not a directory'; stat f/../f 2>&1 | grep -o 'Not a directory'; rm f l",
        "Not a directory\nNot a directory\n",
    ),
    (
        "mkdir /tmp/own && chown 1000 /tmp/own && cd /tmp/own && setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'ln -s no l; mkdir l/ 2>&1 | grep -o \"File exists\"; ls'; rm -r /tmp/own",
        "File exists\nl\n",
    ),
];

/// Where owners are emulated, so are device nodes; where they are real, nobody may make them, as in any user namespace.
const NODES: Case = (
    "mkdir -p /nodes && cd /nodes && mknod null c 1 3 && mknod disk b 8 0 && stat -c '%n %F %t:%T' null disk",
    "null character special file 1:3\ndisk block special file 8:0\n",
);
const NO_NODES: Case = (
    "mknod /null c 1 3 2>&1",
    "mknod: /null: Operation not permitted\n",
);

const SHELL: &[Case] = &[
    (
        "cat <(echo a) <(echo b); diff <(seq 3) <(seq 3) && echo same; tee >(cat > /tmp/t) < <(echo c); until [ -s /tmp/t ]; do :; done; cat /tmp/t",
        "a\nb\nsame\nc\nc\n",
    ),
    (
        "set -m; (exit 3) & wait %1; echo $?; sleep 100 & jobs | grep -c Running; kill %%; wait %% 2>/dev/null; echo $?; sleep 0.1 & fg >/dev/null; echo $?",
        "3\n1\n143\n0\n",
    ),
    (
        "trap 'echo caught' USR1; kill -USR1 $$; (kill -SEGV $BASHPID) 2>/dev/null; echo $?; timeout -s INT 0.2 sleep 100; echo $?",
        "caught\n139\n124\n",
    ),
    (
        "ulimit -n 77; ulimit -n; ulimit -c 0; ulimit -c; ulimit -s 4096; bash -c 'ulimit -s'; ulimit -u > /dev/null && echo known",
        "77\n0\n4096\nknown\n",
    ),
    (
        "script -qec 'test -t 0 && tty | tr 0-9 n; stty size < /dev/tty | wc -w' /dev/null < /dev/null | tr -d '\\r'",
        "/dev/pts/n\n2\n",
    ),
    (
        "sleep 100 & p=$!; kill -STOP $p; until grep -q '^State:.T' /proc/$p/status; do :; done; kill -CONT $p; kill $p; wait $p; echo $?",
        "143\n",
    ),
];

const PROGRAMS: &[Case] = &[
    ("/world semaphores", "semaphores works\n"),
    ("/world terminals", "terminals works\n"),
    ("/world threads", "threads works\n"),
    ("/world processes", "processes works\n"),
    ("/world crowd", "crowd works\n"),
    ("/world interrupts", "interrupts works\n"),
    ("/world sockets", "sockets works\n"),
    ("/world datagrams", "datagrams works\n"),
    ("/world logs", "logs works\n"),
    ("/world capabilities", "capabilities works\n"),
    ("/world watches", "watches works\n"),
    ("/world attributes", "attributes works\n"),
    ("rm -rf /tmp/attributes", ""),
    ("/world io_uring", "io_uring works\n"),
];

const TABLES: &[&[Case]] = &[PROC, SYS, IDS, FILES, SHELL, PROGRAMS];

#[test]
fn an_ordinary_users_step() {
    is_as_programs_expect(Way::USERNS);
}

/// Its `/proc`, `/dev` and `/sys` are the kernel's own.
#[test]
fn an_ordinary_users_step_with_ids() {
    is_as_programs_expect(Way::IDS);
}

#[test]
fn a_step_where_nothing_is_allowed() {
    is_as_programs_expect(Way::RESTRICTED);
}

#[test]
fn a_step_of_a_containers_root() {
    is_as_programs_expect(Way::DOCKER);
}

#[test]
fn a_step_of_the_machines_root() {
    is_as_programs_expect(Way::ROOT);
}

/// Programs of 32 bits: static ones, and one with a linker and a library.
fn narrow_programs(world: &World) {
    for (source, is_static, to) in [
        ("narrow.c", true, "narrow"),
        ("narrow.c", false, "narrow2"),
        ("world.c", true, "narrow-world"),
    ] {
        let mut flags = vec!["-D_GNU_SOURCE".to_owned(), "-pthread".to_owned()];
        flags.extend(narrow_flags(is_static));
        let flags: Vec<&str> = flags.iter().map(|flag| &**flag).collect();
        helper(world, source, &flags, to);
    }
    for (name, to) in [
        ("ld-linux.so.2", "lib/ld-linux.so.2"),
        ("libc.so.6", "lib32/libc.so.6"),
    ] {
        let library = narrow_library(name);
        world.file(
            &format!("narrow-root/usr/{to}"),
            std::fs::read(library).expect("a library of 32 bits"),
        );
    }
    let linker = world.path("context/narrow-root/usr/lib/ld-linux.so.2");
    run(Command::new("chmod").arg("755").arg(linker)).expect("chmod");
}

fn narrow_cases(way: Way) -> Vec<Case> {
    let ids = if way == Way::ROOT || way == Way::IDS {
        [("/narrow real", NARROW), ("/narrow2 real", NARROW)]
    } else {
        [("/narrow emulated", NARROW), ("/narrow2 emulated", NARROW)]
    };
    ids.into_iter()
        .chain(NARROW_WORLD.iter().copied())
        .collect()
}

const NARROW: &str = "32 bits work\n";

const NARROW_WORLD: &[Case] = &[
    (
        "/world narrow_calls",
        "#!/bin/cat\nscript\nnarrow_calls works\n",
    ),
    ("/narrow-world semaphores", "semaphores works\n"),
    ("/narrow-world terminals", "terminals works\n"),
    ("/narrow-world processes", "processes works\n"),
    (
        "rm -f /tmp/world-socket; /narrow-world sockets",
        "sockets works\n",
    ),
    ("/narrow-world datagrams", "datagrams works\n"),
    ("/narrow-world logs", "logs works\n"),
    (
        "/narrow-world attributes; rm -r /tmp/attributes",
        "attributes works\n",
    ),
    ("/narrow-world io_uring", "io_uring works\n"),
    // Programs of either kind execute those of the other, and scripts; so do interpreters.
    (
        "/narrow run /bin/echo a; /narrow2 run /narrow run /narrow2 run /bin/bash -c '/narrow run /bin/echo b'",
        "a\nb\n",
    ),
    (
        "printf '#!/bin/echo -e\n' > /tmp/e; chmod +x /tmp/e; /narrow run /tmp/e c; /narrow2 run /tmp/e $(seq 3000) | wc -w",
        "/tmp/e c\n3001\n",
    ),
    (
        "printf '#!/narrow-world io_uring\n' > /tmp/n; chmod +x /tmp/n; /tmp/n; /narrow2 run /tmp/n; rm /tmp/[en]",
        "io_uring works\nio_uring works\n",
    ),
    (
        "/narrow run /missing; /narrow2 run /etc; /narrow run /bin/readlink /proc/self/exe",
        "/missing: No such file or directory\n/etc: Permission denied\n/usr/bin/readlink\n",
    ),
    (
        "bash -c '/narrow-world processes & /world processes & wait'",
        "processes works\nprocesses works\n",
    ),
];

fn has_nodes(way: Way) -> bool {
    way != Way::ROOT && way != Way::IDS
}

fn is_as_programs_expect(way: Way) {
    if let Some(why) = way.missing() {
        not_run(why);
        return;
    }
    let world = World::with_debian();
    helper(
        &world,
        "world.c",
        &["-D_GNU_SOURCE", "-static", "-pthread"],
        "world",
    );
    let mut cases = TABLES.concat();
    if cfg!(target_arch = "x86_64") {
        narrow_programs(&world);
        cases.extend(narrow_cases(way));
    }
    cases.push(if has_nodes(way) { NODES } else { NO_NODES });
    // Each in a shell of its own; what it prints goes to a file, which a layer carries out.
    let mut all = String::from("mkdir /said\n");
    for (number, (script, _)) in cases.iter().enumerate() {
        world.file(&format!("cases/{number}"), script);
        all.push_str(&format!(
            "bash /cases/{number} > /said/{number} 2>/said/{number}.err < /dev/null\n"
        ));
    }
    world.file("all", all + "rm -r /cases /all\n").dockerfile(
        "FROM @DEBIAN@ AS world\nCOPY world narro[w] narrow[2] narrow-worl[d] /\nCOPY narrow-roo[t] /\nCOPY cases /cases\nCOPY all /all\nRUN bash /all; true\nFROM scratch AS said\nCOPY --from=world /said /said\nFROM world\n",
    );
    let out = world.path("out");
    way.built(
        &world,
        &[
            "--target=said",
            "--output",
            &format!("type=local,dest={}", out.display()),
        ],
    );
    let said = |name: String| std::fs::read(out.join("said").join(name)).expect("what it said");
    let mut failed = String::new();
    for (number, (script, want)) in cases.iter().enumerate() {
        let got = String::from_utf8_lossy(&said(number.to_string())).into_owned();
        if got != *want {
            let more = said(format!("{number}.err"));
            let more = String::from_utf8_lossy(&more);
            failed.push_str(&format!(
                "{script}\n  wanted {want:?}\n  got    {got:?}\n  and    {more:?}\n"
            ));
        }
    }
    assert!(failed.is_empty(), "{way:?}:\n{failed}");
    layer(&world, way);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn without_network_programs_of_32_bits_have_none_either() {
    let world = World::new();
    narrow_programs(&world);
    world.dockerfile("FROM @BUSYBOX@\nCOPY narrow /\nRUN --network=none /narrow network\n");
    for way in [Way::DOCKER, Way::RESTRICTED] {
        if let Some(why) = way.missing() {
            not_run(why);
            continue;
        }
        let built = way.built(&world, &[]);
        let said = built.printed();
        assert!(said.iter().any(|l| l == "no network"), "{}", built.err);
    }
}

/// What the steps above made is in the layer, and nothing of the world that was made for them.
fn layer(world: &World, way: Way) {
    let layers = way.layers(world, &[]);
    let last = layers.last().expect("a layer");
    let has = |name: &str| last.iter().any(|entry| entry == name);
    let nodes: &[&str] = if has_nodes(way) {
        &["nodes/null", "nodes/disk"]
    } else {
        &[]
    };
    let made = [
        "home/app/",
        "data/i",
        "nodes/pipe",
        "etc/passwd",
        "tmp/capable",
    ];
    for name in made.iter().chain(nodes) {
        assert!(has(name), "{way:?}: `{name}` is missing: {last:?}");
    }
    let of_the_world = |entry: &&String| {
        ["proc", "sys", "dev"]
            .iter()
            .any(|graft| entry.starts_with(graft))
            || [
                "etc/hosts",
                "etc/resolv.conf",
                "etc/hostname",
                "etc/h",
                "tmp/world-socket",
            ]
            .contains(&entry.as_str())
    };
    let wrong: Vec<_> = last.iter().filter(of_the_world).collect();
    assert!(wrong.is_empty(), "{way:?}: {wrong:?} are in the layer");
}

fn helper(world: &World, source: &str, flags: &[&str], to: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("helpers")
        .join(source);
    compile_all(&[source], flags, &world.path("context").join(to));
}
