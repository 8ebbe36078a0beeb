//! What a step sees of `/proc`, `/dev`, `/sys` and its own ids, asserted from inside: the same table in every tier
//! and for every user, because a Dockerfile must not be able to tell.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{TestTree, each_mode};

/// A script, and what it prints.
type Case = (&'static str, &'static str);

/// Where `/proc`, `/dev` and `/sys` are the kernel's own, a Dockerfile can tell by these, as it can in other builders that have
/// no privilege: the devices are somebody else's, and nobody can change them; process 1 tells nothing of itself; `/sys` has all
/// that the machine has.
const KERNEL_WORLD: &[Case] = &[
    (
        "stat -c '%F %t:%T %a %u' /dev/null /dev/zero",
        "character special file 1:3 666 65534\ncharacter special file 1:5 666 65534\n",
    ),
    ("chmod 666 /dev/null && echo changed", ""),
    (
        "test ! -e /proc/1 || cat /proc/1/comm /proc/1/stat /proc/1/mounts >/dev/null && echo fine",
        "",
    ),
    ("cat /proc/self/uid_map | tr -s ' '", " 0 0 1\n 1 1 65536\n"),
    (
        "ls /sys | grep -E '^(firmware|power)$'",
        "firmware\npower\n",
    ),
];

/// What a script prints in the tree's mode.
fn expected(tree: &TestTree, (script, want): &Case) -> &'static str {
    let other = KERNEL_WORLD
        .iter()
        .find(|(other, _)| tree.mode().has_kernel_world() && other == script);
    other.map_or(want, |(_, want)| want)
}

fn check(tree: &TestTree, cases: &[Case]) {
    tree.write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
        0o644,
    );
    tree.write("etc/group", "root:x:0:\napp:x:1001:\n", 0o644);
    // All of a table are tried, so that one run tells everything.
    let failed = cases.iter().filter(|case| {
        let (script, want) = (case.0.replace("bb ", "busybox "), expected(tree, case));
        catch_unwind(AssertUnwindSafe(|| tree.sh(&script).stdout(want))).is_err()
    });
    assert_eq!(failed.count(), 0, "cases failed");
}

const DEVICES: &[Case] = &[
    (
        "echo x >/dev/null; echo $?; test -f /dev/null || echo device",
        "0\ndevice\n",
    ),
    (
        "stat -c '%F %t:%T %a %u' /dev/null /dev/zero",
        "character special file 1:3 666 0\ncharacter special file 1:5 666 0\n",
    ),
    (
        "head -c4 /dev/urandom | wc -c; head -c4 /dev/zero | bb od -An -tx1",
        "4\n 00 00 00 00\n",
    ),
    (
        "echo out >/dev/stdout; echo z | cat /dev/fd/0; echo y | cat /dev/stdin",
        "out\nz\ny\n",
    ),
    (
        "bb readlink /dev/fd; bb readlink /dev/stdin",
        "/proc/self/fd\n/proc/self/fd/0\n",
    ),
    (
        "cd /dev; echo x >null; echo x >../dev//./null; echo x >fd/1",
        "x\n",
    ),
    (
        "echo shared >/dev/shm/f; cat /dev/shm/f; stat -c %a /dev/shm",
        "shared\n1777\n",
    ),
    ("echo x >/dev/full", ""),
    (
        "(echo x >/dev/tty) 2>/dev/null || echo no terminal",
        "no terminal\n",
    ),
    (
        "ls /dev | tr '\\n' ' '",
        "console fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
    ),
    (
        "mkdir /dev/own && echo x >/dev/own/f && cat /dev/own/f; rm -r /dev/own",
        "x\n",
    ),
    ("chmod 666 /dev/null && echo changed", "changed\n"),
    (
        "cat /dev/sda /dev/mem /dev/kmsg /dev/vda 2>/dev/null; echo none",
        "none\n",
    ),
];

