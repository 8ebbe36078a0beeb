//! Every attack of the table, by the real program, in the surroundings that each tier is for.

use std::process::Command;

use stepwell_escape_tests::outside::Outside;
use stepwell_escape_tests::table::ATTACKS;
use stepwell_escape_tests::{attacks, careless, narrow_attacks};
use stepwell_integration_tests::way::Way;
use stepwell_integration_tests::{World, ran, under};
use stepwell_test_support::{user, workspace};

/// What is in the builder's environment and nobody else's business; `attacks/files.c` knows how it begins.
const TOKEN: &str = "token-of-the-builder";

#[test]
fn an_ordinary_users_step_stays_in() {
    stays_in(Way::USERNS, "userns");
}

/// Its `/proc`, `/dev` and `/sys` are the kernel's own.
#[test]
fn an_ordinary_users_step_with_ids_stays_in() {
    stays_in(Way::IDS, "userns");
}

#[test]
fn a_step_stays_in_where_nothing_is_allowed() {
    stays_in(Way::RESTRICTED, "mediated");
}

#[test]
fn a_step_of_a_containers_root_stays_in() {
    stays_in(Way::DOCKER, "chroot");
}

#[test]
fn a_step_of_the_machines_root_stays_in() {
    stays_in(Way::ROOT, "userns");
}

/// No device control group and no namespace of users stand between this step and the machine's disks.
#[test]
fn a_step_of_the_machines_root_stays_in_without_a_user_namespace() {
    stays_in(Way::ROOT_CHROOT, "chroot");
}

/// Runs all attacks in one step, and looks at what they said and at what is outside.
fn stays_in(way: Way, tier: &str) {
    if let Some(why) = way.missing() {
        stepwell_test_support::not_run(why);
        return;
    }
    let world = World::new();
    attacks(&world, "context/attacks");
    let mut programs = vec!["attacks"];
    if cfg!(target_arch = "x86_64") {
        narrow_attacks(&world, "context/narrow-attacks");
        programs.push("narrow-attacks");
    }
    let mut outside = Outside::new(&world, way);
    let script: String = ATTACKS
        .iter()
        .flat_map(|a| {
            programs
                .iter()
                .map(move |p| format!("echo begin {0}; /{p} {0}; echo end {p} {0} $?\n", a.name))
        })
        .collect();
    world.file("all.sh", script).dockerfile(&format!(
        "FROM @BUSYBOX@\nCOPY attacks narrow-attack[s] all.sh /\nENV OUTSIDE={} TIER={tier} CHROOT={} STRANGERS=\"{}\"\nRUN sh /all.sh\n",
        world.path("outside").display(),
        // Nothing lies above the root of a mount namespace.
        if way.ids { "allowed" } else { "refused" },
        outside.strangers(),
    ));
    let place = world.path("place");
    std::fs::create_dir(&place).expect("a directory");
    let mut build = under(&careless(&world), &way.command(&world, &["--no-cache"]));
    build.env("STEPWELL_TEST_TOKEN", TOKEN).current_dir(&place);
    let built = ran(&mut build);
    let said = built.out.replace('\r', "");
    assert_eq!(built.code, Some(0), "{said}{}", built.err);
    assert!(!said.contains("ESCAPED"), "{said}");
    for (attack, program) in ATTACKS
        .iter()
        .flat_map(|a| programs.iter().map(move |p| (a, *p)))
    {
        let end = format!("end {program} {} 0\n", attack.name);
        assert!(
            said.contains(&end),
            "`{}` was not tried:\n{said}",
            attack.name
        );
    }
    assert!(said.contains(&format!("`{tier}`")), "another tier:\n{said}");
    outside.is_untouched(&world);
    let left = std::fs::read_dir(&place).expect("the builder's directory");
    assert_eq!(
        left.count(),
        0,
        "something was written where the builder is"
    );
}

/// Surroundings that are not there would let every attack fail.
#[test]
fn the_surroundings_are_there() {
    let world = World::new();
    let outside = Outside::new(&world, Way::USERNS);
    attacks(&world, "attacks");
    for (name, what) in [
        ("descriptors", "ESCAPED: an open descriptor 7"),
        ("environments", "ESCAPED: the builder's variable"),
        ("keys", "ESCAPED: a key of the session keyring: hush"),
        ("controls", "ESCAPED: EXT4_IOC_MOVE_EXT"),
        ("terminals", "ESCAPED: /dev/tty"),
        ("sockets", "ESCAPED: a socket by the name"),
        ("sockets", "ESCAPED: a socket by the path"),
        ("sockets", "ESCAPED: a message by the path"),
        ("sockets", "ESCAPED: a message by the path, from a pair"),
    ] {
        let mut attack = Command::new(world.path("attacks"));
        attack
            .arg(name)
            .env("OUTSIDE", world.path("outside"))
            .env("TIER", "none")
            .env("CHROOT", "refused")
            .env("STRANGERS", outside.strangers())
            .env("STEPWELL_TEST_TOKEN", TOKEN);
        let ran = ran(&mut under(&careless(&world), &user::ordinary(attack)));
        assert!(ran.out.contains(what), "{name}: {ran:?}");
    }
    for left in ["/tmp/to-socket", "/tmp/own", "/tmp/own-datagram"] {
        let _ = std::fs::remove_file(left);
    }
}

#[test]
fn every_attack_is_about_a_promise() {
    let text = std::fs::read_to_string(workspace().join("host/docs/security.md")).expect("it");
    for attack in ATTACKS {
        assert!(
            text.lines()
                .any(|l| l.starts_with("| ") && l.contains(attack.promise)),
            "`{}`: host/docs/security.md does not promise that a step {}",
            attack.name,
            attack.promise
        );
    }
}
