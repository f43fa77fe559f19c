//! Following a delivery: what stands still is sent again, and it ends behind the fence of every lane, or not yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::DeliveryStatusTracker;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::queue::MemoryBroker;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::model::ledger::{Ledger, LedgerRefusal, Leg, OpenWindow};
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::batches::Ledgers;
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::Job;

const BATCH: BatchId = BatchId(7);
const START: Timestamp = Timestamp(1_800_000_000_000);

/// Ledgers whose last lane cannot be written, until it can, and that count how often those of a batch are read.
struct Broken(Arc<dyn Ledgers>, AtomicBool, AtomicU32);

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for Broken {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.0.load(key).await
    }
    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.0.insert(key, row, nonce).await
    }
    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        if key.lane == 1 && self.1.load(Ordering::Relaxed) {
            return Err(StoreError::Corrupt("on purpose".into()));
        }
        self.0.replace(key, expected, row, nonce).await
    }
    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.2.fetch_add(1, Ordering::Relaxed);
        self.0.list(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_only_behind_the_fence_of_every_lane() {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let broken = Arc::new(Broken(stores.ledgers.clone(), AtomicBool::new(true), AtomicU32::new(0)));
    let stores = Stores { ledgers: broken.clone(), ..stores };
    let asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), START);
    (row.current_step, row.delivery.state, row.lanes, row.task_number) = (CurrentStep::Delivery, StepState::Running, 2, 1);
    row.sealed = Some(SealedPlan::default());
    stores.batches.insert(BATCH, &row, 1).await.expect("inserted");
    let key = |lane| LaneKey { batch: BATCH, lane };
    for lane in 0..2 {
        let claimed = Ledger::sealed(10).claim(WorkerId(1), 1).expect("claimed");
        // All of it was declared and answered; whoever has the lane may still believe otherwise.
        let done = Ledger { legs: vec![], ..claimed };
        stores.ledgers.insert(key(lane), &done, 1).await.expect("inserted");
    }
    let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
    let tracker = DeliveryStatusTracker::new(stores.clone(), world, MemoryBroker::new().sender());
    assert_eq!(tracker.run_once().await, Ok(false), "the batch is passed over");
    let state = async || stores.batches.load(BATCH).await.expect("read").expect("there").row.delivery.state;
    assert_eq!(state().await, StepState::Running, "a lane is not fenced yet");
    broken.1.store(false, Ordering::Relaxed);
    tracker.run_once().await.expect("a round");
    assert_eq!(state().await, StepState::CompletedSucceeded);
    for lane in 0..2 {
        let ledger = stores.ledgers.load(key(lane)).await.expect("read").expect("there").row;
        let window = OpenWindow {
            window: 9,
            leg: 0,
            from: 0,
            to: 1,
            account: "main".into(),
            declarer: WorkerId(1),
            declared_at: START,
            send_by: START,
        };
        assert_eq!(ledger.declare(window, 1, START), Err(LedgerRefusal::Closed), "lane {lane}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_hours_gets_one_token_again_now_and_then() {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), START);
    (row.current_step, row.delivery.state, row.lanes, row.task_number) = (CurrentStep::Delivery, StepState::Running, 1, 1);
    stores.batches.insert(BATCH, &row, 1).await.expect("inserted");
    let lane = LaneKey { batch: BATCH, lane: 0 };
    stores.ledgers.insert(lane, &Ledger::sealed(781_250), 1).await.expect("inserted");
    let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
    let broker = MemoryBroker::new();
    let tracker = DeliveryStatusTracker::new(stores, world, broker.sender());
    let rounds = async |rounds: u64, every: u64| {
        for _ in 0..rounds {
            tracker.run_once().await.expect("a round");
            tokio::time::sleep(Duration::from_secs(every)).await;
        }
        broker.lag().1
    };
    assert_eq!(rounds(29, 1).await, 1, "what ran before this term began is sent at once");
    assert_eq!(rounds(3, 1).await, 2, "and within half a minute again, should that have been lost");
    // As long as a hundred million take at a thousand a second.
    let sent = rounds(28 * 60, 60).await;
    assert!((150..200).contains(&sent), "{sent} tokens");
}

#[tokio::test(start_paused = true)]
async fn the_ledgers_of_a_batch_that_waits_for_receipts_are_read_once_until_it_is_dispatched_anew() {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let counted = Arc::new(Broken(stores.ledgers.clone(), AtomicBool::new(false), AtomicU32::new(0)));
    let stores = Stores { ledgers: counted.clone(), ..stores };
    let asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), START);
    (row.current_step, row.delivery.state, row.lanes, row.task_number) = (CurrentStep::Delivery, StepState::Canceled, 2, 1);
    row.sealed = Some(SealedPlan::default());
    stores.batches.insert(BATCH, &row, 1).await.expect("inserted");
    for lane in 0..2 {
        stores.ledgers.insert(LaneKey { batch: BATCH, lane }, &Ledger::sealed(10), 1).await.expect("inserted");
    }
    let chance = SeededChance::from_seed(2);
    let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(3)) };
    let tracker = DeliveryStatusTracker::new(stores.clone(), world, MemoryBroker::new().sender());
    let rounds = async || {
        let before = counted.2.load(Ordering::Relaxed);
        for _ in 0..10 {
            tracker.run_once().await.expect("a round");
        }
        counted.2.load(Ordering::Relaxed) - before
    };
    assert_eq!(rounds().await, 1);
    assert_eq!(rounds().await, 0);
    // A retry opens a lane again, and is canceled.
    for lane in 0..2 {
        let key = LaneKey { batch: BATCH, lane };
        let packs = [Leg::new(77, u32::from(lane), START)];
        let opened = change(&*stores.ledgers, key, &chance, |read| read.row.append(1, 2, &packs));
        opened.await.expect("stored").expect("appended");
    }
    let dispatched = |state| {
        move |read: &Versioned<BatchRow>| {
            let mut row = read.row.clone();
            (row.delivery.state, row.task_number) = (state, 2);
            Ok::<_, ()>(row)
        }
    };
    change(&*stores.batches, BATCH, &chance, dispatched(StepState::Running)).await.expect("stored").expect("changed");
    assert_eq!(rounds().await, 10, "while it runs each round looks");
    change(&*stores.batches, BATCH, &chance, dispatched(StepState::Canceled)).await.expect("stored").expect("changed");
    assert_eq!(rounds().await, 1);
    let open = stores.ledgers.load(LaneKey { batch: BATCH, lane: 1 }).await.expect("read").expect("there").row;
    assert!(open.closed && open.closed_number == 2, "its lanes are fenced again");
    tracker.new_term();
    assert_eq!(rounds().await, 1, "whoever leads next looks for itself");
}