const PROCESSES: &[Case] = &[
    (
        // Where the supervisor puts the true path in place of the link, it is the program's own name as well; elsewhere,
        // as on any machine, busybox looks for an applet `exe`.
        "bb readlink /proc/self/exe; /proc/self/exe echo by-link 2>&1 | sed 's/^exe: applet not found$/by-link/'",
        "/bin/busybox\nby-link\n",
    ),
    (
        "bb cat /proc/self/comm; cd /proc/self && bb cat comm",
        "busybox\nbusybox\n",
    ),
    (
        "test \"$(bb readlink /proc/self)\" -gt 0 && echo number; test -L /proc/self && echo link",
        "number\nlink\n",
    ),
    (
        "grep -c '^Uid:.0.0.0.0$' /proc/self/status; grep -c '^TracerPid:.0$' /proc/self/status",
        "1\n1\n",
    ),
    (
        "echo \"$$\" >/tmp/pid; cut -d' ' -f1 /proc/$$/stat | bb cmp - /tmp/pid && echo same",
        "same\n",
    ),
    (
        "set -- $(cut -d' ' -f4 /proc/self/stat); test $1 = $$ && echo parent",
        "parent\n",
    ),
    (
        "test -d /proc/$$ && ls /proc | grep -cx $$; test -e /proc/4194000 || echo none",
        "1\nnone\n",
    ),
    (
        "ls /proc/self/fd | bb sort -n | head -3 | tr '\\n' ' '; cd /proc/self/fd; ls 0",
        "0 1 2 0\n",
    ),
    (
        "bb readlink /proc/self/root; cd /tmp; bb readlink /proc/self/cwd",
        "/\n/tmp\n",
    ),
    (
        "echo in >/tmp/in; cat /proc/self/root/tmp/in; cd /tmp; cat /proc/self/cwd/in",
        "in\nin\n",
    ),
    (
        "grep -c . /proc/cpuinfo >/dev/null && cut -d. -f1 /proc/uptime | wc -l",
        "1\n",
    ),
    (
        "head -1 /proc/mounts | cut -d' ' -f2-3; cut -d' ' -f5 /proc/self/mountinfo | head -2",
        "/ ext4\n/\n/proc\n",
    ),
    ("cat /proc/self/uid_map | tr -s ' '", " 0 0 4294967295\n"),
    (
        "(echo 1 >/proc/sys/kernel/domainname) 2>/dev/null || echo refused",
        "refused\n",
    ),
    (
        "(echo c >/proc/sysrq-trigger) 2>/dev/null || echo refused; cat /proc/kcore 2>/dev/null; echo none",
        "refused\nnone\n",
    ),
    (
        "grep -l busybox /proc/self/maps; grep -c sandbox /proc/self/maps",
        "/proc/self/maps\n0\n",
    ),
    (
        "cat /proc/1/root/etc/shadow /proc/1/cwd/etc/shadow 2>/dev/null; echo kept in",
        "kept in\n",
    ),
    (
        // Number 1 of a namespace is the builder's process that holds the step; without a namespace it is a stranger's.
        "exec 2>/dev/null; if cd /proc/1; then cat environ maps auxv; cat exe | head -c4; (exec 3<>mem && echo memory); cat fd/* ns/*; cat task/1/environ; (echo x >comm && echo written); fi; echo closed",
        "closed\n",
    ),
    (
        "test ! -e /proc/1 || cat /proc/1/comm /proc/1/stat /proc/1/mounts >/dev/null && echo fine",
        "fine\n",
    ),
    (
        "for i in 1 2 3; do ls -l /proc/self/fd >/dev/null || echo bad; done; bb find /proc -maxdepth 2 >/dev/null; echo $?",
        "0\n",
    ),
];

