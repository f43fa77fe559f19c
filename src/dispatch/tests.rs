//! Dispatch and what follows it, over a store in memory: a leader that dies half-way, two at once, tokens that get lost.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::DispatchBatch;
use crate::adapters::embedded::engine::Table;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::rows::key;
use crate::adapters::system::SeededChance;
use crate::coordinate::DeliveryStatusTracker;
use crate::model::batch::{BatchRow, Command, SealedPlan, SmsBatch};
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::model::ledger::Ledger;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::model::time::Timestamp;
use crate::model::trace::TraceParent;
use crate::ports::batches::BatchRows;
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::queue::{QueueError, TaskSender};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::Job;

const BATCH: BatchId = BatchId(7);
const START: Timestamp = Timestamp(1_800_000_000_000);
const LANES: u16 = 4;

/// A queue that is there, or away.
#[derive(Default)]
struct Sender {
    away: AtomicBool,
    sent: Mutex<Vec<SmsBatchPartitionTask>>,
}

impl Sender {
    fn take(&self) -> Vec<SmsBatchPartitionTask> {
        std::mem::take(&mut *self.sent.lock().expect("not poisoned"))
    }
}

#[async_trait::async_trait]
impl TaskSender for Sender {
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, _: Option<TraceParent>) -> Result<(), QueueError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(QueueError::Unavailable("not now".into()));
        }
        self.sent.lock().expect("not poisoned").extend(tasks.into_iter().map(|(_, task)| task));
        Ok(())
    }

    async fn send_prepare(&self, _: Vec<PrepareTask>, _: Option<TraceParent>) -> Result<(), QueueError> {
        Ok(())
    }
}

/// Batches as somebody far away sees them: what is read is answered late, and may have been changed by then.
struct Late {
    inner: Arc<dyn BatchRows>,
    by: Duration,
    /// Changes that somebody else was faster with.
    refused: AtomicU32,
}

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for Late {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        let read = self.inner.load(key).await;
        tokio::time::sleep(self.by).await;
        read
    }

    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.inner.insert(key, row, nonce).await
    }

    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        let replaced = self.inner.replace(key, expected, row, nonce).await;
        self.refused.fetch_add(u32::from(replaced == Ok(Cas::Refused)), Ordering::Relaxed);
        replaced
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        self.inner.list(batch).await
    }
}

struct Bed {
    store: MemoryStore,
    stores: Stores,
    world: World,
    sender: Arc<Sender>,
}

impl Bed {
    /// A sealed batch that is to be sent, with a few lanes of ten thousand.
    async fn new() -> Bed {
        let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
        let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
        let bed = Bed { stores: store.stores(), store, world, sender: Arc::default() };
        bed.add(BATCH).await;
        bed
    }

    /// Such a batch.
    async fn add(&self, batch: BatchId) {
        let asked = SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") };
        let mut row = BatchRow::created(asked, String::new(), START);
        (row.current_step, row.delivery.state, row.lanes) = (CurrentStep::Delivery, StepState::Ready, LANES);
        row.sealed = Some(SealedPlan::default());
        self.stores.batches.insert(batch, &row, 1).await.expect("inserted");
        for lane in 0..LANES as u8 {
            self.stores.ledgers.insert(LaneKey { batch, lane }, &Ledger::sealed(10_000), 1).await.expect("inserted");
        }
    }

    /// All recipients of the batch have ended.
    async fn all_done(&self) {
        for lane in 0..LANES as u8 {
            let done = |read: &Ledger| Ok::<_, ()>(Ledger { legs: vec![], ..read.clone() });
            let key = LaneKey { batch: BATCH, lane };
            change(&*self.stores.ledgers, key, &*self.world.chance, |read| done(&read.row)).await.expect("stored").expect("done");
        }
    }

    fn leader(&self) -> (DispatchBatch, DeliveryStatusTracker) {
        self.leader_over(self.stores.clone())
    }

    /// A leader that is answered late by so much.
    fn late_leader(&self, by: Duration) -> (DispatchBatch, DeliveryStatusTracker, Arc<Late>) {
        let late = Arc::new(Late { inner: self.stores.batches.clone(), by, refused: AtomicU32::default() });
        let (dispatch, tracker) = self.leader_over(Stores { batches: late.clone(), ..self.stores.clone() });
        (dispatch, tracker, late)
    }

    fn leader_over(&self, stores: Stores) -> (DispatchBatch, DeliveryStatusTracker) {
        let (world, sender) = (self.world.clone(), self.sender.clone());
        (DispatchBatch::new(stores.clone(), world.clone(), sender.clone()), DeliveryStatusTracker::new(stores, world, sender))
    }

    async fn row(&self) -> BatchRow {
        self.stores.batches.load(BATCH).await.expect("read").expect("there").row
    }

    /// A worker claims a lane, which moves its ledger.
    async fn claim(&self, lane: u8) {
        let number = self.row().await.task_number;
        let claimed = change(&*self.stores.ledgers, LaneKey { batch: BATCH, lane }, &*self.world.chance, |read| {
            read.row.claim(WorkerId(1), number)
        });
        claimed.await.expect("stored").expect("claimed");
    }
}

