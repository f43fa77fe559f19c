//! Live counters: a cache for people who watch. The truth is in the store.

use crate::model::id::BatchId;

/// What is counted live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tally {
    /// Records prepared.
    Prepared,
    /// Recipients accepted.
    Accepted,
    /// Recipients failed.
    Failed,
    /// New reports with a final rung.
    FinalReceipts,
    /// New reports that say DELIVRD.
    DeliveredReceipts,
}

/// All tallies.
pub const TALLIES: [Tally; 5] = [Tally::Prepared, Tally::Accepted, Tally::Failed, Tally::FinalReceipts, Tally::DeliveredReceipts];

/// Counters by batch. May lose or repeat a little; never decides what is sent.
#[doc(alias = "StatisticsSyncer")]
pub trait Tallies: Send + Sync {
    /// Adds.
    fn add(&self, batch: BatchId, tally: Tally, n: u64);

    /// Reads.
    fn read(&self, batch: BatchId, tally: Tally) -> u64;

    /// Forgets a batch.
    fn clear(&self, batch: BatchId);

    /// Steps that run now, as the leader last said: preparation and delivery.
    fn running(&self) -> (u64, u64);

    /// Says how many steps run now.
    fn set_running(&self, prepare: u64, delivery: u64);
}

/// What stages count and ask, under the original system's names.
impl dyn Tallies {
    /// Counts prepared records.
    pub fn increase_prepare_batch_num(&self, batch: BatchId, records: u64) {
        self.add(batch, Tally::Prepared, records);
    }

    /// Counts recipients that an account took, and those that it refused.
    pub fn increase_delivery_batch_num(&self, batch: BatchId, accepted: u64, failed: u64) {
        self.add(batch, Tally::Accepted, accepted);
        self.add(batch, Tally::Failed, failed);
    }

    /// Whether any preparation runs, as the leader last said.
    pub fn has_running_prepare_step(&self) -> bool {
        self.running().0 > 0
    }

    /// Whether any delivery runs, as the leader last said.
    pub fn has_running_delivery_step(&self) -> bool {
        self.running().1 > 0
    }
}
