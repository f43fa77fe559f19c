//! The job that says how many steps run: for whoever shares the store between preparation and delivery, and for who watches.

use std::collections::BTreeMap;
use std::time::Duration;

use super::syncer::StatisticsSyncer;
use crate::model::state::{STATES, StepState};
use crate::model::step::CurrentStep;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::{Every, Job, Unreadable};
use crate::runtime::metrics;

/// How often steps are counted: as often as the store's throughput is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// The job. It looks at rows alone, and so is never behind however long a recount takes.
pub struct RunningSteps {
    stores: Stores,
    world: World,
    syncer: StatisticsSyncer,
    counts: Every,
    unreadable: Unreadable,
}

impl RunningSteps {
    /// Counts the steps of this store.
    pub fn new(stores: Stores, world: World, syncer: StatisticsSyncer) -> RunningSteps {
        RunningSteps { stores, world, syncer, counts: Every::new(EVERY), unreadable: Unreadable::default() }
    }
}

#[async_trait::async_trait]
impl Job for RunningSteps {
    fn name(&self) -> &'static str {
        "running_steps"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if !self.counts.is_due(&*self.world.clock) {
            return Ok(false);
        }
        let mut steps = BTreeMap::new();
        for batch in self.stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, batch).await? else { continue };
            *steps.entry((row.current_step, row.step().state)).or_insert(0u64) += 1;
        }
        let there = |step, state| steps.get(&(step, state)).copied().unwrap_or(0);
        let running = |step| there(step, StepState::Running);
        self.syncer.sync_running(running(CurrentStep::Preparation), running(CurrentStep::Delivery));
        for (step, name) in [(CurrentStep::Preparation, "preparation"), (CurrentStep::Delivery, "delivery")] {
            for state in STATES {
                metrics::set(&metrics::COORDINATE_STEPS, &[name, state.name()], there(step, state) as f64);
            }
        }
        Ok(false)
    }
}
