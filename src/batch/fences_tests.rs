//! Commands that race with workers: they are answered behind the fence of every lane. And a creation that comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::batch::{BatchRow, Command, SealedPlan, SmsBatch};
use crate::model::code::Code;
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::model::ledger::{Ledger, LedgerRefusal, OpenWindow};
use crate::model::order::{Named, RetryWhat};
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::batches::{BatchRows, Ledgers};
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;

const BATCH: BatchId = BatchId(7);
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const WORKER: WorkerId = WorkerId(1);
/// How long a change of the last lane takes.
const SLOW: Duration = Duration::from_secs(5);

/// Ledgers of which the last lane's takes its time.
struct Slow(Arc<dyn Ledgers>);

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for Slow {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.0.load(key).await
    }
    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.0.insert(key, row, nonce).await
    }
    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        if key.lane == 3 {
            tokio::time::sleep(SLOW).await;
        }
        self.0.replace(key, expected, row, nonce).await
    }
    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.0.list(batch).await
    }
}

struct Nobody;

#[async_trait::async_trait]
impl Select for Nobody {
    async fn select(&self, _: &BatchRow, _: LaneKey, _: &RetryWhat, _: u8) -> Result<Vec<Named>, StoreError> {
        Ok(vec![])
    }
}

fn key(lane: u8) -> LaneKey {
    LaneKey { batch: BATCH, lane }
}

fn service(stores: &Stores) -> SmsBatchService {
    let world = World { clock: Arc::new(SimClock::new(NOW)), chance: Arc::new(SeededChance::from_seed(2)) };
    SmsBatchService::new(stores.clone(), world, Arc::new(Notify::new()), Arc::new(Nobody))
}

/// A batch that is being sent: four lanes of ten, claimed by one worker. The stores of the worker, and a service whose store
/// is slow.
async fn running() -> (Stores, SmsBatchService) {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), NOW);
    (row.current_step, row.delivery.state, row.lanes, row.task_number) = (CurrentStep::Delivery, StepState::Running, 4, 1);
    row.sealed = Some(SealedPlan::default());
    stores.batches.insert(BATCH, &row, 1).await.expect("inserted");
    for lane in 0..4 {
        let ledger = Ledger::sealed(10).claim(WORKER, 1).expect("claimed");
        stores.ledgers.insert(key(lane), &ledger, 1).await.expect("inserted");
    }
    let slow = Stores { ledgers: Arc::new(Slow(stores.ledgers.clone())), ..stores.clone() };
    let service = service(&slow);
    (stores, service)
}

/// The worker, which has heard of nothing, declares the next three of a lane.
async fn declare(stores: &Stores, lane: u8) -> Result<(), LedgerRefusal> {
    let chance = SeededChance::from_seed(3);
    let changed = change(&*stores.ledgers, key(lane), &chance, |read| {
        let from = read.row.first_pass();
        let (window, account) = (read.version + 1, "main".to_owned());
        let (declared_at, send_by) = (NOW, NOW.plus(Duration::from_secs(10)));
        let window = OpenWindow { window, leg: 0, from, to: from + 3, account, declarer: WORKER, declared_at, send_by };
        read.row.declare(window, 1, NOW)
    });
    changed.await.expect("stored").map(|_| ())
}

