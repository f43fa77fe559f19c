//! Lanes made by hand over a store in memory, and workers that serve them. Time is paused: whatever waits, waits for nothing.

// A poisoned lock means that a test has failed already.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::context::Delivery;
use super::fake_ports::{Asked, Declares, Desk, Manner, Pace, Rows, SlowPacks};
pub use super::fake_ports::{Fate, Got, not_now, taken};
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::queue::filled::FilledQueue;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::system::SeededChance;
use crate::batch::{Select, SmsBatchService};
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::batch::{BatchRow, SealedPlan, SmsBatch};
use crate::model::id::{BatchId, LaneKey, Msisdn, WorkerId};
use crate::model::ledger::Ledger;
use crate::model::order::{Named, RetryWhat};
use crate::model::pack::{Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::task::{SmsBatchPartitionTask, tokens_of};
use crate::model::time::Timestamp;
use crate::model::window::WindowRow;
use crate::ports::clock::Clock;
use crate::ports::provider::{Provider, Route, Routes, Submit};
use crate::ports::queue::QueueEvent;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::task::Tasks;

pub const BATCH: BatchId = BatchId(7);
pub const LANE: LaneKey = LaneKey { batch: BATCH, lane: 0 };
/// Eight in the morning, UTC.
pub const START: Timestamp = Timestamp(1_800_000_000_000);
/// Recipients of a window when one lane has the whole rate of 500 a second.
pub const WINDOW: u32 = 100;
/// How long an account may take to answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a test waits for what must happen, in simulated time.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The number of a place.
pub fn number(seq: u32) -> u64 {
    8_613_800_000_000 + u64::from(seq)
}

/// A worker in its own process.
pub struct Worker {
    pub queue: Arc<FilledQueue<SmsBatchPartitionTask>>,
    pub ctx: Arc<Delivery>,
    tasks: Tasks,
    stop: CancellationToken,
    running: JoinHandle<()>,
    offset: AtomicU32,
}

impl Worker {
    /// A token arrives.
    pub fn give(&self, partition: u8, task: SmsBatchPartitionTask) {
        let offset = u64::from(self.offset.fetch_add(1, Ordering::Relaxed));
        self.queue.push(QueueEvent::Task { partition, offset, task, trace: None });
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.running.abort();
        self.tasks.abort_all();
    }

    /// SIGTERM.
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("it ends in order");
        // The process is over.
        self.tasks.abort_all();
    }
}

/// Names whom a retry sends as the fleet does.
struct Selection(Stores, BTreeMap<String, Account>);

#[async_trait::async_trait]
impl Select for Selection {
    async fn select(&self, row: &BatchRow, key: LaneKey, what: &RetryWhat, round: u8) -> Result<Vec<Named>, StoreError> {
        crate::statistics::select(&self.0, &self.1, &row.batch.provider_type, key, what, round).await
    }
}

