//! Which tier a build gets on this machine, and why not a better one.
//!
//! Pure: a decision over [`Facts`].  `stepwell doctor` prints it, `--isolation` demands one.  A new tier is a
//! variant of [`Tier`], a row in [`TIERS`] and its steps in [`super::plan`].

use std::fmt;

use serde::{Deserialize, Serialize};
use stepwell_model::request::Isolation;
use stepwell_sys::probe::{Attempt, Facts};

use super::types::{Ids, Tier};

/// The tier and the ids that steps get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierChoice {
    /// The tier.
    pub tier: Tier,
    /// Who holds owners and ids.
    pub ids: Ids,
    /// Why no better tier, best first; empty where it is the best.
    pub reasons: Vec<Reason>,
}

/// Why a tier is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The tier.
    pub tier: Tier,
    /// What was refused, with the name of the error.
    pub what: String,
    /// Number of the error, where the kernel gave one.
    pub errno: Option<i32>,
    /// What probably refuses it.
    pub policy: String,
    /// What to change.
    pub mend: String,
}

/// No tier that was asked for is to be had here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was asked for.
    pub wanted: Isolation,
    /// Why each tier is not to be had.
    pub reasons: Vec<Reason>,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Userns => "userns",
            Self::Chroot => "chroot",
            Self::Mediated => "mediated",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier `{}`: {}", self.tier, self.what)?;
        if !self.policy.is_empty() {
            write!(f, ", probably by {}", self.policy)?;
        }
        if self.mend.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.mend)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RUN steps cannot be isolated here")?;
        self.reasons
            .iter()
            .try_for_each(|reason| write!(f, "; {reason}"))
    }
}

impl std::error::Error for Refusal {}

/// Says what is in the way of a tier, if anything is.
type Obstacle = fn(&Facts) -> Option<Reason>;

/// One row per tier, best first.
const TIERS: &[(Tier, Obstacle)] = &[
    (Tier::Userns, userns_blocked),
    (Tier::Chroot, chroot_blocked),
    (Tier::Mediated, mediated_blocked),
];

/// Chooses the best tier that works here and that `wanted` allows.
pub fn choose_tier(wanted: Isolation, facts: &Facts) -> Result<TierChoice, Refusal> {
    // A property of the machine and not of the tier, because the store's trees are made for one or the other.
    let ids = if facts.real_ids {
        Ids::Real
    } else {
        Ids::Emulated
    };
    let mut reasons = Vec::new();
    for (tier, blocked) in TIERS {
        if !allows(wanted, *tier) {
            continue;
        }
        match blocked(facts) {
            None => {
                return Ok(TierChoice {
                    tier: *tier,
                    ids,
                    reasons,
                });
            }
            Some(reason) => reasons.push(reason),
        }
    }
    Err(Refusal { wanted, reasons })
}

const fn allows(wanted: Isolation, tier: Tier) -> bool {
    match wanted {
        Isolation::Auto => true,
        Isolation::Userns => matches!(tier, Tier::Userns),
        Isolation::Chroot => matches!(tier, Tier::Chroot),
        Isolation::Mediated => matches!(tier, Tier::Mediated),
    }
}

fn userns_blocked(facts: &Facts) -> Option<Reason> {
    let reason =
        |attempt: &Attempt, policy: &str, mend: &str| refused(Tier::Userns, attempt, policy, mend);
    if !facts.user_namespace.works() {
        let (policy, mend) = userns_policy(facts);
        return Some(reason(&facts.user_namespace, policy, mend));
    }
    if !facts.user_namespace_chroot.works() {
        if facts.apparmor_restricts_userns == Some(true) {
            let (policy, mend) = userns_policy(facts);
            return Some(reason(&facts.user_namespace_chroot, policy, mend));
        }
        let mend = "allow `chroot` in the seccomp profile of the container";
        return Some(reason(
            &facts.user_namespace_chroot,
            "a seccomp profile that allows chroot(2) only with CAP_SYS_CHROOT",
            mend,
        ));
    }
    if facts.real_ids && !facts.full_id_map.works() {
        let mend = "allow the builder to write the id maps of its children";
        return Some(reason(
            &facts.full_id_map,
            "a security policy of this machine",
            mend,
        ));
    }
    supervisor_blocked(Tier::Userns, facts)
}

fn userns_policy(facts: &Facts) -> (&'static str, &'static str) {
    if facts.apparmor_restricts_userns == Some(true) {
        return (
            "AppArmor (kernel.apparmor_restrict_unprivileged_userns)",
            "install an AppArmor profile for stepwell that has `userns,`, or set that sysctl to 0",
        );
    }
    if facts.unprivileged_userns_clone == Some(false) {
        return ("the sysctl kernel.unprivileged_userns_clone", "set it to 1");
    }
    if facts.max_user_namespaces == Some(0) {
        return (
            "the sysctl user.max_user_namespaces",
            "set it to some thousands",
        );
    }
    if facts.seccomp_filtered {
        return (
            "the seccomp profile of the container",
            "allow `unshare` and `clone` with CLONE_NEWUSER in it",
        );
    }
    (
        "a security policy of this machine",
        "run `stepwell doctor` for all that was tried",
    )
}

