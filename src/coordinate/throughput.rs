//! Steering the store's write budget: the leader looks at what writes of preparation met, and publishes what they may do.

use std::sync::Arc;
use std::time::Duration;

use crate::model::throughput::{LEAST, next_budget};
use crate::ports::StoreError;
use crate::ports::budget::Budget;
use crate::ports::clock::Clock;
use crate::ports::tallies::Tallies;
use crate::runtime::job::{Every, Job};
use crate::runtime::metrics;

/// How often the budget is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// The job that steers the budget.
#[doc(alias = "cosmosRUController")]
pub struct StoreThroughput {
    budget: Arc<dyn Budget>,
    tallies: Arc<dyn Tallies>,
    clock: Arc<dyn Clock>,
    looks: Every,
}

impl StoreThroughput {
    /// Steers this budget.
    pub fn new(budget: Arc<dyn Budget>, tallies: Arc<dyn Tallies>, clock: Arc<dyn Clock>) -> StoreThroughput {
        StoreThroughput { budget, tallies, clock, looks: Every::new(EVERY) }
    }
}

#[async_trait::async_trait]
impl Job for StoreThroughput {
    fn name(&self) -> &'static str {
        "store_throughput"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if !self.looks.is_due(&*self.clock) {
            return Ok(false);
        }
        let (current, load) = (self.budget.current(), self.budget.load());
        let next = next_budget(current, load, self.tallies.has_running_delivery_step());
        // While nothing is prepared nothing is written under the budget, and nobody needs to hear of it.
        if self.tallies.has_running_prepare_step() || load.packs + load.overloads > 0 {
            self.budget.publish(next);
        }
        for (kind, packs) in [("capacity", next.capacity), ("preparation", next.packs_per_second), ("floor", LEAST)] {
            metrics::set(&metrics::STORE_BUDGET, &[kind], packs);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::tallies::MemoryTallies;
    use crate::model::throughput::{Load, WriteBudget};
    use crate::model::time::Timestamp;

    /// What was published, and what writes met.
    #[derive(Default)]
    struct Told(Mutex<(Vec<WriteBudget>, Load)>);

    impl Budget for Told {
        fn load(&self) -> Load {
            std::mem::take(&mut self.0.lock().expect("not poisoned").1)
        }
        fn publish(&self, budget: WriteBudget) {
            self.0.lock().expect("not poisoned").0.push(budget);
        }
        fn current(&self) -> WriteBudget {
            self.0.lock().expect("not poisoned").0.last().copied().unwrap_or_default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_told_while_something_is_prepared_and_halved_while_something_is_delivered() {
        let (budget, tallies) = (Arc::new(Told::default()), Arc::new(MemoryTallies::new()));
        let steers = StoreThroughput::new(budget.clone(), tallies.clone(), Arc::new(SimClock::new(Timestamp(0))));
        let round = async |running: (u64, u64), overloads: u64| {
            tallies.set_running(running.0, running.1);
            budget.0.lock().expect("not poisoned").1 = Load { overloads, over: EVERY, ..Load::default() };
            steers.run_once().await.expect("a round");
            tokio::time::sleep(EVERY).await;
            std::mem::take(&mut budget.0.lock().expect("not poisoned").0)
        };
        let first = WriteBudget::default();
        assert_eq!(round((0, 0), 0).await, []);
        assert_eq!(round((0, 3), 0).await, []);
        assert_eq!(round((1, 0), 0).await, [first]);
        assert_eq!(round((1, 1), 0).await, [WriteBudget { packs_per_second: first.capacity / 2.0, ..first }]);
        assert_eq!(round((0, 0), 1).await.len(), 1, "the last writes of a preparation may be the ones that were too many");
    }
}
