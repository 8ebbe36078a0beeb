//! What fits into `/dev/shm` and mounts of the kind tmpfs, asserted from inside real steps in every tier that this machine permits:
//! the kernel refuses what is more where it makes them, elsewhere the step is ended.

mod support;

use support::{Ran, TestTree, each_mode};

/// Exit status of the runner after a limit of sizes.
const FULL: i32 = 121;

/// A megabyte fits into each.
const SIZES: &[&str] = &["--shm-size", "1048576", "--tmpfs", "/small=1048576"];

fn run(tree: &TestTree, script: &str) -> Ran {
    tree.step(&["sh", "-c", script]).options(SIZES).run()
}

/// Has to fail with the kernel's error in the step, or with ours.
#[track_caller]
fn overflows(tree: &TestTree, mount: &str, script: &str) {
    let ran = run(tree, script);
    if tree.mode().has_kernel_world() {
        ran.code(1).stderr_has("No space left on device");
    } else {
        ran.code(FULL)
            .stderr_has(&format!("`{mount}` is full: 1048576 bytes fit in"));
    }
    assert!(!tree.path("small").exists() && !tree.path("dev").exists());
}

#[test]
fn who_puts_more_in_than_fits_is_ended() {
    each_mode(|tree| {
        for mount in ["/dev/shm", "/small"] {
            // Before anybody has looked, and while the step goes on; in one file and in many.
            let fill = format!(
                "head -c 900k /dev/zero >/tmp/x; cat /tmp/x >{mount}/a && cat /tmp/x >{mount}/b"
            );
            overflows(tree, mount, &format!("{fill} || exit 1"));
            overflows(tree, mount, &format!("{fill} || exit 1; sleep 100"));
        }
        overflows(
            tree,
            "/small",
            "cd /small; head -c 16k /dev/zero >/tmp/x; mkdir -p d/e; for i in $(busybox seq 80); do cat /tmp/x >d/e/$i || exit 1; done; sleep 100",
        );
    });
}

#[test]
fn files_that_were_removed_and_are_open_take_room() {
    each_mode(|tree| {
        overflows(
            tree,
            "/small",
            "head -c 1500k /dev/zero >/tmp/x; exec 3>/small/x; rm /small/x; cat /tmp/x >&3 || exit 1; sleep 100",
        );
    });
}

#[test]
fn what_fits_is_left_alone() {
    each_mode(|tree| {
        // More than fits, but one after the other; holes; what lies elsewhere.
        let script = "set -e; for at in /dev/shm /small; do cd $at
            for i in 1 2 3 4 5 6; do head -c 700k /dev/zero >x; rm x; done
            busybox dd if=/dev/zero of=sparse bs=1 count=1 seek=100M 2>/dev/null; [ $(stat -c %s sparse) = 104857601 ]
            done; head -c 3000k /dev/zero >/tmp/x; sleep 0.5; echo well";
        run(tree, script).code(0).stdout("well\n").stderr("");
    });
}

#[test]
fn what_is_mounted_in_one_is_not_in_it() {
    each_mode(|tree| {
        if tree.mode().has_kernel_world() {
            // What is lent is beneath the kernel's there.
            return;
        }
        let lent = tree.path("").parent().expect("parent").join("lent");
        std::fs::create_dir(&lent).expect("directory");
        std::fs::write(lent.join("file"), vec![1; 3 << 20]).expect("file");
        tree.mode().own(&lent);
        tree.mode().own(&lent.join("file"));
        let cache = format!("/small/cache={}", lent.display());
        tree.step(&[
            "sh",
            "-c",
            "wc -c < /small/cache/file; echo x > /small/x; sleep 0.5",
        ])
        .options(SIZES)
        .options(&["--cache", &cache])
        .run()
        .code(0)
        .stdout("3145728\n");
    });
}

/// Waits until another look has found so many blocks free.
const UNTIL: &str =
    "until_free() { until [ $(stat -f -c %f /small) = $1 ]; do sleep 0.05; done; }; ";

#[test]
fn what_is_free_is_told_and_looks_are_not_seen() {
    each_mode(|tree| {
        let script = [
            UNTIL,
            "stat -f -c '%b %f %S' /small; head -c 512k /dev/zero >/small/x; until_free 128
            touch -d 2001-02-03 /small; before=$(stat -c %x /small); head -c 256k /dev/zero >>/small/x; until_free 64; [ \"$before\" = \"$(stat -c %x /small)\" ] && echo as before",
        ]
        .concat();
        run(tree, &script)
            .code(0)
            .stdout("256 256 4096\nas before\n");
    });
}