#[tokio::test(start_paused = true)]
async fn a_cancel_and_a_pause_are_answered_only_behind_the_fence_of_every_lane() {
    for command in [Command::Cancel, Command::Pause] {
        let (stores, service) = running().await;
        let mut answer = std::pin::pin!(service.command(BATCH, command));
        assert!(tokio::time::timeout(SLOW / 2, &mut answer).await.is_err(), "{command:?} is not answered yet");
        assert_eq!(declare(&stores, 3).await, Ok(()), "the last lane has no fence yet");
        let answer = answer.await.expect("carried out");
        // Whatever was declared before is in the answer, and nothing is declared behind it.
        assert_eq!((answer.in_flight, answer.undeclared), (3, 37), "{command:?}");
        for lane in 0..4 {
            assert!(declare(&stores, lane).await.is_err(), "lane {lane} behind {command:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_provider_is_answered_only_behind_the_fence_of_every_lane() {
    let (stores, service) = running().await;
    let offers: Vec<Offer> = ["main", "other"]
        .map(|name| {
            let mut account = crate::roles::config::AccountConfig::default().account(name);
            account.provider_type = name.into();
            Offer { account, rate: None }
        })
        .into();
    // Paused by the row alone: whoever pauses died before the fences.
    let row = stores.batches.load(BATCH).await.expect("read").expect("there");
    let paused = row.row.command(Command::Pause, NOW).expect("paused");
    stores.batches.replace(BATCH, row.version, &paused, 5).await.expect("stored");
    let plan = service.plan_change(BATCH, "other", &offers).await.expect("a plan");
    let mut answer = std::pin::pin!(service.change_provider(BATCH, "other", &plan.plan_hash, &offers, "order"));
    assert!(tokio::time::timeout(SLOW / 2, &mut answer).await.is_err(), "it is not answered yet");
    let answer = answer.await.expect("carried out");
    assert_eq!(answer.undeclared, 40);
    for lane in 0..4 {
        assert!(declare(&stores, lane).await.is_err(), "lane {lane} goes to the old account");
    }
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_comes_twice_is_one_batch() {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let (one, other) = (service(&stores), service(&stores));
    let asked = || SmsBatch::new("list", "Hello", "main");
    let (a, b) = tokio::join!(one.create("key", asked()), other.create("key", asked()));
    let (a, b) = (a.expect("created"), b.expect("created"));
    assert_eq!((a.batch, a.existed != b.existed), (b.batch, true));
    assert_eq!(one.list(None, 10).await.expect("listed").0.len(), 1);
    let refused = one.create("key", SmsBatch { content: "Bye".into(), ..asked() }).await.expect_err("another request");
    assert_eq!(refused.code, Code::IdempotencyConflict);
    let elsewhere = one.create("key", SmsBatch { tenant: "other".into(), ..asked() }).await.expect("another tenant");
    assert!(!elsewhere.existed && elsewhere.batch != a.batch);
    assert_eq!(one.create("", asked()).await.expect_err("no key").code, Code::InputInvalid);
}

/// Batches whose plan becomes another as soon as somebody has read it once.
struct Replanned(Arc<dyn BatchRows>, AtomicBool);

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for Replanned {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        let read = self.0.load(key).await?;
        if let Some(current) = read.as_ref().filter(|_| !self.1.swap(true, Ordering::Relaxed)) {
            let sealed = Some(SealedPlan { plan_hash: "second".into(), ..SealedPlan::default() });
            let next = BatchRow { sealed, task_number: current.row.task_number + 1, ..current.row.clone() };
            assert_eq!(self.0.replace(key, current.version, &next, 99).await?, Cas::Applied);
        }
        Ok(read)
    }
    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.0.insert(key, row, nonce).await
    }
    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.0.replace(key, expected, row, nonce).await
    }
    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        self.0.list(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_was_approved_is_not_started_once_another_has_taken_its_place() {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), NOW);
    row.current_step = CurrentStep::Delivery;
    row.sealed = Some(SealedPlan { plan_hash: "first".into(), ..SealedPlan::default() });
    stores.batches.insert(BATCH, &row, 1).await.expect("inserted");
    let stores = Stores { batches: Arc::new(Replanned(stores.batches.clone(), AtomicBool::new(false))), ..stores };
    let world = World { clock: Arc::new(SimClock::new(NOW)), chance: Arc::new(SeededChance::from_seed(2)) };
    let service = SmsBatchService::new(stores.clone(), world, Arc::new(Notify::new()), Arc::new(Nobody));
    let refused = service.start(BATCH, Some("first")).await.expect_err("the provider was changed meanwhile");
    assert_eq!(refused.code, Code::PlanChanged);
    let state = async || stores.batches.load(BATCH).await.expect("read").expect("there").row.delivery.state;
    assert_eq!(state().await, StepState::Initial);
    service.start(BATCH, Some("second")).await.expect("this is the plan");
    assert_eq!(state().await, StepState::Ready);
}
