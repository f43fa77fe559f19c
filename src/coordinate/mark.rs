//! Raising the store's mark, which is left outside it as well: a store that is older than the mark was restored (rule 9).

use std::time::Duration;

use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::{Every, Job};
use crate::runtime::metrics;

/// How often the mark is raised.
pub const MARK_EVERY: Duration = Duration::from_secs(3);

/// The job that raises the mark.
pub struct Mark {
    stores: Stores,
    world: World,
    raises: Every,
}

impl Mark {
    /// Over this store.
    pub fn new(stores: Stores, world: World) -> Mark {
        Mark { stores, world, raises: Every::new(MARK_EVERY) }
    }
}

#[async_trait::async_trait]
impl Job for Mark {
    fn name(&self) -> &'static str {
        "mark"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        if self.raises.is_due(&*self.world.clock) {
            let began = self.world.clock.boot();
            self.stores.meta.raise_mark().await?;
            // A mark is one conditional write like any other: a fair sample of what they take.
            metrics::observe(&metrics::STORE_COMMIT, &[], self.world.clock.boot().saturating_sub(began));
        }
        Ok(false)
    }
}
