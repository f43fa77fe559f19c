//! What a batch came to: the recount, its sum rule, and the words for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::time::Timestamp;

/// A recount of a batch from the store. Written by the leader; the newest replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// When it was counted.
    pub counted: Timestamp,
    /// Records of the source.
    pub records: u64,
    /// Records by outcome, under [`Outcome::name`].
    pub outcomes: BTreeMap<String, u64>,
    /// Rejected records by code.
    pub rejected: BTreeMap<String, u64>,
    /// Failed recipients by code and the provider's own code.
    pub failed: BTreeMap<String, u64>,
    /// Accepted recipients by what their receipts say, under [`super::receipt::Delivery::name`].
    pub deliveries: BTreeMap<String, u64>,
    /// Recipients whose every part's receipt says DELIVRD.
    pub delivery_num: u64,
    /// Segments that accounts took.
    pub segments: u64,
    /// Segments taken by each account.
    pub segments_by_account: BTreeMap<String, u64>,
    /// Whether every accepted recipient has a final receipt or has waited long enough, and nothing is open.
    pub settled: bool,
}

impl Settlement {
    /// Records with this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.name()).copied().unwrap_or(0)
    }

    /// Counts records under an outcome.
    pub fn count(&mut self, outcome: Outcome, records: u64) {
        if records > 0 {
            *self.outcomes.entry(outcome.name().to_owned()).or_default() += records;
        }
    }

    /// Records that no outcome accounts for. Rule 1: must be 0.
    pub fn unaccounted(&self) -> i128 {
        i128::from(self.records) - self.outcomes.values().map(|n| i128::from(*n)).sum::<i128>()
    }

    /// Whether every recipient that was to be sent was taken, and none is in doubt.
    pub fn all_well(&self) -> bool {
        self.settled
            && self.unaccounted() == 0
            && [Outcome::Failed, Outcome::Uncertain, Outcome::Open].iter().all(|o| self.of(*o) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_outcomes_is_the_number_of_records() {
        let mut settlement = Settlement { records: 10, ..Settlement::default() };
        settlement.count(Outcome::Accepted, 7);
        settlement.count(Outcome::Rejected, 2);
        assert_eq!(settlement.unaccounted(), 1);
        settlement.count(Outcome::Duplicate, 1);
        assert_eq!(settlement.unaccounted(), 0);
    }
}
