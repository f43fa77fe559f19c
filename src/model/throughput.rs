//! The store's write budget: cut at once when the store complains, raised while it is healthy.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Packs a second when nothing is known yet.
const FIRST: f64 = 2_000.0;
/// The budget never falls below this, so that preparation ends.
pub const LEAST: f64 = 5.0;
/// The budget never rises above this.
const MOST: f64 = 100_000.0;
/// A write that takes longer than this is a sign of strain.
const STRAINED: Duration = Duration::from_millis(400);
/// The share of the budget that preparation keeps while any delivery runs.
const SHARE_WHILE_DELIVERING: f64 = 0.5;

/// What writes of preparation met since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Packs written.
    pub packs: u64,
    /// Writes that the store refused or did not answer.
    pub overloads: u64,
    /// The slowest write.
    pub slowest: Duration,
    /// The time the packs were written in.
    pub over: Duration,
}

impl Load {
    /// Takes another writer's, or a later, experience in.
    pub fn add(&mut self, other: Load) {
        self.packs += other.packs;
        self.overloads += other.overloads;
        self.slowest = self.slowest.max(other.slowest);
        self.over += other.over;
    }
}

/// The budget, as the leader publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteBudget {
    /// Packs a second that the store can take.
    pub capacity: f64,
    /// Packs a second that preparation may write.
    pub packs_per_second: f64,
}

impl Default for WriteBudget {
    fn default() -> WriteBudget {
        WriteBudget { capacity: FIRST, packs_per_second: FIRST }
    }
}

impl WriteBudget {
    /// Whether it is one that [`next_budget`] gives: writers divide by it, and one that is too small would stop preparation.
    pub fn is_usable(self) -> bool {
        let possible = LEAST..=MOST;
        possible.contains(&self.capacity) && possible.contains(&self.packs_per_second)
    }

    /// One writer's part of it.
    pub fn share(self, writers: u64) -> WriteBudget {
        let writers = writers.max(1) as f64;
        WriteBudget { capacity: self.capacity / writers, packs_per_second: self.packs_per_second / writers }
    }
}

/// The next budget, from the last one and what was met under it.
pub fn next_budget(budget: WriteBudget, load: Load, delivering: bool) -> WriteBudget {
    let used = load.packs as f64 >= 0.5 * budget.packs_per_second * load.over.as_secs_f64();
    let capacity = if load.overloads > 0 {
        budget.capacity * 0.5
    } else if load.slowest > STRAINED {
        budget.capacity * 0.85
    } else if used {
        budget.capacity * 1.1
    } else {
        budget.capacity
    };
    let capacity = capacity.clamp(LEAST, MOST);
    let share = if delivering { SHARE_WHILE_DELIVERING } else { 1.0 };
    WriteBudget { capacity, packs_per_second: (capacity * share).max(LEAST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_store() {
        let start = WriteBudget::default();
        let second = Duration::from_secs(1);
        let busy = Load { packs: 2_000, over: second, ..Load::default() };
        assert!(next_budget(start, busy, false).capacity > start.capacity);
        assert_eq!(next_budget(start, Load { overloads: 1, ..busy }, false).capacity, start.capacity / 2.0);
        assert!(next_budget(start, Load { slowest: second, ..busy }, false).capacity < start.capacity);
        assert_eq!(next_budget(start, Load { over: second, ..Load::default() }, false), start, "an idle store says nothing");
        let (mut floor, mut top) = (start, start);
        for _ in 0..100 {
            floor = next_budget(floor, Load { overloads: 1, ..busy }, true);
            top = next_budget(top, Load { packs: u64::MAX, ..busy }, false);
            assert!(floor.is_usable() && top.is_usable(), "{floor:?} {top:?}");
        }
        assert_eq!(floor.packs_per_second, LEAST);
    }

    #[test]
    fn preparation_keeps_a_share_while_delivery_runs() {
        let delivering = next_budget(WriteBudget::default(), Load::default(), true);
        assert_eq!(delivering.packs_per_second, delivering.capacity * SHARE_WHILE_DELIVERING);
    }
}
