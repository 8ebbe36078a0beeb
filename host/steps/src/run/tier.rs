//! Which tier a build gets on this machine, and why not a better one.
//!
//! Pure: a decision over [`Facts`].  `stepwell doctor` prints it, `--isolation` demands one.  A new tier is a
//! variant of [`Tier`], a row in [`TIERS`] and its steps in [`super::plan`].

use std::fmt;

use serde::{Deserialize, Serialize};
use stepwell_model::request::Isolation;
use stepwell_sys::probe::{Attempt, Facts};

use super::causes::{Cause, Facility, causes};
use super::types::{Ids, Tier, World};

/// The tier and the ids that steps get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierChoice {
    /// The tier.
    pub tier: Tier,
    /// Who holds owners and ids.
    pub ids: Ids,
    /// Who makes `/proc`, `/dev` and `/sys`.
    pub world: World,
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
    /// The best that is to be had, where it is weaker than what is required.
    pub offered: Option<Tier>,
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
        match self.offered {
            None => f.write_str("RUN steps cannot be isolated here")?,
            Some(tier) => {
                let wanted = format!("{:?}", self.wanted).to_lowercase();
                write!(
                    f,
                    "isolation tier `{wanted}` is required, and `{tier}` is the best to be had here"
                )?;
            }
        }
        self.reasons
            .iter()
            .try_for_each(|reason| write!(f, "; {reason}"))
    }
}

impl std::error::Error for Refusal {}

/// What a tier needs, in the order in which it is asked for.
type Needs = fn(&Facts) -> Vec<Facility>;

/// One row per tier, best first: what it is, and what it needs.
const TIERS: &[(Tier, &str, Needs)] = &[
    (Tier::Userns, "a user namespace, and chroot(2) in it", |f| {
        let mut needs = vec![Facility::UserNamespace];
        // Without the one there is nothing to be known of the others.
        if f.user_namespace.works() {
            needs.push(Facility::UserNamespaceChroot);
            needs.extend(f.real_ids.then_some(Facility::FullIdMap));
        }
        needs.extend(SUPERVISOR);
        needs
    }),
    (Tier::Chroot, "chroot(2) by a container's root", |_| {
        [&[Facility::Chroot], SUPERVISOR].concat()
    }),
    (
        Tier::Mediated,
        "nothing of the kernel's but being traced: the builder resolves every path",
        |_| [&[Facility::Ptrace, Facility::Landlock], SUPERVISOR].concat(),
    ),
];

/// What all tiers need for their grafts.
const SUPERVISOR: &[Facility] = &[
    Facility::Listener,
    Facility::Openat2,
    Facility::Pidfd,
    Facility::ReadMemory,
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
    for (tier, _, needs) in TIERS {
        if !allows(wanted, *tier) {
            continue;
        }
        match blocked(*tier, *needs, facts) {
            None => {
                return Ok(TierChoice {
                    tier: *tier,
                    ids,
                    world: world(*tier, ids, facts),
                    reasons,
                });
            }
            Some(reason) => reasons.push(reason),
        }
    }
    Err(Refusal {
        wanted,
        offered: None,
        reasons,
    })
}

/// Says who makes `/proc`, `/dev` and `/sys`.
///
/// Where ids are emulated the supervisor has to be asked about most calls all the same, and the kernel's `/proc` would tell the
/// kernel's ids.
fn world(tier: Tier, ids: Ids, facts: &Facts) -> World {
    let works = facts.own_file_systems.as_ref().is_some_and(Attempt::works);
    if works && tier == Tier::Userns && ids == Ids::Real {
        World::Kernel
    } else {
        World::Supervisor
    }
}

/// Refuses a choice that is weaker than what is required, with the reasons for it.
pub fn at_least(required: Isolation, choice: TierChoice) -> Result<TierChoice, Refusal> {
    let rank = |allowed: &dyn Fn(Tier) -> bool| TIERS.iter().position(|(tier, ..)| allowed(*tier));
    let weakest = match required {
        Isolation::Auto => return Ok(choice),
        _ => rank(&|tier| allows(required, tier)),
    };
    if rank(&|tier| tier == choice.tier) <= weakest {
        return Ok(choice);
    }
    let wanted = |reason: &Reason| rank(&|tier| tier == reason.tier) <= weakest;
    Err(Refusal {
        wanted: required,
        offered: Some(choice.tier),
        reasons: choice.reasons.into_iter().filter(wanted).collect(),
    })
}

