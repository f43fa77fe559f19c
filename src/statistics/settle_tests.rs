//! Settling batches: one that cannot be read, and one whose receipts are still coming in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::settle::MsgCallbackStatistic;
use super::syncer::StatisticsSyncer;
use super::tests::account;
use crate::adapters::embedded::engine::Table;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::rows::key;
use crate::adapters::system::SeededChance;
use crate::model::account::{Account, LongMessage, ReceiptRules};
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::id::BatchId;
use crate::model::outcome::Outcome;
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::World;
use crate::ports::clock::Clock;
use crate::ports::tallies::{Tallies, Tally};
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

#[tokio::test(start_paused = true)]
async fn a_batch_of_several_parts_is_not_recounted_at_each_receipt_of_its_second_half() {
    let batch = BatchId(7);
    let (store, world) = ended([batch, BatchId(8)]).await;
    let tallies = Arc::new(MemoryTallies::new());
    let receipts = |one_per_message: bool| ReceiptRules { one_per_message, ..ReceiptRules::default() };
    let accounts = [("parts", receipts(false)), ("whole", receipts(true))]
        .map(|(name, receipts)| (name.to_owned(), Account { receipts, ..account(name, LongMessage::Udh8) }));
    let syncer = StatisticsSyncer::new(tallies.clone());
    let settles = MsgCallbackStatistic::new(store.stores(), world, accounts.into(), syncer);
    // Ten people of two parts each through the one account, and five through the other.
    let mut settlement = Settlement::default();
    settlement.count(Outcome::Accepted, 15);
    settlement.segments_by_account = [("parts".to_owned(), 20), ("whole".to_owned(), 10)].into();
    let wanted = settles.receipts_wanted(&settlement);
    assert_eq!(wanted, 20);
    let due = |milliseconds: u64| settles.is_due(batch, wanted, Duration::from_millis(milliseconds));
    assert!(due(0), "the first look");
    tallies.add(batch, Tally::FinalReceipts, 16);
    assert!(!due(100), "more than there are people, and not all yet");
    tallies.add(batch, Tally::FinalReceipts, 4);
    assert!(due(200), "likely the end");
    assert!(!due(300), "nothing came");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_takes_long_to_count_rests_as_long() {
    let batch = BatchId(7);
    let (store, world) = ended([batch, BatchId(8)]).await;
    let clock = Arc::new(SimClock::new(START));
    let world = World { clock: clock.clone(), ..world };
    let tallies = Arc::new(MemoryTallies::new());
    let settles = MsgCallbackStatistic::new(store.stores(), world, BTreeMap::new(), StatisticsSyncer::new(tallies.clone()));
    let began = clock.boot();
    assert!(settles.is_due(batch, 1, began));
    tokio::time::advance(Duration::from_secs(120)).await;
    settles.recounted(batch, began);
    // Whoever sets the wall clock back does not set back when a batch is settled.
    clock.skew(-3_600_000);
    for (seconds, due) in [(60, false), (59, false), (1, true)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        // Some come all the time: that alone would be a reason to count again.
        tallies.add(batch, Tally::FinalReceipts, 1);
        assert_eq!(settles.is_due(batch, 1, clock.boot()), due, "that recount took two minutes");
    }
}
