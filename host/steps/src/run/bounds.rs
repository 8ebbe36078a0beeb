//! Limits of a step as a whole: time, memory, processes.
//!
//! The kernel counts for a group of processes only in control groups, which those whom this is for are not given.  So the builder
//! looks: what a step takes more is told by name, in every tier, and it is ended.  Between two looks the kernel's limits of
//! single processes and users stand behind, where it has them: at twice the number, so that it is the look that tells.

use std::time::{Duration, Instant};

use stepwell_model::mount::Limit;
use stepwell_model::request::StepLimits;
use stepwell_sys::usage::Usage;

use super::types::Tier;

/// How often is looked.  A look costs about a millisecond for a hundred processes of the machine.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Processes that hold a step and are not the step's.
const HOLDERS: u64 = 2;

/// What a step may use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub deadline: Option<Instant>,
    pub memory: Option<u64>,
    pub processes: Option<u64>,
}

/// What a step has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    Memory,
    Processes,
}

impl Bounds {
    /// Says whether anything has to be looked at now and then.
    pub fn is_watched(&self) -> bool {
        self.memory.is_some() || self.processes.is_some()
    }

    /// Compares what a step and its holders use.
    pub fn excess(&self, usage: &Usage) -> Option<Excess> {
        if self
            .processes
            .is_some_and(|most| usage.tasks > most.saturating_add(HOLDERS))
        {
            return Some(Excess::Processes);
        }
        let too_much = self.memory.is_some_and(|most| usage.memory > most);
        too_much.then_some(Excess::Memory)
    }
}

/// Adds the kernel's limits that stand behind the looks to those that the operation has, which stay where they are lower.
pub(super) fn with_backstops(own: &[Limit], limits: &StepLimits, tier: Tier) -> Vec<Limit> {
    let mut all = own.to_vec();
    let mut add = |name: &str, most: u64| {
        let lower = |old: Option<u64>| Some(old.map_or(most, |old| old.min(most)));
        match all.iter_mut().find(|limit| limit.name == name) {
            Some(limit) => (limit.soft, limit.hard) = (lower(limit.soft), lower(limit.hard)),
            None => all.push(Limit {
                name: name.to_owned(),
                soft: Some(most),
                hard: Some(most),
            }),
        }
    };
    if let Some(memory) = limits.memory {
        add("data", memory.saturating_mul(2));
    }
    // Counted by user and user namespace: in another one's, those of others count too.
    if let (Some(processes), Tier::Userns) = (limits.processes, tier) {
        add("nproc", processes.saturating_mul(2).saturating_add(HOLDERS));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_told() {
        let usage = |tasks, memory| Usage { tasks, memory };
        let bounds = Bounds {
            deadline: None,
            memory: Some(1000),
            processes: Some(5),
        };
        assert_eq!(bounds.excess(&usage(7, 1000)), None);
        assert_eq!(bounds.excess(&usage(8, 0)), Some(Excess::Processes));
        assert_eq!(bounds.excess(&usage(1, 1001)), Some(Excess::Memory));
        assert_eq!(Bounds::default().excess(&usage(u64::MAX, u64::MAX)), None);
        assert!(bounds.is_watched() && !Bounds::default().is_watched());
    }

    #[test]
    fn the_kernels_limits_are_twice_as_high_and_never_raise_one() {
        let limits = StepLimits {
            memory: Some(100),
            processes: Some(10),
            ..StepLimits::default()
        };
        let own = [Limit {
            name: "nproc".into(),
            soft: Some(7),
            hard: None,
        }];
        let limit = |name: &str, soft, hard| Limit {
            name: name.into(),
            soft: Some(soft),
            hard: Some(hard),
        };
        assert_eq!(
            with_backstops(&own, &limits, Tier::Userns),
            [limit("nproc", 7, 22), limit("data", 200, 200)]
        );
        let elsewhere = with_backstops(&[], &limits, Tier::Mediated);
        assert_eq!(elsewhere, [limit("data", 200, 200)]);
        assert_eq!(
            with_backstops(&own, &StepLimits::default(), Tier::Userns),
            own
        );
    }
}