const PATHS: &[Case] = &[
    (
        "stat -f -c %t /proc /sys; cd /proc; stat -f -c %t .; test \"$(stat -f -c %t /)\" != 9fa0 && echo root",
        "9fa0\n62656572\n9fa0\nroot\n",
    ),
    (
        "ln -s /dev/null /tmp/l && echo x >/tmp/l && stat -Lc %F /tmp/l",
        "character special file\n",
    ),
    (
        "ln -s /proc/self/comm /tmp/c && bb cat /tmp/c; ln -s ../proc/self /tmp/s && bb cat /tmp/s/comm",
        "busybox\nbusybox\n",
    ),
    (
        "ln -s /dev/stdout /tmp/log && echo line >/tmp/log",
        "line\n",
    ),
    (
        "ln -s /tmp/d2 /tmp/d1; mkdir /tmp/d2; ln -s ../../dev /tmp/d2/dev; head -c1 /tmp/d1/dev/zero | wc -c",
        "1\n",
    ),
    (
        "cd /tmp; bb cat ../proc/self/comm ../../proc/./self//comm; cd /; bb cat proc/self/comm",
        "busybox\nbusybox\nbusybox\n",
    ),
    (
        "bb cat /proc/../proc/self/comm; cat /dev/../dev/fd/../fd/0 </dev/null; cat /sys/../etc/group | head -1",
        "busybox\nroot:x:0:\n",
    ),
    (
        "bb cat /dev/null/ 2>/dev/null || echo not a directory; bb cat /proc/self/comm/x 2>/dev/null || echo nor this",
        "not a directory\nnor this\n",
    ),
    (
        "ln -s loop /tmp/loop; cat /tmp/loop 2>/dev/null || echo loop",
        "loop\n",
    ),
    (
        "cat /sys/devices/system/cpu/online | wc -l; (echo 1 >/sys/kernel/mm/ksm/run) 2>/dev/null || echo refused",
        "1\nrefused\n",
    ),
    (
        "ls /sys | grep -cE '^(class|devices|kernel)$'; ls -A /sys/kernel/debug /sys/firmware 2>/dev/null | grep '[^:]$'; test -d /sys/class/net && echo net",
        "3\nnet\n",
    ),
    ("ls /sys | grep -E '^(firmware|power)$'", ""),
];

const ETC: &[Case] = &[
    (
        "grep -c localhost /etc/hosts; cat /etc/hostname",
        "2\nbuildkitsandbox\n",
    ),
    (
        "echo own >>/etc/hosts; sed -i s/own/other/ /etc/hosts; bb tail -1 /etc/hosts",
        "other\n",
    ),
    (
        "bb tail -1 /etc/hosts | grep -c other; rm /etc/hosts /etc/resolv.conf; ln -s /nowhere /etc/resolv.conf; echo $?",
        "0\n0\n",
    ),
    (
        "test -f /etc/resolv.conf && test ! -L /etc/resolv.conf && echo back",
        "back\n",
    ),
];

const OWNERS: &[Case] = &[
    (
        "touch /tmp/f; chown 33:44 /tmp/f; stat -c %u:%g /tmp/f; mv /tmp/f /tmp/g; ln /tmp/g /tmp/h; stat -c %u:%g /tmp/h",
        "33:44\n33:44\n",
    ),
    (
        "stat -c %u:%g /tmp/h; chown 0:0 /tmp/h; stat -c %u:%g /tmp/g",
        "33:44\n0:0\n",
    ),
    (
        "ln -s g /tmp/link; chown -h 7 /tmp/link; stat -c %u /tmp/link; stat -Lc %u /tmp/link; chown 9 /tmp/link; stat -c %u /tmp/g",
        "7\n0\n9\n",
    ),
    (
        "cp /bin/busybox /tmp/suid; chmod 6755 /tmp/suid; chown 5 /tmp/suid; stat -c %a /tmp/suid",
        "755\n",
    ),
    (
        "mkdir /tmp/sg; chown 0:33 /tmp/sg; chmod 2775 /tmp/sg; touch /tmp/sg/f; mkdir /tmp/sg/d; ln -s x /tmp/sg/l; stat -c %g:%a /tmp/sg/f /tmp/sg/d; stat -c %g /tmp/sg/l",
        "33:644\n33:2755\n33\n",
    ),
    (
        "bb su app -c 'touch /tmp/mine 2>/dev/null; id -u; id -g; id -G'",
        "1000\n1001\n1001\n",
    ),
    (
        "chmod 777 /tmp; bb su app -c 'cd /tmp; touch a; mkdir b; ln -s x c; echo x >b/d; umask 077; touch e'; cd /tmp; stat -c %u:%g:%a a b b/d e; stat -c %u:%g c",
        "1000:1001:644\n1000:1001:755\n1000:1001:644\n1000:1001:600\n1000:1001\n",
    ),
    (
        "bb su app -c 'chown 0 /tmp/a 2>/dev/null || echo refused'; bb su app -c 'chgrp 1001 /tmp/a && echo allowed'",
        "refused\nallowed\n",
    ),
    (
        "bb su app -c 'grep ^Uid /proc/self/status' | tr '\\t' ' '",
        "Uid: 1000 1000 1000 1000\n",
    ),
    (
        "cd /tmp; touch t; bb tar cf t.tar t; chown 12:13 t; bb tar cf t.tar t; rm t; bb tar xf t.tar; stat -c %u:%g t",
        "12:13\n",
    ),
    (
        "cp /bin/busybox /tmp/sid; chown 1000:1001 /tmp/sid; chmod 6755 /tmp/sid; cd /tmp; ln -sf sid id; exec ./id -u",
        "1000\n",
    ),
    ("bb find / >/dev/null; echo $?", "0\n"),
];

