//! Letting go of the data of batches that are over: what may be asked of them afterwards, and by whom it is deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::sweeper::{Keep, Sweeper};
use crate::adapters::embedded::engine::Table;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::rows::key;
use crate::adapters::system::SeededChance;
use crate::batch::{RetryRequest, Select, SmsBatchService};
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::batch::{BatchRow, Command, SealedPlan, SmsBatch};
use crate::model::code::Code;
use crate::model::id::{BatchId, LaneKey, Msisdn, WindowKey, WorkerId};
use crate::model::ledger::{Ledger, OpenWindow};
use crate::model::let_go::{Going, LetGo};
use crate::model::order::{Named, RetryWhat};
use crate::model::outcome::Outcome;
use crate::model::pack::{Manifest, ManifestPack, Message, PackKey, SmsDeliveryPack};
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::model::window::{Answered, WindowRow};
use crate::ports::documents::Shelf;
use crate::ports::journal::{Direction, Entry, Journal, Place, STREAMS, Stream};
use crate::ports::retention::{Kind, Retention};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::job::Job;

const BATCH: BatchId = BatchId(7);
const LANE: LaneKey = LaneKey { batch: BATCH, lane: 0 };
const START: Timestamp = Timestamp(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// Names whom a retry sends as the fleet does.
struct Selection(Stores, BTreeMap<String, Account>);

#[async_trait::async_trait]
impl Select for Selection {
    async fn select(&self, row: &BatchRow, key: LaneKey, what: &RetryWhat, round: u8) -> Result<Vec<Named>, StoreError> {
        crate::statistics::select(&self.0, &self.1, &row.batch.provider_type, key, what, round).await
    }
}

/// Retention that writes down what it was asked for, and does something else before.
struct Asked {
    inner: Arc<dyn Retention>,
    asked: Mutex<Vec<(BatchId, Kind)>>,
}

impl Asked {
    fn times(&self) -> Vec<(BatchId, Kind)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait::async_trait]
impl Retention for Asked {
    async fn drop_batch(&self, batch: BatchId, kind: Kind) -> Result<(), StoreError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((batch, kind));
        self.inner.drop_batch(batch, kind).await
    }

    async fn drop_index_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.inner.drop_index_before(before).await
    }
}

struct Bed {
    store: MemoryStore,
    stores: Stores,
    world: World,
    asked: Arc<Asked>,
    service: SmsBatchService,
}

impl Bed {
    fn new() -> Bed {
        let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
        let stores = store.stores();
        let asked = Arc::new(Asked { inner: stores.retention.clone(), asked: Mutex::default() });
        let stores = Stores { retention: asked.clone(), ..stores };
        let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
        let account = crate::roles::config::AccountConfig::default().account("main");
        let named = Selection(stores.clone(), BTreeMap::from([("main".to_owned(), account)]));
        let service = SmsBatchService::new(stores.clone(), world.clone(), Arc::new(Notify::new()), Arc::new(named));
        Bed { store, stores, world, asked, service }
    }