fn chroot_blocked(facts: &Facts) -> Option<Reason> {
    if !facts.chroot.works() {
        let mend = "run as root in the container, with CAP_SYS_CHROOT as docker gives it";
        return Some(refused(
            Tier::Chroot,
            &facts.chroot,
            "the lack of CAP_SYS_CHROOT",
            mend,
        ));
    }
    supervisor_blocked(Tier::Chroot, facts)
}

fn mediated_blocked(facts: &Facts) -> Option<Reason> {
    let reason = |attempt: &Attempt, policy: &str, mend: &str| {
        Some(refused(Tier::Mediated, attempt, policy, mend))
    };
    if facts.real_ids {
        return Some(Reason {
            tier: Tier::Mediated,
            what: "this process can change owners and ids, which steps of this tier cannot"
                .to_owned(),
            errno: None,
            policy: String::new(),
            mend: "take another tier, or run as an ordinary user".to_owned(),
        });
    }
    if !facts.ptrace.works() {
        let policy = "a seccomp profile or kernel.yama.ptrace_scope";
        let mend = "allow `ptrace` in the profile, as that of every current container runtime does";
        return reason(&facts.ptrace, policy, mend);
    }
    if !facts.landlock_confines.works() {
        let policy = "a kernel before 5.13, one without Landlock, or a seccomp profile";
        let mend = "add `landlock` to the kernel's `lsm=` and allow its three calls in the profile";
        return reason(&facts.landlock_confines, policy, mend);
    }
    supervisor_blocked(Tier::Mediated, facts)
}

/// What all tiers need for their grafts.
fn supervisor_blocked(tier: Tier, facts: &Facts) -> Option<Reason> {
    let busy = facts.listener.errno() == Some(libc::EBUSY);
    let needs: [(&Attempt, &str, &str); 4] = [
        (
            &facts.listener,
            if busy {
                "another seccomp listener on this container"
            } else {
                "a kernel before 5.14 or a seccomp profile"
            },
            if busy {
                "start the container without a seccomp agent"
            } else {
                "allow `seccomp` in the profile"
            },
        ),
        (
            &facts.openat2,
            "a kernel before 5.6 or a seccomp profile",
            "allow `openat2` in the profile",
        ),
        (
            &facts.pidfd,
            "a kernel before 5.3 or a seccomp profile",
            "allow `pidfd_open` and `pidfd_send_signal`",
        ),
        (
            &facts.read_memory,
            "a seccomp profile or kernel.yama.ptrace_scope",
            "allow `process_vm_readv` in the profile",
        ),
    ];
    let missing = needs.iter().find(|(attempt, ..)| !attempt.works());
    missing.map(|(attempt, policy, mend)| refused(tier, attempt, policy, mend))
}

fn refused(tier: Tier, attempt: &Attempt, policy: &str, mend: &str) -> Reason {
    Reason {
        tier,
        what: attempt.text(),
        errno: attempt.errno(),
        policy: policy.to_owned(),
        mend: mend.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
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
            device_nodes: refused("mknodat", libc::EPERM),
            user_xattr: Attempt::Works,
            proc_masked: false,
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

    /// Root of a container with docker's default profile.
    pub fn docker_default() -> Facts {
        let no = || refused("unshare", libc::EPERM);
        Facts {
            capabilities: vec!["CAP_CHOWN".to_owned(), "CAP_SYS_CHROOT".to_owned()],
            seccomp_filtered: true,
            real_ids: false,
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
            (Tier::Chroot, Ids::Emulated),
            "nobody can read processes of other users there"
        );
        assert_eq!(
            choice.reasons[0].to_string(),
            "tier `userns`: unshare: EPERM, probably by the seccomp profile of the container; \
             allow `unshare` and `clone` with CLONE_NEWUSER in it"
        );
        let refusal = choose_tier(Isolation::Userns, &docker_default()).unwrap_err();
        assert_eq!(refusal.reasons.len(), 1);
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
        assert!(why(|f| f.max_user_namespaces = Some(0)).contains("user.max_user_namespaces"));
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
    fn without_a_listener_there_is_no_tier() {
        let facts = Facts {
            listener: refused("seccomp", libc::EBUSY),
            ..ordinary_user()
        };
        let refusal = choose_tier(Isolation::Auto, &facts).unwrap_err();
        assert_eq!(refusal.reasons.len(), 3);
        assert!(refusal.to_string().contains("another seccomp listener"));
    }
}
