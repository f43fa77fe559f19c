//! What everything in this stage shares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::readings::Readings;
use super::turns::Turns;
use crate::model::id::{LaneKey, WorkerId};
use crate::ports::provider::Routes;
use crate::ports::rates::Rates;
use crate::ports::tallies::Tallies;
use crate::ports::{Stores, World};
use crate::runtime::erased::Mark;
use crate::runtime::task::Tasks;

/// One delivery worker.
pub struct Delivery {
    /// This life of this worker.
    pub worker: WorkerId,
    /// The store.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    /// The accounts.
    pub routes: Routes,
    /// Their rates.
    pub rates: Arc<dyn Rates>,
    /// Live counts.
    pub tallies: Arc<dyn Tallies>,
    /// Recent readings of batch rows.
    pub readings: Readings,
    /// Whether numbers were erased since.
    pub erasures: Mark,
    /// Whose turn it is.
    pub turns: Arc<Turns>,
    /// Everything that runs for this worker.
    pub tasks: Tasks,
    /// Its open windows, those of lanes that were given back among them.
    pub windows: TaskTracker,
    holds: Mutex<Holds>,
}

/// What a worker holds, for people who watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Partitions of the delivery topic.
    pub partitions: BTreeSet<u8>,
    /// Lanes that are served now.
    pub lanes: BTreeSet<LaneKey>,
    /// Partitions with a lane that is served and does not move, and how long the longest has stood.
    pub still: BTreeMap<u8, Duration>,
}

impl Delivery {
    /// A worker under a fresh name, whose tasks belong to `tasks`.
    pub fn new(
        worker: WorkerId,
        stores: Stores,
        world: World,
        routes: Routes,
        rates: Arc<dyn Rates>,
        tallies: Arc<dyn Tallies>,
        tasks: Tasks,
    ) -> Arc<Delivery> {
        Arc::new(Delivery {
            worker,
            readings: Readings::new(stores.batches.clone(), world.clock.clone()),
            erasures: Mark::new(world.clock.clone()),
            turns: Turns::new(routes.clone(), rates.clone(), world.clock.clone()),
            stores,
            world,
            routes,
            rates,
            tallies,
            tasks,
            windows: TaskTracker::new(),
            holds: Mutex::default(),
        })
    }

    /// What this worker holds now.
    pub fn holds(&self) -> Holds {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Holds)) {
        change(&mut self.holds.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
