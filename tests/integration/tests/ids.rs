//! Owners of files, held by the kernel with subordinate ids and by Stepwell without: the same image.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use stepwell_integration_tests::way::{Way, each_tier};
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

/// chmod(2) by path and by descriptor, and what a user makes.
const OWNED: &str = r#"
FROM @DEBIAN@
RUN touch /f && chown 5:6 /f && chmod 6755 /f && touch /g && chgrp 50 /g && perl -e 'open F, ">>/g"; chmod 02750, *F'
RUN su -s /bin/sh nobody -c 'umask 27; mkdir /tmp/d; cd /tmp/d; echo > n; ln -s n l; mkfifo p; touch t; chmod 2750 t; ! chown 0 n'
"#;
const GROUPS: &str = r#"
FROM @DEBIAN@
RUN --mount=type=secret,id=s,uid=5,mode=444 touch /h && chown 1000:50 /h && setpriv --reuid 1000 --regid 1000 --clear-groups chmod 2750 /h && \
    echo "$(stat -c %a /h) of $(perl -e 'open F, "</run/secrets/s"; print((stat F)[4])')"
RUN mkdir /s && chgrp 50 /s && chmod 2777 /s && mknod /node c 1 3 && cp /usr/bin/id /i && chown 7:8 /i && chmod 6755 /i && \
    setpriv --reuid 1000 --regid 1000 --clear-groups touch /s/x && echo "$(stat -c %u:%g /s/x) $(/i -u) $(/i -g)"
RUN stat -c 'a %F' /node
"#;

#[test]
fn files_of_a_containers_root_belong_to_their_owners_on_the_disk() {
    let emulated = Way {
        isolation: "mediated",
        ..Way::DOCKER
    };
    if let Some(why) = emulated.missing() {
        not_run(why);
        return;
    }
    let world = World::with_debian();
    world.dockerfile(OWNED);
    std::fs::write(world.path("secret"), "of user 5\n").expect("a file");
    let (metadata, iid) = (world.path("metadata.json"), world.path("iid-owned"));
    let secret = format!("id=s,src={}", world.path("secret").display());
    let told = [
        "--metadata-file",
        metadata.to_str().expect("a path"),
        "--iidfile",
        iid.to_str().expect("a path"),
        "--secret",
        &secret,
    ];
    let build = |way: Way| {
        let mut build = way.command(&world, &told);
        let built = ran(build.env("SOURCE_DATE_EPOCH", "1000000000"));
        assert_eq!(built.code, Some(0), "{way:?}: {}", built.err);
        let text = std::fs::read(&metadata).expect("the metadata");
        let told: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let owner = |path| {
            let stat = way.inside(&world, path)?.symlink_metadata().ok()?;
            Some((stat.uid(), stat.gid(), stat.mode() & 0o7777))
        };
        let paths = [
            "f", "g", "tmp/d", "tmp/d/n", "tmp/d/l", "tmp/d/p", "tmp/d/t",
        ];
        let digest = std::fs::read_to_string(&iid).expect("the digest");
        let isolation = told["stepwell.isolation"]["ids"].clone();
        (isolation, paths.map(owner), digest)
    };
    let nobodys = |mode| Some((65_534, 65_534, mode));
    let (ids, owners, digest) = build(Way::DOCKER);
    assert_eq!(ids, "real-owners");
    let of_nobody = [0o750, 0o640, 0o777, 0o640, 0o2750].map(nobodys);
    assert_eq!(owners[..2], [Some((5, 6, 0o6755)), Some((0, 50, 0o2750))]);
    assert_eq!(owners[2..], of_nobody);
    // That tier holds none, which the store has to know; its user may ask for it all the same.
    let (ids, owners, same) = build(emulated);
    assert_eq!((ids, same), ("emulated".into(), digest));
    let is_roots = |owner: &(u32, u32, u32)| (owner.0, owner.1) == (0, 0);
    assert!(owners.iter().flatten().all(is_roots), "{owners:?}");
    // A bit for a group that one is not in, the owner of what is in memory; programs, directories and devices of others.
    world.dockerfile(GROUPS);
    let built = Way::DOCKER.built(&world, &told);
    for seen in [
        " 750 of 5\n",
        " 1000:50 7 8\n",
        " a character special file\n",
    ] {
        assert!(
            built.err.contains(seen),
            "{seen} is missing in\n{}",
            built.err
        );
    }
}

/// Linux keeps everybody from others' links, pipes and files in `/tmp` (`fs.protected_*` in proc_sys_fs(5), which most distributions
/// switch on, and other machines leave off), root too.
#[test]
fn users_work_with_what_is_theirs_in_directories_that_all_share() {
    let world = World::with_debian();
    world.dockerfile("FROM @DEBIAN@\nUSER 1000\nRUN cd /tmp && ln -s /etc/passwd link && mkfifo pipe && echo one > file\n");
    let base = world.path("base");
    let output = format!("type=oci,tar=false,dest={}", base.display());
    Way::USERNS.built(&world, &["--output", &output]);
    let context = format!("base=oci-layout://{}", base.display());
    let work = "head -1 /tmp/link && (echo through > /tmp/pipe &) && cat /tmp/pipe && echo two >> /tmp/file && cd /tmp && ls -l link pipe file new | grep -c 1000";
    world.dockerfile(&format!("FROM base\nUSER 1000\nRUN ln -s /etc/group /tmp/new && head -1 /tmp/new && {work}\nRUN {work}\n"));
    let iid = world.path("iid");
    let args = [
        "--build-context",
        &context,
        "--iidfile",
        iid.to_str().expect("a path"),
    ];
    let digests = RefCell::new(BTreeSet::new());
    each_tier(|way| {
        let mut build = way.command(&world, &args);
        let built = ran(build.env("SOURCE_DATE_EPOCH", "1000000000"));
        assert_eq!(built.code, Some(0), "{way:?}: {}", built.err);
        assert_eq!(
            built.err.matches("through\n").count(),
            2,
            "{way:?}: {}",
            built.err
        );
        assert_eq!(
            built.err.matches(" 4\n").count(),
            2,
            "{way:?}: {}",
            built.err
        );
        digests
            .borrow_mut()
            .insert(std::fs::read_to_string(&iid).expect("the digest"));
        if way == Way::DOCKER {
            let owner = |path| {
                way.inside(&world, path)?
                    .symlink_metadata()
                    .ok()
                    .map(|stat| stat.uid())
            };
            let owners = ["tmp/link", "tmp/pipe", "tmp/new", "tmp/file"].map(owner);
            assert_eq!(owners, [Some(0), Some(0), Some(0), Some(1000)]);
        }
    });
    assert_eq!(digests.borrow().len(), 1, "{digests:?}");
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
