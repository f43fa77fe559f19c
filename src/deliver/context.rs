//! What everything in this stage shares.

use std::sync::Arc;

use super::readings::Readings;
use super::turns::Turns;
use crate::model::id::WorkerId;
use crate::ports::provider::Routes;
use crate::ports::rates::Rates;
use crate::ports::tallies::Tallies;
use crate::ports::{Stores, World};
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
    /// Whose turn it is.
    pub turns: Arc<Turns>,
    /// Everything that runs for this worker.
    pub tasks: Tasks,
}

impl Delivery {
    /// A worker with a fresh name, whose tasks belong to `tasks`.
    pub fn new(
        stores: Stores,
        world: World,
        routes: Routes,
        rates: Arc<dyn Rates>,
        tallies: Arc<dyn Tallies>,
        tasks: Tasks,
    ) -> Arc<Delivery> {
        Arc::new(Delivery {
            worker: WorkerId(world.chance.next()),
            readings: Readings::new(stores.batches.clone(), world.clock.clone()),
            turns: Turns::new(routes.clone(), rates.clone(), world.clock.clone()),
            stores,
            world,
            routes,
            rates,
            tallies,
            tasks,
        })
    }
}
