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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn stages_count_and_ask_under_the_originals_names() {
        let tallies: Arc<dyn Tallies> = Arc::new(MemoryTallies::new());
        let (batch, other) = (BatchId(1), BatchId(2));
        tallies.increase_prepare_batch_num(batch, 3);
        tallies.increase_prepare_batch_num(batch, 4);
        tallies.increase_delivery_batch_num(batch, 5, 2);
        tallies.increase_delivery_batch_num(other, 1, 0);
        let read = |tally| tallies.read(batch, tally);
        assert_eq!((read(Tally::Prepared), read(Tally::Accepted), read(Tally::Failed)), (7, 5, 2));
        for (running, has) in [((0, 0), (false, false)), ((2, 0), (true, false)), ((0, 1), (false, true))] {
            tallies.set_running(running.0, running.1);
            assert_eq!((tallies.has_running_prepare_step(), tallies.has_running_delivery_step()), has);
        }
        tallies.clear(batch);
        assert_eq!((tallies.read(batch, Tally::Accepted), tallies.read(other, Tally::Accepted)), (0, 1));
    }
}
