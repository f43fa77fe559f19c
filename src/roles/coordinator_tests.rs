//! What a leader does at once while one of its jobs takes long.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::adapters::memory::budget::BudgetedPacks;
use crate::adapters::memory::caller::NoCaller;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::lease::MemoryLease;
use crate::adapters::memory::queue::MemoryBroker;
use crate::adapters::memory::rates::LocalRates;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::system::SeededChance;
use crate::coordinate::{members, slots};
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::fleet::tests::sheet;
use crate::model::fleet::{FleetRole, Sheet};
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::model::ledger::Ledger;
use crate::model::pack::Manifest;
use crate::model::record::{RangePlan, SourcePlan};
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::model::trace::TraceParent;
use crate::ports::control::Cas;
use crate::ports::packs::Manifests;
use crate::ports::queue::{QueueError, TaskSender};
use crate::ports::source::{RangeReader, Source, SourceSpec};
use crate::ports::{StoreError, Stores, World};
use crate::webhooks::Webhooks;

const START: Timestamp = Timestamp(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// Manifests that take an hour to be read: a recount does not end while a test runs.
struct Slow(Arc<dyn Manifests>);

#[async_trait::async_trait]
impl Manifests for Slow {
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError> {
        self.0.put(lane, manifest).await
    }
    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        tokio::time::sleep(3_600 * SECOND).await;
        self.0.get(lane).await
    }
}

struct NoSource;

#[async_trait::async_trait]
impl Source for NoSource {
    async fn plan(&self, _: &SourceSpec, _: u32) -> Result<SourcePlan, Fault> {
        Err(Fault::new(Code::Internal, "there is no list here"))
    }
    async fn open(&self, _: &SourceSpec, _: &SourcePlan, _: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        Err(Fault::new(Code::Internal, "there is no list here"))
    }
}

fn edges() -> Edges {
    let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
    let stores = Stores { manifests: Arc::new(Slow(stores.manifests.clone())), ..stores };
    let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
    Edges {
        budget: BudgetedPacks::new(stores.packs.clone()),
        webhooks: Webhooks::new(stores.clone(), world.clone(), Arc::new(NoCaller)),
        stores,
        world,
        source: Arc::new(NoSource),
        uploads: None,
        routes: Arc::default(),
        rates: Arc::new(LocalRates::default()),
        tallies: Arc::new(MemoryTallies::new()),
        lease: Arc::new(MemoryLease::new()),
        sender: MemoryBroker::new().sender(),
        wake: Arc::default(),
    }
}

/// A sealed batch of one lane whose delivery has this state.
async fn add(edges: &Edges, batch: BatchId, state: StepState) {
    let asked = SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") };
    let mut row = BatchRow::created(asked, String::new(), START);
    (row.current_step, row.delivery.state, row.lanes, row.sealed) =
        (CurrentStep::Delivery, state, 1, Some(SealedPlan::default()));
    edges.stores.batches.insert(batch, &row, 1).await.expect("inserted");
    let lane = LaneKey { batch, lane: 0 };
    edges.stores.ledgers.insert(lane, &Ledger::sealed(10), 1).await.expect("inserted");
}

fn settings() -> Settings {
    Settings {
        terms: Terms::default(),
        every: Duration::from_millis(100),
        range_records: 10,
        range_tasks: 4,
        keep: Keep::all(86_400 * SECOND),
        bind_slots: BTreeMap::from([("main".to_owned(), 1)]),
        raise_mark: false,
    }
}

/// A queue that takes nothing, and says so only after as long as a producer waits.
struct Away;

#[async_trait::async_trait]
impl TaskSender for Away {
    async fn send_delivery(&self, _: Vec<(u8, SmsBatchPartitionTask)>, _: Option<TraceParent>) -> Result<(), QueueError> {
        tokio::time::sleep(30 * SECOND).await;
        Err(QueueError::Unavailable("on purpose".into()))
    }
    async fn send_prepare(&self, _: Vec<PrepareTask>, _: Option<TraceParent>) -> Result<(), QueueError> {
        tokio::time::sleep(30 * SECOND).await;
        Err(QueueError::Unavailable("on purpose".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn slots_are_lent_and_the_mark_is_raised_while_the_queue_takes_no_tokens() {
    let edges = Edges { sender: Arc::new(Away), ..edges() };
    for batch in 1..=5 {
        add(&edges, BatchId(batch), StepState::Running).await;
    }
    let (stop, leading) = (CancellationToken::new(), Leading::default());
    let settings = Settings { raise_mark: true, ..settings() };
    let process = tokio::spawn(run(edges.clone(), settings, Tasks::default(), stop.clone(), leading));
    let mut mark = 0;
    for second in 0..120 {
        let now = edges.world.clock.now();
        let sheet = Sheet { wanted: vec!["main".into()], ..sheet(5, FleetRole::Deliver, now) };
        members::write(&edges.stores, &sheet).await.expect("stored");
        tokio::time::sleep(SECOND).await;
        let (slots, _) = slots::read(&edges.stores, "main").await.expect("read");
        assert!(second < 3 || slots.holds(WorkerId(5), edges.world.clock.now()), "second {second}: {slots:?}");
        if second % 30 == 29 {
            let raised = edges.stores.meta.raise_mark().await.expect("raised");
            assert!(raised > mark + 1, "second {second}: by nobody but us");
            mark = raised;
        }
    }
    stop.cancel();
    process.await.expect("it ends in order");
}

#[tokio::test(start_paused = true)]
async fn a_recount_that_takes_an_hour_keeps_nobody_waiting() {
    let edges = edges();
    add(&edges, BatchId(1), StepState::CompletedSucceeded).await;
    let (stop, leading) = (CancellationToken::new(), Leading::default());
    let process = tokio::spawn(run(edges.clone(), settings(), Tasks::default(), stop.clone(), leading.clone()));
    tokio::time::sleep(SECOND).await;
    // Now the recount is under way.
    add(&edges, BatchId(2), StepState::Ready).await;
    let at = edges.world.clock.now();
    let sheet = Sheet { wanted: vec!["main".into()], ..sheet(5, FleetRole::Deliver, at) };
    members::write(&edges.stores, &sheet).await.expect("stored");
    tokio::time::sleep(2 * SECOND).await;
    let row = edges.stores.batches.load(BatchId(2)).await.expect("read").expect("there").row;
    assert_eq!(row.delivery.state, StepState::Running, "it is dispatched");
    let (slots, _) = slots::read(&edges.stores, "main").await.expect("read");
    assert!(slots.holds(WorkerId(5), edges.world.clock.now()), "a slot is lent");
    assert_eq!(edges.tallies.running(), (0, 1), "how many steps run is said");
    assert!(leading.lock().is_ok_and(|since| since.is_some()));

    stop.cancel();
    tokio::time::sleep(SECOND / 10).await;
    assert!(leading.lock().is_ok_and(|since| since.is_none()), "it says at once that it leads no more");
    process.await.expect("it ends in order");
}

#[tokio::test]
async fn a_loop_that_panics_ends_the_coordinator() {
    let mut loops: FuturesUnordered<JoinHandle<()>> = FuturesUnordered::new();
    loops.push(tokio::spawn(std::future::pending()));
    loops.push(tokio::spawn(async { panic!("on purpose") }));
    let ended = tokio::spawn(async move { ended(&mut loops).await }).await;
    assert!(ended.is_err_and(|error| error.is_panic()));
}