    /// A batch of three that has ended and is settled: two were taken, the time of one had passed.
    async fn settled(&self, batch: BatchId) {
        let lane = LaneKey { batch, lane: 0 };
        let asked = SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") };
        let mut row = BatchRow::created(asked, String::new(), START);
        (row.current_step, row.delivery.state, row.delivery.ended) =
            (CurrentStep::Delivery, StepState::CompletedSucceeded, Some(START));
        (row.lanes, row.records, row.sealed, row.task_number) = (1, 3, Some(SealedPlan::default()), 1);
        let mut settlement = Settlement { records: 3, settled: true, ..Settlement::default() };
        settlement.count(Outcome::Accepted, 2);
        settlement.count(Outcome::Expired, 1);
        row.settlement = Some(settlement);
        let message = |seq: u64| Message {
            number: Msisdn(8_613_800_000_000 + seq),
            record: seq,
            line: seq + 2,
            body: "Hello".into(),
            link: None,
            segments: 1,
            ucs2: false,
        };
        let pack = PackKey { lane, range: 0, attempt: 1, n: 0 };
        let manifest =
            Manifest { packs: vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: 3 }], ..Manifest::default() };
        let ledger = Ledger { legs: vec![], closed: true, closed_number: 1, task_number: 1, ..Ledger::sealed(3) };
        let window = OpenWindow {
            window: 2,
            leg: 0,
            from: 0,
            to: 3,
            account: "main".into(),
            declarer: WorkerId(1),
            declared_at: START,
            send_by: START,
        };
        let answered = |seq, answer| Answered { seq, part: 0, parts: 1, answer };
        let taken = || Answer::Accepted { id: "1".into() };
        let answers = vec![answered(0, taken()), answered(1, taken()), answered(2, Answer::Expired)];
        let stores = &self.stores;
        stores.packs.put(vec![(pack, SmsDeliveryPack { messages: (0..3).map(message).collect() })]).await.expect("a pack");
        stores.manifests.put(lane, &manifest).await.expect("a manifest");
        stores.ledgers.insert(lane, &ledger, 1).await.expect("a ledger");
        let row_of = WindowRow { window, answers, complete: true };
        stores.windows.put(WindowKey { lane, window: 2 }, &row_of, vec![]).await.expect("a window");
        stores.batches.insert(batch, &row, 1).await.expect("a batch");
    }

    fn sweeper(&self, keep: Keep) -> Sweeper {
        Sweeper::new(self.stores.clone(), self.world.clone(), keep)
    }

    async fn row(&self, batch: BatchId) -> BatchRow {
        self.stores.batches.load(batch).await.expect("read").expect("there").row
    }

    /// Checks that nobody of the batch is sent again, and that it stands as it stood.
    async fn refuses_a_retry(&self, what: &str) {
        let before = self.row(BATCH).await;
        for whom in [RetryWhat::Unsent, RetryWhat::Failed] {
            let planned = self.service.plan_retry(BATCH, &whom, &[]).await.map(|plan| plan.recipients);
            assert_eq!(planned.map_err(|fault| fault.code), Err(Code::NotAllowed), "{what}: a plan for {whom:?}");
            let request = RetryRequest { what: whom, not_after: None };
            let ordered = self.service.retry(BATCH, &request, None, "order").await;
            let fault = ordered.map(|answer| answer.ordered).expect_err(what);
            assert_eq!(fault.code, Code::NotAllowed, "{what}");
            assert!(fault.context.contains("new batch"), "it says what to do: {}", fault.context);
        }
        let after = self.row(BATCH).await;
        assert_eq!(after, before, "{what}: it stands as it stood");
        assert_eq!(after.settlement.map(|settlement| settlement.of(Outcome::Accepted)), Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_past_is_there_can_be_retried() {
    let bed = Bed::new();
    bed.settled(BATCH).await;
    bed.sweeper(Keep::all(DAY)).run_once().await.expect("swept");
    let plan = bed.service.plan_retry(BATCH, &RetryWhat::Unsent, &[]).await.expect("a plan");
    assert_eq!(plan.recipients, 1, "those who were taken are not named");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_again_once_retention_has_let_go_of_a_part_of_the_batch() {
    let long = 90 * DAY;
    let cases = [
        ("texts", Keep { texts: DAY, ..Keep::all(long) }, (Going::Gone, Going::Kept)),
        ("history", Keep { history: DAY, ..Keep::all(long) }, (Going::Kept, Going::Gone)),
    ];
    for (what, keep, (texts, history)) in cases {
        let bed = Bed::new();
        bed.settled(BATCH).await;
        tokio::time::sleep(DAY).await;
        bed.sweeper(keep).run_once().await.expect("swept");
        let row = bed.row(BATCH).await;
        assert_eq!(row.let_go, LetGo { texts, history });
        assert!(row.can(Command::Retry).is_err(), "no list of commands offers it");
        bed.refuses_a_retry(what).await;
    }
}

/// As an earlier version let go of it, or as rows are lost.
#[tokio::test(start_paused = true)]
async fn nobody_is_sent_again_where_rows_are_missing_though_nobody_wrote_that_down() {
    for kind in [Kind::Texts, Kind::History] {
        let bed = Bed::new();
        bed.settled(BATCH).await;
        bed.stores.retention.drop_batch(BATCH, kind).await.expect("dropped");
        bed.refuses_a_retry(&format!("{kind:?}")).await;
        // Whatever comes as far as naming people names nobody either.
        let main = crate::roles::config::AccountConfig::default().account("main");
        let accounts = BTreeMap::from([("main".to_owned(), main)]);
        let named = crate::statistics::select(&bed.stores, &accounts, "main", LANE, &RetryWhat::Unsent, 1).await;
        assert!(matches!(named, Err(StoreError::Corrupt(_))), "{kind:?}: {named:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_retried_while_old_data_is_swept_keeps_all_of_it() {
    let bed = Bed::new();
    bed.settled(BATCH).await;
    // The page of batches is read, and the batch retried before its turn comes.
    let (listed, _) = bed.stores.batch_index.list(None, 10).await.expect("listed");
    tokio::time::sleep(DAY).await;
    let request = RetryRequest { what: RetryWhat::Unsent, not_after: None };
    let answer = bed.service.retry(BATCH, &request, None, "order").await.expect("ordered");
    assert_eq!(answer.ordered, Some(1));
    let sweeper = bed.sweeper(Keep::all(DAY));
    for listed in listed {
        sweeper.sweep_batch(listed, bed.world.clock.now()).await.expect("passed over");
    }
    assert_eq!((bed.asked.times(), bed.row(BATCH).await.let_go), (vec![], LetGo::default()));
    assert!(bed.stores.manifests.get(LANE).await.expect("read").is_some());
}

#[tokio::test(start_paused = true)]
async fn numbers_and_texts_go_first_then_what_happened_then_the_batch() {
    let bed = Bed::new();
    bed.settled(BATCH).await;
    let keep = Keep { texts: DAY, history: 2 * DAY, batch: 3 * DAY, ..Keep::all(90 * DAY) };
    let sweeper = bed.sweeper(keep);
    let pack = PackKey { lane: LANE, range: 0, attempt: 1, n: 0 };
    let left = async || {
        sweeper.run_once().await.expect("swept");
        let stores = &bed.stores;
        let texts = stores.packs.get(pack).await.expect("read").is_some();
        let history = !stores.windows.list(LANE, 0, 9).await.expect("read").is_empty();
        (texts, history, stores.batches.load(BATCH).await.expect("read").is_some())
    };
    let almost = DAY - Duration::from_secs(120);
    let days = [((true, true, true), (false, true, true)), ((false, true, true), (false, false, true))];
    for (before, after) in days.into_iter().chain([((false, false, true), (false, false, false))]) {
        tokio::time::sleep(almost).await;
        assert_eq!(left().await, before);
        tokio::time::sleep(DAY - almost).await;
        assert_eq!(left().await, after);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_as_a_whole_however_short_it_is_kept_itself() {
    let bed = Bed::new();
    bed.settled(BATCH).await;
    tokio::time::sleep(DAY).await;
    bed.sweeper(Keep { batch: DAY, ..Keep::all(90 * DAY) }).run_once().await.expect("swept");
    assert_eq!(bed.asked.times(), [(BATCH, Kind::Texts), (BATCH, Kind::History), (BATCH, Kind::Batch)]);
    assert!(bed.stores.batches.load(BATCH).await.expect("read").is_none());
    assert!(bed.stores.manifests.get(LANE).await.expect("read").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_lets_go_of_nothing_once_more() {
    let bed = Bed::new();
    bed.settled(BATCH).await;
    tokio::time::sleep(DAY).await;
    let keep = Keep { batch: 90 * DAY, ..Keep::all(DAY) };
    bed.sweeper(keep).run_once().await.expect("swept");
    assert_eq!(bed.asked.times(), [(BATCH, Kind::Texts), (BATCH, Kind::History)]);
    bed.sweeper(keep).run_once().await.expect("swept");
    assert_eq!(bed.asked.times().len(), 2, "it is written down that they are gone");
    tokio::time::sleep(90 * DAY).await;
    bed.sweeper(keep).run_once().await.expect("swept");
    assert_eq!(bed.asked.times()[2..], [(BATCH, Kind::Batch)]);
}

/// Journals of which one cannot be swept.
struct Stubborn(Arc<dyn Journal>);

#[async_trait::async_trait]
impl Journal for Stubborn {
    async fn append(&self, stream: Stream, entries: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        self.0.append(stream, entries).await
    }

    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError> {
        self.0.list(stream, within, behind, limit, direction).await
    }

    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError> {
        self.0.remove(stream, places).await
    }

    async fn drop_before(&self, stream: Stream, before: Timestamp) -> Result<(), StoreError> {
        if stream == STREAMS[0] {
            return Err(StoreError::Unavailable("it takes too long".into()));
        }
        self.0.drop_before(stream, before).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_swept_keeps_nothing_else() {
    let bed = Bed::new();
    let broken = BatchId(8);
    for batch in [BATCH, broken] {
        bed.settled(batch).await;
    }
    assert!(bed.store.engine().damage(Table::Batch, &key::batch(broken), |row| row.clear()));
    for stream in STREAMS {
        let place = Place { scope: "s/".into(), at: START, id: 1 };
        bed.stores.journal.append(stream, vec![Entry { place, body: "{}".into() }]).await.expect("it is stored");
    }
    let erased = |batch: BatchId| format!("{batch}-0-1");
    for batch in [BatchId(5), broken] {
        bed.stores.documents.put(Shelf::Erased, &erased(batch), "{}").await.expect("it is stored");
    }
    tokio::time::sleep(2 * DAY).await;
    let stores = Stores { journal: Arc::new(Stubborn(bed.stores.journal.clone())), ..bed.stores.clone() };
    let swept = Sweeper::new(stores, bed.world.clone(), Keep { batch: 90 * DAY, ..Keep::all(DAY) }).run_once().await;
    assert!(matches!(swept, Err(StoreError::Unavailable(_))), "it says that something was left: {swept:?}");
    assert_eq!(bed.asked.times(), [(BATCH, Kind::Texts), (BATCH, Kind::History)]);
    let mut left = vec![];
    for stream in STREAMS {
        left.push(bed.stores.journal.list(stream, "", None, 9, Direction::Forward).await.expect("it is read").len());
    }
    assert_eq!(left, [1, 0, 0, 0, 0]);
    let documents = bed.stores.documents.list(Shelf::Erased, "", None, 9).await.expect("they are read");
    assert_eq!(documents.into_iter().map(|document| document.name).collect::<Vec<_>>(), [erased(broken)]);
    let recovered = super::recover::recover(&bed.stores, &bed.world, &[], START).await.expect("it goes on");
    assert_eq!(recovered.batches, 1);
}
