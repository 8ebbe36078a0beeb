//! What is done to files at random comes to the same in every tier: what each call answers, and what is in the layer.

use std::path::Path;
use std::process::Command;

use stepwell_integration_tests::World;
use stepwell_integration_tests::denial::compile_all;
use stepwell_integration_tests::way::Way;
use stepwell_test_support::cmd::run;
use stepwell_test_support::not_run;

/// Things done in one step.
const COUNT: u32 = 600;

/// Some that found faults.
const SEEDS: &[u64] = &[1, 10, 50, 5140, 20320];

/// Each step goes on with the tree that the ones before it left.
const STEPS: u64 = 4;

/// Builds, and returns the digest of the image, with a layer for each step, and what the steps' calls answered.
fn built(world: &World, way: Way) -> (String, Vec<String>) {
    let file = |end: &str| world.path(&format!("{}.{end}", way.store()));
    let (tar, iid) = (file("tar"), file("iid"));
    let mut build = way.command(world, &[]);
    build
        .args(["--output", &format!("type=tar,dest={}", tar.display())])
        .args([
            "--output",
            &format!("type=oci,dest={}", file("oci").display()),
        ])
        .arg("--iidfile")
        .arg(&iid)
        .env("SOURCE_DATE_EPOCH", "1000000000");
    run(&mut build).unwrap_or_else(|why| panic!("{way:?}: {why}"));
    let said = (0..STEPS).map(|step| content(&tar, &format!("said/{step}")));
    (
        std::fs::read_to_string(&iid).expect("the digest"),
        said.collect(),
    )
}

fn content(tar: &Path, name: &str) -> String {
    let mut unpack = Command::new("tar");
    unpack.arg("-xOf").arg(tar).arg(name);
    let out = unpack.output().expect("tar");
    assert!(out.status.success(), "{name}: {out:?}");
    String::from_utf8(out.stdout).expect("text")
}

fn first_difference(one: &str, other: &str) -> String {
    let differs = one.lines().zip(other.lines()).position(|(a, b)| a != b);
    let at = differs.unwrap_or(one.lines().count().min(other.lines().count()));
    let around = |text: &str| {
        let lines = text.lines().skip(at.saturating_sub(3)).take(5);
        lines.collect::<Vec<_>>().join("\n  ")
    };
    format!(
        "line {}:\n  {}\nand\n  {}",
        at + 1,
        around(one),
        around(other)
    )
}

/// Other seeds than those above may come to what steps are known to differ in (host/docs/dockerfile.md): links and pipes of users in sticky
/// directories, and on machines with `fs.protected_regular` files there.
///
/// Not `Way::ROOT_CHROOT`: the machine's root may write to set-user-id files without taking the bit from them, and users of a user
/// namespace, or emulated ones, may not.
const WAYS: &[Way] = &[Way::IDS, Way::ROOT, Way::USERNS, Way::DOCKER, Way::MEDIATED];

fn come_to_the_same(seed: u64) {
    let world = World::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("helpers/churn.c");
    compile_all(
        &[source],
        &["-D_GNU_SOURCE", "-static"],
        &world.path("context/churn"),
    );
    let mut dockerfile = "FROM scratch\nCOPY churn /bin/churn\nWORKDIR /said\n".to_owned();
    for step in 0..STEPS {
        let seed = seed + step;
        dockerfile += &format!("RUN [\"/bin/churn\", \"{seed}\", \"{COUNT}\", \"/said/{step}\"]\n");
    }
    world.dockerfile(&dockerfile);
    let mut ways = WAYS.iter().filter(|way| way.missing().is_none());
    let first = ways.next().expect("an ordinary user");
    let (digest, said) = built(&world, *first);
    for way in ways {
        let other = built(&world, *way);
        for (step, (one, other)) in said.iter().zip(&other.1).enumerate() {
            assert!(
                one == other,
                "seed {seed}, step {step}, {first:?} and {way:?}: {}",
                first_difference(one, other)
            );
        }
        assert_eq!(other.0, digest, "seed {seed}, {first:?} and {way:?}");
    }
}

/// `STEPWELL_CHURN_SEED` asks for another one.
#[test]
fn files_become_the_same_in_every_tier() {
    for way in WAYS {
        if let Some(why) = way.missing() {
            not_run(why);
        }
    }
    match std::env::var("STEPWELL_CHURN_SEED") {
        Ok(seed) => come_to_the_same(seed.parse().expect("a number")),
        Err(_) => SEEDS.iter().copied().for_each(come_to_the_same),
    }
}
