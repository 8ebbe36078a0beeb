//! Machines of all kinds, and the tiers that they get.

use super::*;
use stepwell_sys::namespace::IdRange;

fn refused(call: &str, errno: i32) -> Attempt {
    Attempt::Refused {
        call: call.to_owned(),
        subject: String::new(),
        errno,
    }
}

/// An ordinary user's build, in the user namespace that it entered at its start.
pub fn ordinary_user() -> Facts {
    let one = vec![IdRange {
        inside: 0,
        outside: 1000,
        count: 1,
    }];
    Facts {
        kernel: "6.18.0".to_owned(),
        uid: 0,
        gid: 0,
        users: one.clone(),
        groups: one,
        capabilities: vec!["CAP_CHOWN".to_owned(), "CAP_SYS_PTRACE".to_owned()],
        no_new_privs: false,
        seccomp_filtered: false,
        profile: None,
        apparmor_restricts_userns: None,
        unprivileged_userns_clone: None,
        max_user_namespaces: Some(1000),
        ptrace_scope: None,
        chrooted: Some(false),
        user_namespace: Attempt::Works,
        user_namespace_chroot: Attempt::Works,
        user_namespace_network: Attempt::Works,
        full_id_map: Attempt::Works,
        chroot: Attempt::Works,
        pid_namespace: Attempt::Works,
        network_namespace: Attempt::Works,
        listener: Attempt::Works,
        listener_with_privileges: Attempt::Works,
        landlock: Some(7),
        landlock_confines: Attempt::Works,
        openat2: Attempt::Works,
        pidfd: Attempt::Works,
        read_memory: Attempt::Works,
        ptrace: Attempt::Works,
        chown: refused("fchownat", libc::EINVAL),
        real_ids: false,
        real_owners: false,
        device_nodes: refused("mknodat", libc::EPERM),
        user_xattr: Attempt::Works,
        proc_masked: false,
        own_file_systems: None,
        own_root: None,
    }
}

/// Root of the machine.
pub fn root_with_user_namespaces() -> Facts {
    let all = vec![IdRange {
        inside: 0,
        outside: 0,
        count: u32::MAX,
    }];
    Facts {
        users: all.clone(),
        groups: all,
        chown: Attempt::Works,
        real_ids: true,
        device_nodes: Attempt::Works,
        ..ordinary_user()
    }
}

/// An ordinary user's build with subordinate ids.
pub fn user_with_subordinate_ids() -> Facts {
    let ids = vec![
        IdRange {
            inside: 0,
            outside: 1000,
            count: 1,
        },
        IdRange {
            inside: 1,
            outside: 100_000,
            count: 65_536,
        },
    ];
    Facts {
        users: ids.clone(),
        groups: ids,
        chown: Attempt::Works,
        real_ids: true,
        own_file_systems: Some(Attempt::Works),
        own_root: Some(Attempt::Works),
        ..ordinary_user()
    }
}

/// Root of a container with docker's default profile.
pub fn docker_default() -> Facts {
    let no = || refused("unshare", libc::EPERM);
    Facts {
        capabilities: vec!["CAP_CHOWN".to_owned(), "CAP_SYS_CHROOT".to_owned()],
        seccomp_filtered: true,
        real_ids: false,
        real_owners: true,
        user_namespace: no(),
        user_namespace_chroot: no(),
        user_namespace_network: no(),
        full_id_map: no(),
        pid_namespace: no(),
        network_namespace: no(),
        listener_with_privileges: refused("seccomp", libc::EACCES),
        proc_masked: true,
        ..root_with_user_namespaces()
    }
}

#[test]
fn the_best_tier_that_works_is_taken() {
    let choice = choose_tier(Isolation::Auto, &ordinary_user()).unwrap();
    assert_eq!(
        (choice.tier, choice.ids, choice.reasons.len()),
        (Tier::Userns, Ids::Emulated, 0)
    );
    let choice = choose_tier(Isolation::Auto, &root_with_user_namespaces()).unwrap();
    assert_eq!((choice.tier, choice.ids), (Tier::Userns, Ids::Real));
    let choice = choose_tier(Isolation::Chroot, &root_with_user_namespaces()).unwrap();
    assert_eq!((choice.tier, choice.ids), (Tier::Chroot, Ids::Real));
}