/// Names that are given while the step runs: what they lead to is as it would be had they been there from the start.
const NAMES: &[Case] = &[
    (
        "cd /tmp; touch q; ln -s q before; ln -s before first; stat -Lc %u q first; chown 21 q; stat -Lc %u q before first /tmp/first",
        "0\n0\n21\n21\n21\n21\n",
    ),
    (
        "cd /tmp; mv q r; ln r s; ln -s /tmp/s after; stat -Lc %u r s after /tmp/after; mkdir t; mv s t/u; mv t v; stat -c %u /tmp/v/u; bb find . -user 21 | sort",
        "21\n21\n21\n21\n21\n./r\n./v/u\n",
    ),
    (
        "cd /tmp; touch h1; ln h1 h2; stat -c %u h2; chown 23 h1; stat -c %u h2 /tmp/h2; touch i1; (sleep 9; :) & chown 24 i1; ln i1 i2; stat -c %u /tmp/i2; kill $!",
        "0\n23\n23\n24\n",
    ),
    (
        "cd /tmp; ln -s k1/status k2; ln -s /proc/self k1; head -c 5 k2; mv k1 k3; head -c 5 /tmp/k3/status; ln k3 k4; head -c 5 k4/status",
        "Name:Name:Name:",
    ),
    (
        "mkdir /tmp/d; echo mine >/tmp/d/status; cat /tmp/d/status; rm -r /tmp/d; ln -s /proc/self /tmp/d; head -c 5 /tmp/d/status; test -L /tmp/d/exe && echo link",
        "mine\nName:link\n",
    ),
    (
        "mkdir -p /tmp/o/in; cd /tmp/o/in; ln -s .. up; ln -s / top; chown 31 /tmp/o; stat -Lc %u . .. up /tmp/o/. /tmp/o/in/up; chown 32 /; stat -Lc %u / top top/.; chown 0 /",
        "0\n31\n31\n31\n31\n32\n32\n32\n",
    ),
    (
        "mkdir /tmp/sg; chown 0:33 /tmp/sg; chmod 2775 /tmp/sg; echo x >/tmp/sg/f; mkdir /tmp/sg/d; ln -s sg /tmp/way; echo y >/tmp/way/g; cd /tmp/sg; echo z >./h; stat -c %g f d g h",
        "33\n33\n33\n33\n",
    ),
    (
        "chmod 777 /tmp; bb su app -c 'echo x >/tmp/theirs; mkdir /tmp/their; echo y >/tmp/their/z'; stat -c %u /tmp/theirs /tmp/their /tmp/their/z; echo w >/tmp/their/mine; stat -c %u /tmp/their/mine",
        "1000\n1000\n1000\n0\n",
    ),
];

