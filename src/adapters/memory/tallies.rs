//! Live counters within one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::id::BatchId;
use crate::ports::tallies::{Tallies, Tally};

/// Counters in ordered maps.
#[derive(Debug, Default)]
pub struct MemoryTallies {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_batch: BTreeMap<BatchId, BTreeMap<Tally, u64>>,
    running: (u64, u64),
}

impl MemoryTallies {
    /// Nothing counted yet.
    pub fn new() -> MemoryTallies {
        MemoryTallies::default()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tallies for MemoryTallies {
    fn add(&self, batch: BatchId, tally: Tally, n: u64) {
        *self.lock().by_batch.entry(batch).or_default().entry(tally).or_default() += n;
    }

    fn read(&self, batch: BatchId, tally: Tally) -> u64 {
        self.lock().by_batch.get(&batch).and_then(|counts| counts.get(&tally)).copied().unwrap_or(0)
    }

    fn clear(&self, batch: BatchId) {
        self.lock().by_batch.remove(&batch);
    }

    fn running(&self) -> (u64, u64) {
        self.lock().running
    }

    fn set_running(&self, prepare: u64, delivery: u64) {
        self.lock().running = (prepare, delivery);
    }
}