#[test]
fn a_container_without_user_namespaces_gets_chroot_and_is_told_why() {
    let choice = choose_tier(Isolation::Auto, &docker_default()).unwrap();
    assert_eq!(
        (choice.tier, choice.ids),
        (Tier::Chroot, Ids::RealOwners),
        "nobody can read processes of other users there"
    );
    assert_eq!(
        choice.reasons[0].to_string(),
        "tier `userns`: unshare: EPERM, probably by the seccomp profile of the container; \
         allow `unshare` and `clone` with CLONE_NEWUSER in it (docker: `--security-opt seccomp=FILE`; \
         Kubernetes: `seccompProfile` of type `Localhost`)"
    );
    let refusal = choose_tier(Isolation::Userns, &docker_default()).unwrap_err();
    assert_eq!(refusal.reasons.len(), 1);
}

#[test]
fn owners_are_as_real_as_the_rights_of_a_containers_root() {
    let ids = |change: fn(&mut Facts)| {
        let mut facts = docker_default();
        change(&mut facts);
        choose_tier(Isolation::Auto, &facts).unwrap().ids
    };
    assert_eq!(ids(|f| f.real_owners = false), Ids::Emulated);
    // A filter that lets namespaces be made: whoever makes one may look into it.
    let lets_them = |f: &mut Facts| {
        f.user_namespace = Attempt::Works;
        f.user_namespace_chroot = Attempt::Works;
        f.full_id_map = Attempt::Works;
    };
    assert_eq!(ids(lets_them), Ids::Real);
    assert_eq!(
        choose_tier(Isolation::Mediated, &docker_default())
            .unwrap()
            .ids,
        Ids::Emulated
    );
    let facts = Facts {
        chroot: refused("chroot", libc::EPERM),
        ..docker_default()
    };
    let refusal = choose_tier(Isolation::Auto, &facts).unwrap_err();
    assert!(
        refusal
            .to_string()
            .ends_with("ask for it: `--isolation mediated`")
    );
    // One of one id would not show the owners.
    let without_a_map = |f: &mut Facts| {
        f.user_namespace = Attempt::Works;
        f.user_namespace_chroot = Attempt::Works;
    };
    assert_eq!(ids(without_a_map), Ids::RealOwners);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let why = |change: fn(&mut Facts)| {
        let mut facts = Facts {
            user_namespace: refused("unshare", libc::EPERM),
            chroot: refused("chroot", libc::EPERM),
            ptrace: refused("ptrace", libc::EPERM),
            ..ordinary_user()
        };
        change(&mut facts);
        choose_tier(Isolation::Auto, &facts)
            .unwrap_err()
            .to_string()
    };
    assert!(
        why(|f| f.apparmor_restricts_userns = Some(true))
            .contains("apparmor_restrict_unprivileged_userns")
    );
    assert!(
        why(|f| f.unprivileged_userns_clone = Some(false))
            .contains("kernel.unprivileged_userns_clone")
    );
    assert!(
        why(|f| {
            f.max_user_namespaces = Some(0);
            f.user_namespace = refused("unshare", libc::ENOSPC);
        })
        .contains("user.max_user_namespaces")
    );
    assert!(why(|f| f.chrooted = Some(true)).contains("in a chroot"));
    assert!(why(|f| f.ptrace_scope = Some(3)).contains("kernel.yama.ptrace_scope"));
    assert!(
        why(|f| f.profile = Some("docker-default (enforce)".to_owned()))
            .contains("the security profile of this process")
    );
    assert!(
        why(|_| ())
            .contains("tier `chroot`: chroot: EPERM, probably by the lack of CAP_SYS_CHROOT")
    );
    assert!(why(|_| ()).contains("tier `mediated`: ptrace: EPERM"));
    assert!(
        why(|f| {
            f.ptrace = Attempt::Works;
            f.landlock_confines = refused("landlock_create_ruleset", libc::ENOSYS);
        })
        .contains("tier `mediated`: landlock_create_ruleset: ENOSYS")
    );
}

