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
        let (_, delivering) = self.tallies.running();
        let next = next_budget(self.budget.current(), self.budget.load(), delivering > 0);
        self.budget.publish(next);
        for (kind, packs) in [("capacity", next.capacity), ("preparation", next.packs_per_second), ("floor", LEAST)] {
            metrics::set(&metrics::STORE_BUDGET, &[kind], packs);
        }
        Ok(false)
    }
}
