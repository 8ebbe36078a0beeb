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
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier `{}`: {}", self.tier, self.what)?;
        if !self.policy.is_empty() {
            write!(f, ", probably by {}", self.policy)?;
        }
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RUN steps cannot be isolated here")?;
        self.reasons.iter().try_for_each(|reason| write!(f, "; {reason}"))
    }
}

impl std::error::Error for Refusal {}

/// One row per tier, best first: which `--isolation` allows it, and what is in its way.
const TIERS: &[(Tier, fn(&Facts) -> Option<Reason>)] = &[(Tier::Userns, userns_blocked), (Tier::Chroot, chroot_blocked)];

/// Chooses the best tier that works here and that `wanted` allows.
pub fn choose_tier(wanted: Isolation, facts: &Facts) -> Result<TierChoice, Refusal> {
    let mut reasons = Vec::new();
    for (tier, blocked) in TIERS {
        if !allows(wanted, *tier) {
            continue;
        }
        match blocked(facts) {
            None => return Ok(TierChoice { tier: *tier, ids: ids(*tier, facts), reasons }),
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
    }
}

/// Ids are real where files can be given away, where the step's own namespace, if it has one, has them all, and
/// where the supervisor can read the memory of processes that changed their user: the owner of their user namespace
/// can, elsewhere it takes CAP_SYS_PTRACE.
fn ids(tier: Tier, facts: &Facts) -> Ids {
    let mapped = match tier {
        Tier::Userns => facts.full_id_map.works(),
        Tier::Chroot => facts.capabilities.iter().any(|name| name == "CAP_SYS_PTRACE"),
    };
    // Images use numbers up to 65535 (nobody is 65534).
    let enough: u64 = facts.users.iter().map(|range| u64::from(range.count)).sum();
    if mapped && facts.uid == 0 && facts.chown.works() && enough >= 65_536 { Ids::Real } else { Ids::Emulated }
}

fn userns_blocked(facts: &Facts) -> Option<Reason> {
    let reason = |attempt: &Attempt, policy: &str, mend: &str| refused(Tier::Userns, attempt, policy, mend);
    if !facts.user_namespace.works() {
        let (policy, mend) = userns_policy(facts);
        return Some(reason(&facts.user_namespace, policy, mend));
    }
    if !facts.user_namespace_chroot.works() {
        let mend = "allow `chroot` in the seccomp profile of the container";
        return Some(reason(&facts.user_namespace_chroot, "a seccomp profile that allows chroot(2) only with CAP_SYS_CHROOT", mend));
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
        return ("the sysctl user.max_user_namespaces", "set it to some thousands");
    }
    if facts.seccomp_filtered {
        return ("the seccomp profile of the container", "allow `unshare` and `clone` with CLONE_NEWUSER in it");
    }
    ("a security policy of this machine", "run `stepwell doctor` for all that was tried")
}

fn chroot_blocked(facts: &Facts) -> Option<Reason> {
    if !facts.chroot.works() {
        let mend = "run as root in the container, with CAP_SYS_CHROOT as docker gives it";
        return Some(refused(Tier::Chroot, &facts.chroot, "the lack of CAP_SYS_CHROOT", mend));
    }
    supervisor_blocked(Tier::Chroot, facts)
}

/// What both tiers need for their grafts.
fn supervisor_blocked(tier: Tier, facts: &Facts) -> Option<Reason> {
    let busy = facts.listener.errno() == Some(libc::EBUSY);
    let needs: [(&Attempt, &str, &str); 4] = [
        (
            &facts.listener,
            if busy { "another seccomp listener on this container" } else { "a kernel before 5.14 or a seccomp profile" },
            if busy { "start the container without a seccomp agent" } else { "allow `seccomp` in the profile" },
        ),
        (&facts.openat2, "a kernel before 5.6 or a seccomp profile", "allow `openat2` in the profile"),
        (&facts.pidfd, "a kernel before 5.3 or a seccomp profile", "allow `pidfd_open` and `pidfd_send_signal`"),
        (&facts.read_memory, "a seccomp profile or kernel.yama.ptrace_scope", "allow `process_vm_readv` in the profile"),
    ];
    let missing = needs.iter().find(|(attempt, ..)| !attempt.works());
    missing.map(|(attempt, policy, mend)| refused(tier, attempt, policy, mend))
}

fn refused(tier: Tier, attempt: &Attempt, policy: &str, mend: &str) -> Reason {
    Reason { tier, what: attempt.text(), errno: attempt.errno(), policy: policy.to_owned(), mend: mend.to_owned() }
}