const fn allows(wanted: Isolation, tier: Tier) -> bool {
    match wanted {
        Isolation::Auto => true,
        Isolation::Userns => matches!(tier, Tier::Userns),
        Isolation::Chroot => matches!(tier, Tier::Chroot),
        Isolation::Mediated => matches!(tier, Tier::Mediated),
    }
}

/// Says what is in the way of a tier, if anything is.
fn blocked(tier: Tier, needs: Needs, facts: &Facts) -> Option<Reason> {
    if let Some(what) = unsuitable(tier, facts) {
        return Some(Reason {
            tier,
            what: what.to_owned(),
            errno: None,
            policy: String::new(),
            mend: "take another tier, or run as an ordinary user".to_owned(),
        });
    }
    let missing = |need: &Facility| !need.attempt(facts).works();
    let need = needs(facts).into_iter().find(missing)?;
    let attempt = need.attempt(facts);
    let (policy, mend) = causes(need, facts)
        .first()
        .map_or(("", ""), |cause| (cause.policy, cause.change));
    Some(Reason {
        tier,
        what: attempt.text(),
        errno: attempt.errno(),
        policy: policy.to_owned(),
        mend: mend.to_owned(),
    })
}

/// Says why a tier is not for this process, whatever the kernel permits.
fn unsuitable(tier: Tier, facts: &Facts) -> Option<&'static str> {
    (tier == Tier::Mediated && facts.real_ids)
        .then_some("this process can change owners and ids, which steps of this tier cannot")
}

/// A tier, and all that was tried for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rung {
    /// The tier.
    pub tier: Tier,
    /// What it is made of.
    pub what: &'static str,
    /// Whether a step can have it here.
    pub works: bool,
    /// Why it is not for this process, whatever the kernel permits.
    pub unsuitable: Option<&'static str>,
    /// What was tried.
    pub tried: Vec<Tried>,
}

/// Something that was tried for a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// What it is for people.
    pub what: &'static str,
    /// What came of it: `works`, or the call and the name of the error.
    pub result: String,
    /// Whether it works.
    pub works: bool,
    /// Who may have refused it, the likeliest first.
    pub causes: Vec<Cause>,
}

/// Explains every tier, the best first.
pub fn rungs(facts: &Facts) -> Vec<Rung> {
    let tried = |need: Facility| Tried {
        what: need.name(),
        result: need.attempt(facts).text(),
        works: need.attempt(facts).works(),
        causes: causes(need, facts),
    };
    let rung = |(tier, what, needs): &(Tier, &'static str, Needs)| Rung {
        tier: *tier,
        what,
        works: blocked(*tier, *needs, facts).is_none(),
        unsuitable: unsuitable(*tier, facts),
        tried: needs(facts).into_iter().map(tried).collect(),
    };
    TIERS.iter().map(rung).collect()
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |works| if works { "✔" } else { "✘" };
        write!(
            f,
            "{} tier `{}`: {}",
            mark(self.works),
            self.tier,
            self.what
        )?;
        if let Some(why) = self.unsuitable {
            write!(f, "\n    not for this process: {why}")?;
        }
        for tried in self.tried.iter().filter(|tried| !tried.works) {
            write!(f, "\n    ✘ {}: {}", tried.what, tried.result)?;
            for (n, cause) in tried.causes.iter().enumerate() {
                write!(f, "\n        {}", how(n, cause))?;
            }
        }
        let works: Vec<_> = self
            .tried
            .iter()
            .filter(|tried| tried.works)
            .map(|tried| tried.what)
            .collect();
        match works.is_empty() {
            true => Ok(()),
            false => write!(f, "\n    ✔ {}", works.join(", ")),
        }
    }
}

/// The `n`th cause, as a line and what to change beneath it.
fn how(n: usize, cause: &Cause) -> String {
    let how = match (&cause.evidence, n) {
        (Some(_), 0) => "probably by",
        (Some(_), _) => "also in force:",
        (None, 0) => "commonly by",
        (None, _) => "or by",
    };
    let evidence = cause
        .evidence
        .as_ref()
        .map_or(String::new(), |evidence| format!(" ({evidence})"));
    format!(
        "{how} {}{evidence}\n            change: {}",
        cause.policy, cause.change
    )
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
            device_nodes: refused("mknodat", libc::EPERM),
            user_xattr: Attempt::Works,
            proc_masked: false,
            own_file_systems: None,
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
             allow `unshare` and `clone` with CLONE_NEWUSER in it (docker: `--security-opt seccomp=FILE`; \
             Kubernetes: `seccompProfile` of type `Localhost`)"
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
}