/// An ordinary user in a container of Kubernetes' profile `restricted`.
pub fn restricted() -> Facts {
    Facts {
        uid: 10_001,
        gid: 10_001,
        capabilities: Vec::new(),
        no_new_privs: true,
        real_ids: false,
        real_owners: false,
        chroot: refused("chroot", libc::EPERM),
        chown: refused("fchownat", libc::EPERM),
        device_nodes: refused("mknodat", libc::EPERM),
        ..docker_default()
    }
}

#[test]
fn where_nothing_is_allowed_paths_are_mediated() {
    let choice = choose_tier(Isolation::Auto, &restricted()).unwrap();
    assert_eq!(
        (choice.tier, choice.ids, choice.reasons.len()),
        (Tier::Mediated, Ids::Emulated, 2)
    );
    let refusal = choose_tier(Isolation::Mediated, &root_with_user_namespaces()).unwrap_err();
    assert!(refusal.to_string().contains("change owners"));
}

#[test]
fn real_ids_need_a_namespace_that_has_them() {
    let facts = Facts {
        full_id_map: refused("write", libc::EPERM),
        ..root_with_user_namespaces()
    };
    let choice = choose_tier(Isolation::Auto, &facts).unwrap();
    assert_eq!((choice.tier, choice.ids), (Tier::Chroot, Ids::Real));
}

#[test]
fn what_is_weaker_than_required_is_refused_with_the_reasons() {
    let choice = |facts: &Facts| choose_tier(Isolation::Auto, facts).unwrap();
    let in_container = choice(&docker_default());
    for enough in [Isolation::Auto, Isolation::Chroot, Isolation::Mediated] {
        assert_eq!(
            at_least(enough, in_container.clone()).unwrap(),
            in_container
        );
    }
    let refusal = at_least(Isolation::Userns, in_container).unwrap_err();
    assert!(
        refusal.to_string().starts_with(
            "isolation tier `userns` is required, and `chroot` is the best to be had here; \
             tier `userns`: unshare: EPERM, probably by the seccomp profile"
        ),
        "{refusal}"
    );
    let refusal = at_least(Isolation::Chroot, choice(&restricted())).unwrap_err();
    let tiers: Vec<_> = refusal.reasons.iter().map(|r| r.tier).collect();
    assert_eq!(tiers, [Tier::Userns, Tier::Chroot]);
    let userns = choice(&ordinary_user());
    assert!(at_least(Isolation::Chroot, userns).is_ok());
}

#[test]
fn every_rung_is_explained() {
    let explained = |facts: &Facts| {
        let texts: Vec<_> = rungs(facts).iter().map(Rung::to_string).collect();
        texts.join("\n")
    };
    insta::assert_snapshot!("rungs_ordinary_user", explained(&ordinary_user()));
    insta::assert_snapshot!("rungs_docker_default", explained(&docker_default()));
    insta::assert_snapshot!("rungs_restricted", explained(&restricted()));
    let ubuntu = Facts {
        apparmor_restricts_userns: Some(true),
        profile: Some("unprivileged_userns (enforce)".to_owned()),
        user_namespace: refused("the attempt", libc::EACCES),
        capabilities: Vec::new(),
        chroot: refused("chroot", libc::EPERM),
        ..ordinary_user()
    };
    insta::assert_snapshot!("rungs_ubuntu", explained(&ubuntu));
    let hardened = Facts {
        max_user_namespaces: Some(0),
        user_namespace: refused("unshare", libc::ENOSPC),
        ptrace_scope: Some(3),
        ptrace: refused("ptrace", libc::EPERM),
        landlock: None,
        landlock_confines: refused("landlock_create_ruleset", libc::EOPNOTSUPP),
        ..ubuntu
    };
    insta::assert_snapshot!("rungs_hardened", explained(&hardened));
}

#[test]
fn without_a_listener_there_is_no_tier() {
    let facts = Facts {
        listener: refused("seccomp", libc::EBUSY),
        ..ordinary_user()
    };
    let refusal = choose_tier(Isolation::Auto, &facts).unwrap_err();
    assert_eq!(refusal.reasons.len(), 3);
    assert!(refusal.to_string().contains("another seccomp listener"));
}
