//! Live counts under the original system's names: a cache for people who watch, rebuilt from nothing at any time.

use std::sync::Arc;

use crate::model::id::BatchId;
use crate::ports::tallies::{TALLIES, Tallies, Tally};

/// Reads and feeds the live counters.
#[derive(Clone)]
pub struct StatisticsSyncer {
    tallies: Arc<dyn Tallies>,
}

impl StatisticsSyncer {
    /// Over these counters.
    pub fn new(tallies: Arc<dyn Tallies>) -> StatisticsSyncer {
        StatisticsSyncer { tallies }
    }

    /// Counts prepared records.
    pub fn increase_prepare_batch_num(&self, batch: BatchId, records: u64) {
        self.tallies.add(batch, Tally::Prepared, records);
    }

    /// Counts accepted recipients.
    pub fn increase_delivery_batch_num(&self, batch: BatchId, recipients: u64) {
        self.tallies.add(batch, Tally::Accepted, recipients);
    }

    /// Whether any preparation runs, as the leader last said.
    pub fn has_running_prepare_step(&self) -> bool {
        self.tallies.running().0 > 0
    }

    /// Whether any delivery runs, as the leader last said.
    pub fn has_running_delivery_step(&self) -> bool {
        self.tallies.running().1 > 0
    }

    /// Says how many steps run.
    pub fn sync_running(&self, prepare: u64, delivery: u64) {
        self.tallies.set_running(prepare, delivery);
    }

    /// All live counts of a batch.
    pub fn read(&self, batch: BatchId) -> [(Tally, u64); TALLIES.len()] {
        TALLIES.map(|tally| (tally, self.tallies.read(batch, tally)))
    }

    /// Forgets a batch.
    pub fn clear_all_keys(&self, batch: BatchId) {
        self.tallies.clear(batch);
    }
}
