//! Steps that want to be taken for others: that change files so that nobody sees it, or that leave something where another step,
//! another build or another tenant takes it.

use stepwell_escape_tests::helper;
use stepwell_integration_tests::World;
use stepwell_integration_tests::children::{signal, wait_until};
use stepwell_integration_tests::denial::compile_all;
use stepwell_integration_tests::way::{Way, each_tier};
use stepwell_test_support::cmd::run;

/// Files that a first step makes; a second one changes each with length, times and, as far as the file system gives it, number
/// kept, as soon as it can.
const UNSEEN: &str = r"
FROM @BUSYBOX@ AS made
RUN mkdir /over /new /renamed /linked && for d in over new renamed linked; do for i in $(seq 25); do echo before$i > /$d/$i; done; done
FROM made AS changed
COPY unseen /
RUN sh /unseen
FROM changed
RUN cat /over/* /new/* /renamed/* /linked/* | sort | uniq -c | sort -rn | head -1; echo $(cat /over/* /new/* /renamed/* /linked/* | grep -c ^after) changed
";

const CHANGES: &str = r#"
for i in $(seq 25); do
	touch -r /over/$i /t; printf after_ | dd of=/over/$i conv=notrunc 2>/dev/null; touch -r /t /over/$i
	touch -r /new/$i /t; rm /new/$i; echo after_$i > /new/$i; touch -r /t /new/$i
	touch -r /renamed/$i /t; echo after_$i > /t2; touch -r /t /t2; mv /t2 /renamed/$i
	touch -r /linked/$i /t; ln /linked/$i /t3; printf after_ > /t2; dd if=/t2 of=/t3 conv=notrunc 2>/dev/null; touch -r /t /linked/$i; rm /t3
done
rm -f /t /t2
"#;

/// The archive of the image is what others get, whatever the tree looks like.
#[test]
fn no_change_is_too_small_or_too_quick_to_be_seen() {
    each_tier(|way| {
        let world = World::new();
        world.file("unseen", CHANGES).dockerfile(UNSEEN);
        let out = world.path(&format!("{}.tar", way.store()));
        let output = format!("type=tar,dest={}", out.display());
        let built = way.built(&world, &["--output", &output]);
        assert!(
            built.printed().iter().any(|l| l == "100 changed"),
            "{way:?}:\n{}",
            built.err
        );
        // What another builder makes of the layers alone.
        let layers = way.layers(&world, &[]);
        for dir in ["over", "new", "renamed", "linked"] {
            let changed = layers
                .iter()
                .rfind(|layer| layer.iter().any(|e| e == "unseen" || e == "over/1"))
                .expect("the layer of the step");
            let count = changed
                .iter()
                .filter(|e| e.starts_with(&format!("{dir}/")) && !e.ends_with('/'))
                .count();
            assert_eq!(count, 25, "{way:?}: {dir}: {changed:?}");
        }
        let unpacked = world.path(&format!("{}.out", way.store()));
        std::fs::create_dir(&unpacked).expect("a directory");
        run(std::process::Command::new("tar")
            .arg("-xf")
            .arg(&out)
            .arg("-C")
            .arg(&unpacked))
        .expect("tar");
        for dir in ["over", "new", "renamed", "linked"] {
            for i in 1..=25 {
                let text = std::fs::read_to_string(unpacked.join(dir).join(i.to_string()))
                    .expect("a file");
                assert!(text.starts_with("after"), "{way:?}: {dir}/{i}: {text}");
            }
        }
    });
}

/// Looks for the store and for the caches of others by every name that leads to them on the machine, and leaves files there
/// that would be taken for results.
const LEFT: &str = r"
FROM @BUSYBOX@
RUN --mount=type=cache,target=/c,id=shared for d in '@STORE@' '/proc/1/root@STORE@' '/proc/self/root@STORE@' '/c/../../../../../../../..@STORE@' '/proc/self/cwd/../..@STORE@'; do \
      ls -d $d/v1/trees 2>/dev/null && echo ESCAPED: $d; mkdir -p $d/v1/blobs/sha256 $d/v1/records 2>/dev/null; echo mine 2>/dev/null > $d/v1/records/planted; done; \
    echo poison > /c/planted; mkdir -p /c/../c/root; ln -s / /c/link; ln -s @STORE@ /c/store; mkfifo /c/pipe; ls /c
";

const FOUND: &str = "FROM @BUSYBOX@\nRUN --mount=type=cache,target=/c,id=shared ls -A /c | wc -l; cat /c/store/v1/records/* 2>/dev/null; true\n";

#[test]
fn what_a_step_leaves_is_taken_by_nobody_else() {
    each_tier(|way| {
        let world = World::new();
        let store = world.path(&way.store());
        let left = LEFT.replace("@STORE@", &store.display().to_string());
        world.dockerfile(&left);
        // The store is there before the step looks for it.
        let mine = way.built(&world, &["--cache-namespace=mine"]);
        assert!(!mine.err.contains("ESCAPED: "), "{way:?}:\n{}", mine.err);
        assert!(!store.join("v1/records/planted").exists(), "{way:?}");
        let found = |args: &[&str]| {
            world.dockerfile(FOUND);
            way.built(&world, args).printed()
        };
        assert_eq!(
            found(&["--cache-namespace=mine"]).last().map(|l| &**l),
            Some("5"),
            "{way:?}"
        );
        assert_eq!(
            found(&["--cache-namespace=yours"]).last().map(|l| &**l),
            Some("0"),
            "{way:?}"
        );
        assert_eq!(found(&[]).last().map(|l| &**l), Some("0"), "{way:?}");
        // The same definition elsewhere is carried out there, and not taken from who came first.
        world.dockerfile(&left);
        for (namespace, carried_out) in [("mine", false), ("yours", true)] {
            let built = way.built(&world, &[&format!("--cache-namespace={namespace}")]);
            let runs = built.printed().iter().any(|l| l == "planted");
            assert_eq!(runs, carried_out, "{way:?} {namespace}:\n{}", built.err);
        }
    });
}

/// A base, and a step that stores through shared mappings, which no call tells of.
const STORING: &str = r"
FROM @BUSYBOX@ AS base
RUN mkdir /d && for i in $(seq 60); do head -c $((i * 4999)) /bin/busybox > /d/$i; done && cd /d && sha256sum * > /sums
FROM base
COPY mapped /mapped
RUN /mapped /d/*
";

/// A step whose root is made of the same layers meanwhile; its contents may come from the tree of the first (`cargo xtask
/// file-systems`).
const OTHER: &str = r"
FROM @BUSYBOX@ AS base
RUN mkdir /d && for i in $(seq 60); do head -c $((i * 4999)) /bin/busybox > /d/$i; done && cd /d && sha256sum * > /sums
FROM base
RUN cd /d && sha256sum -c /sums
";

#[test]
fn what_a_step_stores_by_mappings_is_in_no_other_tree() {
    each_tier(|way| {
        let world = World::new();
        let program = world.path("context/mapped");
        compile_all(
            &[helper("mapped.c")],
            &["-D_GNU_SOURCE", "-static"],
            &program,
        );
        world.dockerfile(STORING);
        let said = world.path("said");
        let mut storing = way.command(&world, &[]);
        storing.stderr(std::fs::File::create(&said).expect("a file"));
        let mut storing = storing.spawn().expect("a build");
        wait_until("that the step stores", || {
            std::fs::read_to_string(&said).is_ok_and(|text| text.contains("it stores"))
        });
        world.dockerfile(OTHER);
        let other = way.build(&world, &[]);
        signal(&storing, "TERM");
        storing.wait().expect("its end");
        let intact = other
            .printed()
            .iter()
            .filter(|l| l.ends_with(": OK"))
            .count();
        assert_eq!(intact, 60, "{way:?}:\n{}", other.err);
    });
}

/// Two steps that run at the same time, with the same cache: neither may hand the other a file of its own tree.
#[test]
fn steps_at_the_same_time_share_no_tree() {
    let way = Way::USERNS;
    let world = World::new();
    world.dockerfile(
        "FROM @BUSYBOX@ AS a\nRUN --mount=type=cache,target=/c,sharing=shared echo a > /own; ln /own /c/of-a 2>/dev/null; exit 0\n\
         FROM @BUSYBOX@ AS b\nRUN --mount=type=cache,target=/c,sharing=shared for i in $(seq 50); do [ -e /c/of-a ] && break; sleep 0.02; done; echo b > /c/of-a\n\
         FROM @BUSYBOX@\nCOPY --from=a /own /own\nCOPY --from=b /bin/busybox /b\nRUN cat /own\n",
    );
    let built = way.built(&world, &["--no-cache"]);
    assert_eq!(
        built.printed().last().map(|l| &**l),
        Some("a"),
        "{}",
        built.err
    );
}