fn lanes(tasks: &[SmsBatchPartitionTask]) -> Vec<u8> {
    let mut lanes: Vec<u8> = tasks.iter().map(|task| task.partition_key).collect();
    lanes.dedup();
    lanes
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_leader_that_died_behind_the_row_are_sent_by_the_next() {
    let bed = Bed::new().await;
    let (dispatch, tracker) = bed.leader();
    tracker.run_once().await.expect("a round of its term before");
    bed.sender.away.store(true, Ordering::Relaxed);
    dispatch.run_once().await.expect("the row is changed");
    bed.sender.away.store(false, Ordering::Relaxed);
    assert_eq!((bed.row().await.delivery.state, bed.sender.take().len()), (StepState::Running, 0));
    // The same leader sends them when nothing has moved for half a minute.
    tracker.run_once().await.expect("a round");
    tokio::time::sleep(Duration::from_secs(29)).await;
    tracker.run_once().await.expect("a round");
    assert_eq!(bed.sender.take(), []);
    bed.claim(1).await;
    tracker.run_once().await.expect("a round");
    tokio::time::sleep(Duration::from_secs(2)).await;
    tracker.run_once().await.expect("a round");
    let again = bed.sender.take();
    assert_eq!(lanes(&again), [0, 2, 3], "a lane that moves has somebody");
    // One of each lane: it may be that all are still there and only wait for their turn.
    assert!(again.len() == 3 && again.iter().all(|task| task.task_code == again[0].task_code && task.task_code.number == 1));
    // Another leader's first round sends at once what nobody is known to have.
    let (_, next) = bed.leader();
    next.run_once().await.expect("a round");
    assert_eq!(lanes(&bed.sender.take()), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn two_leaders_at_once_begin_one_dispatch_and_one_end() {
    let bed = Bed::new().await;
    // The second one has read the row before the first one changes it, and changes it, or would, after that.
    let (one, follows, _) = bed.late_leader(Duration::from_millis(10));
    let (other, follows_too, late) = bed.late_leader(Duration::from_millis(15));
    let refused = || late.refused.load(Ordering::Relaxed);
    assert_eq!(tokio::join!(one.run_once(), other.run_once()), (Ok(true), Ok(false)));
    assert_eq!(refused(), 1, "both had read READY");
    assert_eq!(bed.row().await.task_number, 1, "a second dispatch would make the first out of date");
    let sent = bed.sender.take();
    assert!(sent.iter().all(|task| task.task_code.number == 1));
    assert_eq!(sent.len(), usize::from(LANES) * 2, "the tokens of every lane, once: {sent:?}");
    bed.all_done().await;
    assert_eq!(tokio::join!(follows.run_once(), follows_too.run_once()), (Ok(true), Ok(false)));
    assert_eq!(refused(), 2, "both had read RUNNING");
    let row = bed.row().await;
    let ends = row.changes.iter().filter(|change| change.state == StepState::CompletedSucceeded).count();
    assert_eq!((row.delivery.state, ends), (StepState::CompletedSucceeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_overtaken_takes_no_pause_back() {
    let bed = Bed::new().await;
    let (late, _, seen) = bed.late_leader(Duration::from_millis(20));
    let (next, _) = bed.leader();
    let meanwhile = async {
        // The late one decides on what it reads at 20 ms, and hears of it at 40.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(next.run_once().await, Ok(true));
        let paused = change(&*bed.stores.batches, BATCH, &*bed.world.chance, |read| read.row.command(Command::Pause, START));
        paused.await.expect("stored").expect("paused");
        bed.sender.take().len()
    };
    assert_eq!(tokio::join!(late.run_once(), meanwhile), (Ok(false), usize::from(LANES) * 2));
    assert_eq!(seen.refused.load(Ordering::Relaxed), 1, "it had read READY");
    assert_eq!((bed.row().await.delivery.state, bed.sender.take()), (StepState::Paused, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_row_that_cannot_be_read_keeps_no_other_from_being_sent_and_ended() {
    // The jobs come to it first.
    let broken = BatchId(BATCH.0 - 1);
    let damages =
        [(Table::Batch, key::batch(broken)), (Table::Ledger, key::lane(LaneKey { batch: broken, lane: LANES as u8 - 1 }))];
    for (table, key) in damages {
        let bed = Bed::new().await;
        bed.add(broken).await;
        assert!(bed.store.engine().damage(table, &key, |row| row.clear()));
        let (dispatch, tracker) = bed.leader();
        dispatch.run_once().await.expect("a round");
        assert_eq!(bed.row().await.delivery.state, StepState::Running, "{table:?}");
        let sent = bed.sender.take();
        assert_eq!(lanes(&sent), [0, 1, 2, 3], "{table:?}");
        assert!(sent.iter().all(|task| task.task_code.batch == BATCH), "{table:?}");
        bed.all_done().await;
        tracker.run_once().await.expect("a round");
        assert_eq!(bed.row().await.delivery.state, StepState::CompletedSucceeded, "{table:?}");
    }
}
