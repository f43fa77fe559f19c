//! Planning, and what follows it: two leaders that plan one batch, terms that end, and batches that cannot be read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{JobScheduler, Planning, PrepareStatusTracker};
use crate::adapters::embedded::engine::Table;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::queue::MemoryBroker;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::rows::key;
use crate::adapters::system::SeededChance;
use crate::model::batch::{BatchRow, Command, SealedPlan, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, RangeKey};
use crate::model::record::{Fingerprint, RangePlan, RangeRow, RangeState, RowFault, SourcePlan};
use crate::model::state::{Refusal, StepEvent, StepState};
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::source::{RangeReader, Source, SourceSpec};
use crate::ports::{Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::Job;
use crate::runtime::task::Tasks;

const BATCH: BatchId = BatchId(7);
const START: Timestamp = Timestamp(1_800_000_000_000);

/// A list that is another one at each look.
struct Looks(Mutex<VecDeque<SourcePlan>>);

#[async_trait::async_trait]
impl Source for Looks {
    async fn plan(&self, _: &SourceSpec, _: u32) -> Result<SourcePlan, Fault> {
        let plan = self.0.lock().expect("not poisoned").pop_front().expect("nobody looks more often");
        // The first to look takes longest.
        let others = self.0.lock().expect("not poisoned").len();
        tokio::time::sleep(Duration::from_secs(others as u64)).await;
        Ok(plan)
    }

    async fn open(&self, _: &SourceSpec, _: &SourcePlan, _: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        Err(Fault::new(Code::Internal, "nobody reads here"))
    }
}

/// A list of so many records, ten to a range: one that grew has the same first bytes.
fn list(records: u64) -> SourcePlan {
    let range = |first: u64| {
        let records = 10.min(records - first);
        RangePlan {
            from: first,
            to: first + records,
            first_record: first,
            records,
            content: first + records,
            ..RangePlan::default()
        }
    };
    let fingerprint = Fingerprint { size: records, version: records.to_string(), content: records };
    let ranges = (0..records).step_by(10).map(range).collect();
    SourcePlan { fingerprint, columns: vec!["phone".into()], ranges, records, ..SourcePlan::default() }
}

/// A batch that is to be prepared.
async fn add(stores: &Stores, batch: BatchId) {
    let asked = SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") };
    let row = BatchRow::created(asked, String::new(), START).command(Command::EntryProcess, START).expect("ready");
    stores.batches.insert(batch, &row, 1).await.expect("inserted");
}

async fn ready() -> (Stores, World) {
    ready_in(&MemoryStore::new(Arc::new(SeededChance::from_seed(1)))).await
}

async fn ready_in(store: &MemoryStore) -> (Stores, World) {
    let stores = store.stores();
    add(&stores, BATCH).await;
    let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
    (stores, world)
}

fn leader(stores: &Stores, world: &World, looks: &Arc<Looks>) -> Planning {
    Planning::new(stores.clone(), world.clone(), looks.clone(), Arc::new(|_, _| Ok(())), 10, Tasks::default())
}

/// The step's state after a minute.
async fn state_later(stores: &Stores) -> StepState {
    tokio::time::sleep(Duration::from_secs(60)).await;
    stores.batches.load(BATCH).await.expect("read").expect("there").row.preparation.state
}

async fn outcome(stores: &Stores) -> (BatchRow, Vec<RangePlan>) {
    tokio::time::sleep(Duration::from_secs(60)).await;
    let row = stores.batches.load(BATCH).await.expect("read").expect("there").row;
    let ranges = stores.ranges.list(BATCH).await.expect("listed").into_iter().map(|(_, range)| range.row.plan).collect();
    (row, ranges)
}

#[tokio::test(start_paused = true)]
async fn of_two_leaders_that_plan_at_once_one_plan_stands() {
    let (stores, world) = ready().await;
    let looks = Arc::new(Looks(Mutex::new([list(35), list(35)].into())));
    let (one, other) = (leader(&stores, &world, &looks), leader(&stores, &world, &looks));
    let (a, b) = tokio::join!(one.run_once(), other.run_once());
    a.and(b).expect("both rounds end");
    let (row, ranges) = outcome(&stores).await;
    assert_eq!((row.preparation.state, row.task_number, row.records, row.ranges), (StepState::Running, 1, 35, 4));
    assert_eq!(ranges, list(35).ranges);
}

#[tokio::test(start_paused = true)]
async fn ranges_of_two_different_looks_at_a_list_never_make_one_plan() {
    // One leader dies between the ranges and the row, the list grows, and the next one looks.
    let (stores, world) = ready().await;
    for (range, plan) in list(15).ranges.into_iter().enumerate() {
        let key = RangeKey { batch: BATCH, range: range as u32 };
        stores.ranges.insert(key, &RangeRow::planned(plan), 1).await.expect("inserted");
    }
    let looks = Arc::new(Looks(Mutex::new([list(35)].into())));
    leader(&stores, &world, &looks).run_once().await.expect("a round");
    let (row, _) = outcome(&stores).await;
    let code = row.preparation.reason.map(|(code, _)| code);
    assert_eq!((row.preparation.state, code), (StepState::CompletedFailed, Some(Code::SourceChanged)));

    // Two at once, between whose looks it grew.
    let (stores, world) = ready().await;
    let looks = Arc::new(Looks(Mutex::new([list(15), list(35)].into())));
    let (one, other) = (leader(&stores, &world, &looks), leader(&stores, &world, &looks));
    let (a, b) = tokio::join!(one.run_once(), other.run_once());
    a.and(b).expect("both rounds end");
    let (row, ranges) = outcome(&stores).await;
    assert_eq!((row.preparation.state, row.fingerprint), (StepState::Running, Some(list(35).fingerprint)), "whoever was first");
    assert_eq!(ranges, list(35).ranges);
}

#[tokio::test(start_paused = true)]
async fn a_plan_under_way_ends_with_its_term_and_is_made_in_the_next() {
    for dropped in [false, true] {
        let (stores, world) = ready().await;
        let looks = Arc::new(Looks(Mutex::new([list(15), list(35)].into())));
        let planning: Arc<dyn Job> = Arc::new(leader(&stores, &world, &looks));
        let scheduler = Arc::new(JobScheduler::new(vec![planning], Duration::from_millis(100), Arc::default()));
        let term = |term: CancellationToken| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.term(term).await })
        };
        let first = CancellationToken::new();
        let running = term(first.clone());
        // The list is looked at for a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        if dropped {
            running.abort()
        } else {
            first.cancel()
        }
        assert_eq!(state_later(&stores).await, StepState::Ready, "nothing is planned between two terms, dropped: {dropped}");
        term(CancellationToken::new());
        let (row, ranges) = outcome(&stores).await;
        assert_eq!((row.preparation.state, row.records), (StepState::Running, 35), "the next term's look, dropped: {dropped}");
        assert_eq!(ranges, list(35).ranges);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_under_way_ends_with_its_process() {
    let (stores, world) = ready().await;
    let (looks, tasks) = (Arc::new(Looks(Mutex::new([list(15), list(35)].into()))), Tasks::default());
    let planning = Planning::new(stores.clone(), world, looks, Arc::new(|_, _| Ok(())), 10, tasks.clone());
    planning.run_once().await.expect("a round");
    tasks.abort_all();
    assert_eq!(state_later(&stores).await, StepState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_read_keeps_no_other_from_being_planned() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    let (stores, world) = ready_in(&store).await;
    // The job comes to it first.
    let broken = BatchId(BATCH.0 - 1);
    add(&stores, broken).await;
    assert!(store.engine().damage(Table::Batch, &key::batch(broken), |row| row.clear()));
    let looks = Arc::new(Looks(Mutex::new([list(35)].into())));
    leader(&stores, &world, &looks).run_once().await.expect("a round");
    assert_eq!(state_later(&stores).await, StepState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_cannot_be_read_keeps_no_other_batch_from_its_end() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    let (stores, world) = ready_in(&store).await;
    let broken = BatchId(BATCH.0 - 1);
    add(&stores, broken).await;
    let looks = Arc::new(Looks(Mutex::new([list(5), list(5)].into())));
    leader(&stores, &world, &looks).run_once().await.expect("a round");
    assert_eq!(state_later(&stores).await, StepState::Running);
    assert!(store.engine().damage(Table::Range, &key::range(RangeKey { batch: broken, range: 0 }), |row| row.clear()));
    let fails = RangeKey { batch: BATCH, range: 0 };
    let fault = RowFault { code: Code::SourceChanged, detail: String::new() };
    let failed = change(&*stores.ranges, fails, &*world.chance, |read| {
        Ok::<_, ()>(RangeRow { state: RangeState::Failed(fault.clone()), ..read.row.clone() })
    });
    failed.await.expect("stored").expect("failed");
    let tracker = PrepareStatusTracker::new(stores.clone(), world, MemoryBroker::new().sender(), 4);
    tracker.run_once().await.expect("a round");
    assert_eq!(state_later(&stores).await, StepState::CompletedFailed);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_plans_late_starts_no_delivery_before_its_time() {
    // `knows_plan`: what the late leader read was planned before, and it only wants to start it again.
    for knows_plan in [false, true] {
        let (stores, world) = ready().await;
        let planned = |row: &BatchRow| {
            let started = row.after(StepEvent::Start, None, START)?;
            Ok::<_, Refusal>(BatchRow { fingerprint: Some(list(35).fingerprint), ..started })
        };
        if knows_plan {
            let resumed = change(&*stores.batches, BATCH, &*world.chance, |row| {
                planned(&row.row)?.command(Command::Pause, START)?.command(Command::Resume, START)
            });
            resumed.await.expect("stored").expect("ready again");
        }
        let looks = Arc::new(Looks(Mutex::new([list(35), list(35)].into())));
        leader(&stores, &world, &looks).run_once().await.expect("a round");
        // Before its plan comes to anything, the other leader has planned the batch, and it was prepared and sealed.
        let sealed = change(&*stores.batches, BATCH, &*world.chance, |row| {
            let mut sealed = planned(&row.row)?.after_seal(SealedPlan::default(), START)?;
            sealed.batch.schedule_time = Some(START.plus(Duration::from_secs(86_400)));
            sealed.command(Command::Start, START)
        });
        sealed.await.expect("stored").expect("sealed, and waits for its time");
        let (row, _) = outcome(&stores).await;
        assert_eq!((row.current_step, row.delivery.state), (CurrentStep::Delivery, StepState::Ready), "{knows_plan}");
    }
}

/// Lists that take a second each, and how many of them are looked at: in order, now, and the most at once.
#[derive(Default)]
struct Slow {
    order: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of [`Slow`]'s lists that is looked at.
struct Looked<'a>(&'a Slow);

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Source for Slow {
    async fn plan(&self, spec: &SourceSpec, _: u32) -> Result<SourcePlan, Fault> {
        self.order.lock().expect("not poisoned").push(spec.table_name.clone());
        self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let _looked = Looked(self);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if spec.table_name == "away" {
            return Err(Fault::new(Code::SourceUnavailable, "it is away"));
        }
        Ok(list(5))
    }

    async fn open(&self, _: &SourceSpec, _: &SourcePlan, _: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        Err(Fault::new(Code::Internal, "nobody reads here"))
    }
}

/// Many batches that are to be prepared, the first of them for lists that cannot be looked at now, and one that is urgent.
async fn many() -> (Stores, Arc<Slow>, Planning) {
    let (stores, world) = ready().await;
    for n in 0..20 {
        let (table_name, priority) = match n {
            0..5 => ("away", 5),
            19 => ("urgent", 9),
            _ => ("list", 5),
        };
        let asked = SmsBatch { batch_id: BatchId(100 + n), priority, ..SmsBatch::new(table_name, "Hello", "main") };
        let row = BatchRow::created(asked, String::new(), START).command(Command::EntryProcess, START).expect("ready");
        stores.batches.insert(BatchId(100 + n), &row, 1).await.expect("inserted");
    }
    let slow = Arc::new(Slow::default());
    let planning = Planning::new(stores.clone(), world, slow.clone(), Arc::new(|_, _| Ok(())), 10, Tasks::default());
    (stores, slow, planning)
}

#[tokio::test(start_paused = true)]
async fn few_lists_are_looked_at_at_once_and_the_urgent_one_first() {
    let (stores, slow, planning) = many().await;
    for _ in 0..300 {
        planning.run_once().await.expect("a round");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(slow.order.lock().expect("not poisoned")[0], "urgent");
    assert_eq!(slow.most.load(Ordering::Relaxed), 4);
    // Those that wait for a list that is away keep none of the others waiting.
    for n in 5..20 {
        let row = stores.batches.load(BatchId(100 + n)).await.expect("read").expect("there").row;
        assert_eq!(row.preparation.state, StepState::Running, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_of_a_batch_that_was_canceled_is_looked_at_no_further() {
    let (stores, slow, planning) = many().await;
    planning.run_once().await.expect("a round");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(slow.now.load(Ordering::Relaxed), 4);
    let chance = SeededChance::from_seed(3);
    for n in 0..20 {
        let canceled = change(&*stores.batches, BatchId(100 + n), &chance, |row| row.row.command(Command::Cancel, START));
        canceled.await.expect("stored").expect("canceled");
    }
    planning.run_once().await.expect("a round");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(slow.now.load(Ordering::Relaxed), 1, "the one that was not canceled goes on");
}
