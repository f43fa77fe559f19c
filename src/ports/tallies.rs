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

/// Counters by batch. May lose or repeat a little; never decides anything.
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
