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
            needs.extend((f.real_ids || f.real_owners).then_some(Facility::FullIdMap));
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
    let mut reasons = Vec::new();
    for (tier, _, needs) in TIERS {
        if !allows(wanted, *tier) {
            continue;
        }
        // Owners on the disk are not what those of emulated ids are: the builder has to know beforehand.
        if *tier == Tier::Mediated
            && wanted == Isolation::Auto
            && facts.real_owners
            && !facts.real_ids
        {
            reasons.push(Reason {
                tier: *tier,
                what: "owners of files are real here, which they are not in this tier".to_owned(),
                errno: None,
                policy: String::new(),
                mend: "ask for it: `--isolation mediated`".to_owned(),
            });
            continue;
        }
        match blocked(*tier, *needs, facts) {
            None => {
                let ids = ids(*tier, facts);
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

/// Says who holds owners and ids.
///
/// Owners are a property of the machine rather than of the tier, because the store's trees are made for one or the other; the builder
/// opens it for emulated ones where `mediated` is asked for.
fn ids(tier: Tier, facts: &Facts) -> Ids {
    match (facts.real_ids, facts.real_owners, tier) {
        // Who makes a user namespace may look into everybody in it.
        (true, ..) | (_, true, Tier::Userns) => Ids::Real,
        (_, true, Tier::Chroot) => Ids::RealOwners,
        _ => Ids::Emulated,
    }
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
pub(super) mod tests;
