//! Which results are thrown away: all that were not used within the age allowed, then those that were not used for the
//! longest time until the rest fits.

use stepwell_guest::cache_policy::{Budget, Kept};

/// Returns the indices of the results that go, in ascending order.
pub fn evicted(budget: &Budget, results: &[Kept]) -> Vec<u32> {
    let mut by_use: Vec<u32> = (0..results.len() as u32).collect();
    by_use.sort_by_key(|i| {
        let kept = &results[*i as usize];
        (kept.last_used, kept.uses, kept.created)
    });
    let mut total: u64 = results.iter().fold(0, |sum, r| sum.saturating_add(r.size));
    let mut gone: Vec<u32> = by_use
        .into_iter()
        .filter(|i| {
            let kept = &results[*i as usize];
            let goes = too_old(budget, kept) || budget.size.is_some_and(|most| total > most);
            if goes {
                total = total.saturating_sub(kept.size);
            }
            goes
        })
        .collect();
    gone.sort_unstable();
    gone
}

fn too_old(budget: &Budget, kept: &Kept) -> bool {
    budget
        .age
        .is_some_and(|most| budget.now.saturating_sub(kept.last_used) > most)
}

#[cfg(test)]
mod tests {
    use stepwell_guest::cache_policy::Operation;

    use super::*;

    fn kept(size: u64, last_used: u64) -> Kept {
        Kept {
            operation: Operation::Run,
            size,
            created: 0,
            last_used,
            uses: 1,
            attributes: vec![],
        }
    }

    fn budget(size: Option<u64>, age: Option<u64>) -> Budget {
        Budget {
            now: 100,
            size,
            age,
        }
    }

    #[test]
    fn nothing_goes_without_a_budget() {
        assert!(evicted(&budget(None, None), &[kept(1, 0), kept(u64::MAX, 0)]).is_empty());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let results = [kept(10, 90), kept(10, 10), kept(10, 50)];
        assert_eq!(evicted(&budget(Some(20), None), &results), [1]);
        assert_eq!(evicted(&budget(Some(10), None), &results), [1, 2]);
        assert_eq!(evicted(&budget(Some(0), None), &results), [0, 1, 2]);
    }

    #[test]
    fn what_is_too_old_goes_and_counts_as_freed() {
        let results = [kept(10, 90), kept(10, 10), kept(10, 50)];
        assert_eq!(evicted(&budget(Some(20), Some(60)), &results), [1]);
    }
}
