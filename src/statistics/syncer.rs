//! Live counts, as the statistics read, correct and forget them: a cache for people who watch, rebuilt from nothing at any
//! time. Who prepares and delivers counts through the port itself, under the original's names.

use std::sync::Arc;

use crate::model::id::BatchId;
use crate::ports::tallies::{TALLIES, Tallies, Tally};

/// Keeps the live counters in step with the store.
#[derive(Clone)]
pub struct StatisticsSyncer {
    tallies: Arc<dyn Tallies>,
}

impl StatisticsSyncer {
    /// Over these counters.
    pub fn new(tallies: Arc<dyn Tallies>) -> StatisticsSyncer {
        StatisticsSyncer { tallies }
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