/// Everything around the workers.
pub struct Bed {
    pub store: MemoryStore,
    pub stores: Stores,
    pub world: World,
    /// The clock of all processes, to be set.
    pub clock: Arc<SimClock>,
    pub declares: Arc<Declares>,
    pub packs: Arc<SlowPacks>,
    pub documents: Arc<Asked>,
    pub batches: Arc<Rows>,
    pub pace: Arc<Pace>,
    pub service: SmsBatchService,
    desks: [Arc<Desk>; 2],
    pub routes: Routes,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Bed {
    /// A batch that is being delivered, with one lane of so many people.
    pub async fn new(people: u32) -> Bed {
        Bed::with(&[people], |_, _| {}).await
    }

    /// A batch with lanes of so many people; `change` may change what was asked for, and the account that it goes through. There
    /// is another account, of another provider type.
    pub async fn with(lanes: &[u32], change: impl FnOnce(&mut SmsBatch, &mut Account)) -> Bed {
        Bed::with_both(lanes, |batch, main, _| change(batch, main)).await
    }

    /// [`with`](Bed::with), where `change` may change the other account too.
    pub async fn with_both(lanes: &[u32], change: impl FnOnce(&mut SmsBatch, &mut Account, &mut Account)) -> Bed {
        let set = Arc::new(SimClock::new(START));
        let clock: Arc<dyn Clock> = set.clone();
        let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
        let stores = store.stores();
        let declares = Arc::new(Declares { inner: stores.ledgers.clone(), fates: Mutex::default(), late: Arc::default() });
        let packs = Arc::new(SlowPacks { inner: stores.packs.clone(), time: Mutex::default(), damaged: Mutex::default() });
        let documents =
            Arc::new(Asked { inner: stores.documents.clone(), times: AtomicU32::new(0), is_away: AtomicBool::new(false) });
        let batches = Arc::new(Rows { inner: stores.batches.clone(), times: AtomicU32::new(0), is_away: AtomicBool::new(false) });
        let stores = Stores {
            batches: batches.clone(),
            ledgers: declares.clone(),
            packs: packs.clone(),
            documents: documents.clone(),
            ..stores
        };
        let world = World { clock: clock.clone(), chance: Arc::new(SeededChance::from_seed(2)) };
        let mut asked = SmsBatch { batch_id: BATCH, ..SmsBatch::new("list", "Hello", "main") };
        let account = |name: &str| {
            let mut account: Account = crate::roles::config::AccountConfig::default().account(name);
            (account.provider_type, account.answer_timeout) = (name.into(), ANSWER_TIMEOUT);
            account
        };
        let (mut main, mut other) = (account("main"), account("other"));
        change(&mut asked, &mut main, &mut other);
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let desk = |account: &Account| {
            let manner: Mutex<Manner> = Mutex::new(Box::new(|submit| (Duration::from_millis(20), taken(submit))));
            let (name, long) = (account.name.clone(), account.capabilities.long_message);
            Arc::new(Desk { name, long, clock: clock.clone(), up: AtomicBool::new(true), manner, got: got.clone() })
        };
        let desks = [desk(&main), desk(&other)];
        let routes = [main, other].into_iter().zip(&desks).map(|(account, desk)| {
            let provider: Arc<dyn Provider> = desk.clone();
            (account.name.clone(), Route { account, provider })
        });
        let routes: Routes = Arc::new(routes.collect());
        let accounts = routes.iter().map(|(name, route)| (name.clone(), route.account.clone())).collect();
        let select = Arc::new(Selection(stores.clone(), accounts));
        let service = SmsBatchService::new(stores.clone(), world.clone(), Arc::new(Notify::new()), select);
        let pace = Arc::new(Pace { left: AtomicU32::new(u32::MAX / 2), ..Pace::default() });
        let bed =
            Bed { clock: set, store, stores, world, declares, packs, documents, batches, pace, service, desks, routes, got };
        bed.batch(asked, lanes).await;
        bed
    }

    /// One more batch that is being delivered.
    pub async fn batch(&self, asked: SmsBatch, lanes: &[u32]) {
        let (batch, text) = (asked.batch_id, asked.content.clone());
        let mut row = BatchRow::created(asked, String::new(), START);
        (row.current_step, row.delivery.state, row.task_number) = (CurrentStep::Delivery, StepState::Running, 1);
        // The last of them hold nobody.
        (row.lanes, row.sealed) = ((lanes.len() as u16).next_power_of_two(), Some(SealedPlan::default()));
        row.records = lanes.iter().map(|people| u64::from(*people)).sum();
        let mut first = 0;
        for (lane, people) in lanes.iter().enumerate() {
            let key = LaneKey { batch, lane: lane as u8 };
            let message = |seq: u32| Message {
                number: Msisdn(number(seq)),
                record: u64::from(seq),
                line: u64::from(seq) + 2,
                body: text.clone(),
                link: None,
                segments: 1,
                ucs2: false,
            };
            let (mut in_lane, mut of) = (vec![], vec![]);
            for (n, from) in (0..*people).step_by(1_000).enumerate() {
                let count = 1_000.min(people - from);
                of.push(ManifestPack { range: 0, attempt: 1, n: n as u32, first_seq: from, count });
                let messages = (first + from..first + from + count).map(message).collect();
                in_lane.push((PackKey { lane: key, range: 0, attempt: 1, n: n as u32 }, SmsDeliveryPack { messages }));
            }
            first += people;
            self.stores.packs.put(in_lane).await.expect("packs");
            self.stores.manifests.put(key, &Manifest { packs: of, ..Manifest::default() }).await.expect("a manifest");
            self.stores.ledgers.insert(key, &Ledger::sealed(*people), 1).await.expect("a ledger");
        }
        self.stores.batches.insert(batch, &row, 1).await.expect("a batch");
    }

    /// A worker without tokens.
    pub fn idle(&self, name: u64) -> Worker {
        let world = World { chance: Arc::new(SeededChance::from_seed(name)), ..self.world.clone() };
        let (tasks, stop, queue) = (Tasks::default(), CancellationToken::new(), Arc::new(FilledQueue::default()));
        let tallies = Arc::new(MemoryTallies::new());
        let (stores, routes) = (self.stores.clone(), self.routes.clone());
        let ctx = Delivery::new(WorkerId(name), stores, world, routes, self.pace.clone(), tallies, tasks.clone());
        let running = tokio::spawn(super::run(ctx.clone(), queue.clone(), stop.clone(), Duration::from_secs(90)));
        Worker { queue, ctx, tasks, stop, running, offset: AtomicU32::new(0) }
    }

    /// A worker that is given all tokens of the batch.
    pub async fn worker(&self, name: u64) -> Worker {
        let worker = self.idle(name);
        self.give_all(&worker).await;
        worker
    }

    /// The tokens of the batch's newest dispatch arrive at a worker.
    pub async fn give_all(&self, worker: &Worker) {
        let row = self.row().await;
        for (key, ledger) in self.stores.ledgers.list(BATCH).await.expect("listed") {
            for (partition, token) in tokens_of(row.task_code(), key, &ledger.row) {
                worker.give(partition, token);
            }
        }
    }

    /// What becomes of the next declare.
    pub fn next_declare(&self, fate: Fate) {
        self.declares.fates.lock().unwrap().push_back(fate);
    }

    /// How accounts answer from now on.
    pub fn answers(&self, manner: impl FnMut(&Submit) -> (Duration, Answer) + Send + Clone + 'static) {
        for desk in &self.desks {
            *desk.manner.lock().unwrap() = Box::new(manner.clone());
        }
    }

    /// Accounts take everything, and answer so long after it.
    pub fn answers_after(&self, after: Duration) {
        self.answers(move |submit| (after, taken(submit)));
    }

    /// Accounts take everything and answer nothing for an hour.
    pub fn keeps_silent(&self) {
        self.answers_after(Duration::from_secs(3_600));
    }

    /// Whether the batch's account has a session.
    pub fn is_up(&self, up: bool) {
        self.desks[0].up.store(up, Ordering::Relaxed);
    }

    /// Only so many segments more are allowed.
    pub fn allows(&self, segments: u32) {
        self.pace.left.store(segments, Ordering::Relaxed);
    }

    /// What the accounts took so far.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// How often each number was taken.
    pub fn times(&self) -> BTreeMap<u64, u32> {
        let mut times = BTreeMap::new();
        for got in self.got() {
            *times.entry(got.submit.number.0).or_default() += 1;
        }
        times
    }

    /// Checks that the people of these places were taken once each, and nobody else.
    #[track_caller]
    pub fn once_each(&self, seqs: std::ops::Range<u32>) {
        let wanted: BTreeMap<u64, u32> = seqs.map(|seq| (number(seq), 1)).collect();
        let times = self.times();
        let wrong: Vec<_> = times.iter().filter(|(number, times)| wanted.get(*number) != Some(*times)).collect();
        assert!(wrong.is_empty(), "taken by mistake, or again: {wrong:?}");
        assert_eq!(times.len(), wanted.len(), "somebody was not sent to");
    }

    pub async fn row(&self) -> BatchRow {
        self.stores.batches.load(BATCH).await.expect("read").expect("there").row
    }

    pub async fn ledger(&self) -> Ledger {
        self.stores.ledgers.load(LANE).await.expect("read").expect("there").row
    }

    /// Changes the batch's row alone, as a leader does that dies behind it.
    pub async fn change_row(&self, decide: impl Fn(&BatchRow) -> BatchRow + Send + Sync) {
        let changed = change(&*self.stores.batches, BATCH, &*self.world.chance, |row| Ok::<_, ()>(decide(&row.row)));
        changed.await.expect("stored").expect("not refused");
    }

    /// Waits until a lane's ledger is as it is wanted.
    pub async fn until_lane(&self, lane: u8, what: &str, wanted: impl Fn(&Ledger) -> bool) -> Ledger {
        let begun = tokio::time::Instant::now();
        loop {
            let key = LaneKey { batch: BATCH, lane };
            let ledger = self.stores.ledgers.load(key).await.expect("read").expect("there").row;
            if wanted(&ledger) {
                return ledger;
            }
            assert!(begun.elapsed() < PATIENCE, "it never happened: {what}; {ledger:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the one lane is as it is wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Ledger) -> bool) -> Ledger {
        self.until_lane(0, what, wanted).await
    }

    /// Waits until the one lane has nothing left.
    pub async fn until_done(&self) -> Ledger {
        self.until("the lane is done", Ledger::is_done).await
    }

    /// The answers of the one lane's windows, as they are stored.
    pub async fn windows(&self) -> Vec<WindowRow> {
        self.windows_of(0).await
    }

    /// The answers of a lane's windows, as they are stored.
    pub async fn windows_of(&self, lane: u8) -> Vec<WindowRow> {
        let windows = self.stores.windows.list(LaneKey { lane, ..LANE }, 0, 1_000).await.expect("listed");
        windows.into_iter().filter_map(|window| window.row).collect()
    }

    /// How many people were judged.
    pub async fn judged(&self) -> usize {
        let windows = self.stores.windows.list(LANE, 0, 1_000).await.expect("listed");
        windows.into_iter().filter_map(|window| window.judgement).map(|judgement| judgement.unanswered.len()).sum()
    }

    /// The recount, as if the batch's step had ended now.
    pub async fn recount(&self) -> Settlement {
        let mut row = self.row().await;
        row.delivery.state = StepState::CompletedSucceeded;
        let accounts = self.routes.iter().map(|(name, route)| (name.clone(), route.account.clone())).collect();
        crate::statistics::recount(&self.stores, &row, &accounts, self.world.clock.now()).await.expect("counted")
    }
}
