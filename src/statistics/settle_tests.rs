//! Settling batches, of which one cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::settle::MsgCallbackStatistic;
use super::syncer::StatisticsSyncer;
use crate::adapters::embedded::engine::Table;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::rows::key;
use crate::adapters::system::SeededChance;
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::id::BatchId;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::World;
use crate::runtime::job::Job;

const START: Timestamp = Timestamp(1_800_000_000_000);

/// A store with batches that have ended, and of whom nobody was to be sent anything.
async fn ended(batches: [BatchId; 2]) -> (MemoryStore, World) {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    for batch in batches {
        let asked = SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") };
        let mut row = BatchRow::created(asked, String::new(), START);
        (row.current_step, row.delivery.state) = (CurrentStep::Delivery, StepState::CompletedSucceeded);
        row.sealed = Some(SealedPlan::default());
        store.stores().batches.insert(batch, &row, 1).await.expect("inserted");
    }
    (store, World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) })
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_read_keeps_no_other_from_being_settled() {
    // The job comes to it first.
    let (broken, whole) = (BatchId(6), BatchId(7));
    let (store, world) = ended([broken, whole]).await;
    assert!(store.engine().damage(Table::Batch, &key::batch(broken), |row| row.clear()));
    let syncer = StatisticsSyncer::new(Arc::new(MemoryTallies::new()));
    let settles = MsgCallbackStatistic::new(store.stores(), world, BTreeMap::new(), syncer);
    settles.run_once().await.expect("a round");
    let row = store.stores().batches.load(whole).await.expect("read").expect("there").row;
    assert!(row.settlement.is_some_and(|settlement| settlement.settled));
}