/// What the kernel does elsewhere, and the supervisor where no path is left to the kernel.
const FILES: &[Case] = &[
    (
        "bb syslogd -O /tmp/messages; for i in $(seq 500); do bb logger -t step hello; grep -o -m1 'step: hello' /tmp/messages && break; done",
        "step: hello\n",
    ),
    (
        "umask 027; mkdir /tmp/m; touch /tmp/n; stat -c %a /tmp/m /tmp/n; umask; (umask 0); umask",
        "750\n640\n0027\n0027\n",
    ),
    (
        "umask 0; touch /tmp/w; mkdir /tmp/x; bb mkfifo /tmp/y; stat -c %a /tmp/w /tmp/x /tmp/y",
        "666\n777\n666\n",
    ),
    (
        "bb mkfifo /tmp/p; cat /tmp/p & echo through >/tmp/p; wait; (echo back >/tmp/p &); cat /tmp/p",
        "through\nback\n",
    ),
    (
        "mkdir /tmp/ro; chmod 555 /tmp/ro; echo x >/tmp/ro/f; chmod 0 /tmp/ro/f; cat /tmp/ro/f; chown 5 /tmp/ro/f; chmod 0 /tmp/ro; stat -c %u:%a /tmp/ro/f; ls /tmp/ro; rm -r /tmp/ro && echo gone",
        "x\n5:0\nf\ngone\n",
    ),
    (
        "mkdir /tmp/a; bb rmdir /tmp/a/. 2>/dev/null || echo dot; bb rmdir / 2>/dev/null || echo root; mkdir -p / && echo fine; mkdir /tmp/a 2>/dev/null || echo there; mkdir /tmp/a/../a/b/ && bb rmdir /tmp/a/b/ && echo slashes",
        "dot\nroot\nfine\nthere\nslashes\n",
    ),
    (
        "cd /tmp; mkdir -p u/v; cd u/v; mv /tmp/u /tmp/z; bb readlink -f .; ls ..; echo f >f; cat /tmp/z/v/f",
        "/tmp/z/v\nv\nf\n",
    ),
    (
        "(cd /tmp; (sleep 0.2; bb readlink -f .) & cd /etc; wait; bb readlink -f .); cd /; bb readlink -f .",
        "/tmp\n/etc\n/\n",
    ),
    (
        "mkdir /tmp/gone; cd /tmp/gone; rm -r /tmp/gone; ls . | wc -l; touch f 2>/dev/null || echo no directory",
        "0\nno directory\n",
    ),
    (
        "printf '#!/tmp/i2 x\n' >/tmp/i1; printf '#! /bin/echo y \n' >/tmp/i2; chmod 755 /tmp/i1 /tmp/i2; /tmp/i1 z; cd /tmp; ./i2",
        "y /tmp/i2 x /tmp/i1 z\ny ./i2\n",
    ),
    (
        "ln -s /etc/group /tmp/l; mv /tmp/l /tmp/l2; bb readlink /tmp/l2; ln /tmp/l2 /tmp/l3; bb readlink /tmp/l3; bb unlink /tmp/l2; head -1 /tmp/l3",
        "/etc/group\n/etc/group\nroot:x:0:\n",
    ),
    (
        "touch -d @981173106 /tmp/t; ln -s t /tmp/tl; touch -h -d @7 /tmp/tl; stat -c %Y /tmp/t /tmp/tl",
        "981173106\n7\n",
    ),
    (
        "bb truncate -s 5 /tmp/tr; stat -c %s /tmp/tr; (set -C; echo a >/tmp/tr) 2>/dev/null || echo exists; cat /tmp/none 2>/dev/null || echo none; echo x >/tmp 2>/dev/null || echo a directory",
        "5\nexists\nnone\na directory\n",
    ),
    (
        "(echo a; cat /tmp/t/x) 2>/dev/null; test -x /bin/sh && test ! -x /etc/group && test -w /etc && echo rights",
        "a\nrights\n",
    ),
    (
        "trap 'echo caught' USR1; kill -USR1 $$; sleep 100 & kill -STOP $!; kill -CONT $!; kill $!; wait $!; echo $?; bb timeout 0.1 sleep 9; echo $?",
        "caught\n143\n143\n",
    ),
    (
        "i=0; while [ $i -lt 20 ]; do i=$((i + 1)); sleep 100 & kill -STOP $!; kill -CONT $! || echo interrupted; kill $!; wait $! 2>/dev/null; done; echo done",
        "done\n",
    ),
    (
        "/etc/group 2>/dev/null; echo $?; /tmp 2>/dev/null; echo $?; /nonesuch 2>/dev/null; echo $?",
        "126\n126\n127\n",
    ),
];

#[test]
fn files_and_directories_are_as_everywhere() {
    each_mode(|tree| check(tree, FILES));
}

#[test]
fn devices_work() {
    each_mode(|tree| check(tree, DEVICES));
}

#[test]
fn processes_are_the_steps_own() {
    each_mode(|tree| check(tree, PROCESSES));
}

#[test]
fn paths_lead_into_grafts_by_every_way() {
    each_mode(|tree| check(tree, PATHS));
}

#[test]
fn files_of_etc_are_the_steps_own_and_go_with_it() {
    each_mode(|tree| {
        check(tree, ETC);
        for name in [
            "etc/hosts",
            "etc/resolv.conf",
            "etc/hostname",
            "proc",
            "sys",
            "dev",
        ] {
            assert!(!tree.path(name).exists(), "{name} stayed in the tree");
        }
    });
}

#[test]
fn names_that_are_given_later_lead_where_they_should() {
    each_mode(|tree| check(tree, NAMES));
}

#[test]
fn owners_and_ids_are_kept() {
    each_mode(|tree| check(tree, OWNERS));
}
