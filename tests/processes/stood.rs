//! What stands in the store of a fleet under test, read past its processes.

use smsfleet::model::id::{BatchId, WorkerId};
use smsfleet::model::record::RangeState;
use smsfleet::roles::config::Config;
use smsfleet::roles::opened::Opened;
use tokio::runtime::Runtime;

use super::fleet::Fleet;

/// A fleet's store. A server that was just restarted is asked again by whoever waits for something.
pub struct Stood {
    runtime: Runtime,
    opened: Opened,
}

impl Stood {
    /// The store of this fleet.
    pub fn of(fleet: &Fleet) -> Stood {
        let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
        let config: Config = toml::from_str(&text).expect("it is right");
        let runtime = Runtime::new().expect("a runtime");
        let opened = runtime.block_on(Opened::open(&config)).expect("the store answers");
        Stood { runtime, opened }
    }

    /// Recipients of each window of a batch that this worker declared and that is still open; `None` when the store does not
    /// answer.
    pub fn open(&self, batch: &str, worker: &str) -> Option<Vec<u32>> {
        let (batch, worker): (BatchId, WorkerId) = (batch.parse().expect("an id"), worker.parse().expect("a worker"));
        let ledgers = self.runtime.block_on(self.opened.stores.ledgers.list(batch)).ok()?;
        let open = ledgers.into_iter().flat_map(|(_, ledger)| ledger.row.open);
        Some(open.filter(|open| open.declarer == worker).map(|open| open.len()).collect())
    }

    /// How many ranges of a batch somebody reads now, and how many are not done.
    pub fn ranges(&self, batch: &str) -> Option<(usize, usize)> {
        let batch: BatchId = batch.parse().expect("an id");
        let ranges = self.runtime.block_on(self.opened.stores.ranges.list(batch)).ok()?;
        let states = || ranges.iter().map(|(_, range)| &range.row.state);
        let claimed = states().filter(|state| matches!(state, RangeState::Claimed)).count();
        Some((claimed, states().filter(|state| !matches!(state, RangeState::Done(_))).count()))
    }
}
