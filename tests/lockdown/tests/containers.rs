//! The busybox build in every container of the table, and the Debian build in all of them (`cargo xtask lockdown`).

use stepwell_lockdown_tests::container::Container;
use stepwell_lockdown_tests::environment::{ENVIRONMENTS, Environment, Proc, environment};
use stepwell_lockdown_tests::site::{Site, Workload};

macro_rules! containers {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let site = Site::new(Workload::Busybox);
                let wanted = site.built_outside().digest();
                builds(environment(stringify!($name)), &site, &wanted);
            }
        )*

        #[test]
        fn every_row_of_the_table_has_its_test() {
            let rows: Vec<_> = ENVIRONMENTS.iter().map(|e| e.name).collect();
            assert_eq!([$(stringify!($name)),*].as_slice(), rows);
        }
    };
}

containers! {
    docker_default
    docker_user
    docker_root_without_capabilities
    kubernetes_baseline
    kubernetes_restricted
    openshift
    read_only_root
    masked_proc
    max_user_namespaces_0
    landlock
    seccomp_eacces
    containers_common
    chroot
}

/// No tier can do without: the program finds itself there, and supervisors the processes of steps.
#[test]
fn without_proc_a_build_says_that_it_is_missing() {
    let site = Site::new(Workload::Busybox);
    let environment = Environment {
        proc: Proc::Absent,
        ..*environment("chroot")
    };
    let built = Container::new(&environment, &site).build(&[]);
    assert_eq!(built.code, Some(71), "{}", built.told);
    assert!(
        built
            .told
            .contains("`/proc` is not mounted here, and RUN steps need it"),
        "{}",
        built.told
    );
}

/// Packages with users, setuid programs and scripts; minutes.
#[test]
#[ignore = "slow: `cargo xtask lockdown`"]
fn debian_in_all_containers() {
    let site = Site::new(Workload::Debian);
    let wanted = site.built_outside().digest();
    for environment in ENVIRONMENTS {
        println!("{}", environment.name);
        let volume = builds(environment, &site, &wanted);
        std::fs::remove_dir_all(volume).expect("the volume goes");
    }
}

/// Builds there, and compares exit status, tier, reasons and image; returns the volume.
#[track_caller]
fn builds(environment: &Environment, site: &Site, wanted: &str) -> std::path::PathBuf {
    let container = Container::new(environment, site);
    container.shows_its_denial();
    let built = container.build(&[]);
    let name = environment.name;
    assert_eq!(built.code, Some(0), "{name}:\n{}", built.told);
    assert_eq!(built.tier(), environment.tier, "{name}:\n{}", built.told);
    assert!(
        built.reasons().contains(environment.reason),
        "{name}: {}",
        built.reasons()
    );
    assert_eq!(built.digest(), wanted, "{name}:\n{}", built.told);
    assert!(container.volume().join("image.tar").is_file(), "{name}");
    container.volume().to_owned()
}
