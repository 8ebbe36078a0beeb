//! Owners of files, held by the kernel with subordinate ids and by Stepwell without: the same image.

use std::process::Command;

use stepwell_integration_tests::{World, ran};
use stepwell_test_support::{not_run, program, user};

/// What needs ids: other owners, other users, setuid bits, a user that becomes another one.
const DOCKERFILE: &str = "\
FROM @DEBIAN@
RUN useradd -m -u 1000 app && mkdir /data && echo 1 > /data/a && chown -R app:app /data && chown 5:6 /data/a
RUN chmod 4755 /data/a && su -s /bin/sh app -c 'id -u > /data/who' && stat -c %u:%g:%a /data/a > /seen
COPY --chown=7:8 f /data/f
USER app
RUN echo mine > /data/mine && id > /data/id
";

/// Builds it, and returns the digest of the image.
fn digest(root: &World, store: &str, tier: &str, who: fn(Command) -> Command) -> String {
    root.file("f", "content\n").dockerfile(DOCKERFILE);
    let iid = root.path(&format!("iid-{store}"));
    let told = [
        "--isolation",
        tier,
        "--iidfile",
        iid.to_str().expect("a path"),
    ];
    let mut command = root.plain_command(store, &told);
    command.env("SOURCE_DATE_EPOCH", "1000000000");
    let built = ran(&mut who(command));
    assert_eq!(built.code, Some(0), "{}", built.err);
    std::fs::read_to_string(iid).expect("the digest")
}

#[test]
fn a_later_step_sees_the_owners_that_an_earlier_one_gave() {
    let root = World::with_debian();
    // One of them looks at every path, the other one only at those that may lead to such a file.
    let all = digest(&root, "mediated", "mediated", user::ordinary);
    assert_eq!(digest(&root, "userns", "userns", user::ordinary), all);
}

#[test]
fn subordinate_ids_and_emulated_ones_make_the_same_image() {
    if !user::has_subordinate_ids() {
        not_run("this user has no subordinate ids, or no helper that may map them");
        return;
    }
    let root = World::with_debian();
    // Trees of both kinds may lie in one store.
    let emulated = digest(&root, "store", "auto", user::ordinary);
    let mut doctor = Command::new(program::debug());
    doctor.arg("doctor").arg("--root").arg(root.path("store"));
    let seen = ran(&mut user::with_helpers(doctor));
    assert!(seen.out.contains("with real ids"), "{seen:?}");
    assert_eq!(
        digest(&root, "store-real", "auto", user::with_helpers),
        emulated
    );
    assert_eq!(digest(&root, "store", "auto", user::with_helpers), emulated);
    let mut prune = Command::new(program::debug());
    prune
        .args(["prune", "--all", "--root"])
        .arg(root.path("store-real"));
    let pruned = ran(&mut user::with_helpers(prune));
    assert_eq!(pruned.code, Some(0), "{}", pruned.err);
}
