//! Reports and their recipients over a store in memory: ids that many share, reports that come too early, too late, twice, in
//! pieces, and on two processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Intake;
use super::matching::{Known, find, only_uncertain};
use super::parking::{first_parked, look_again};
use super::tests::Nobody;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::system::SeededChance;
use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey, WindowKey, WorkerId};
use crate::model::ledger::OpenWindow;
use crate::model::receipt::{Delivery, Report, Rung, delivery};
use crate::model::time::Timestamp;
use crate::model::window::WindowRow;
use crate::ports::batches::BatchRows;
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::provider::{Reports, Route};
use crate::ports::receipts::{IndexEntry, MatchedReport, ParkedReport, PartKey, Receipts, UncertainEntry};
use crate::ports::tallies::{Tallies, Tally};
use crate::ports::{StoreError, Stores, World};

const START: Timestamp = Timestamp(1_700_000_000_000);
const WAIT: Duration = Duration::from_secs(3_600);

fn part(batch: u128, seq: u32, part: u8) -> PartKey {
    PartKey { recipient: RecipientKey { lane: LaneKey { batch: BatchId(batch), lane: 0 }, seq }, part }
}

fn report(id: &str, number: u64, raw: &str) -> Report {
    Report {
        message_id: id.into(),
        number: Some(Msisdn(number)),
        reference: None,
        rung: Rung::Delivered,
        done: None,
        error: String::new(),
        raw: raw.into(),
        received: START,
    }
}

fn account(name: &str) -> Account {
    let mut account = crate::roles::config::AccountConfig::default().account(name);
    account.receipts.wait = WAIT;
    account
}

/// Receipts that are far away: what is read is answered late, and what is recorded arrives late.
struct Late {
    inner: Arc<dyn Receipts>,
    by: Duration,
    /// Records that are on their way from any process, and how many there were at once.
    on_its_way: Arc<(AtomicU32, AtomicU32)>,
}

#[async_trait::async_trait]
impl Receipts for Late {
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        let (now, most) = &*self.on_its_way;
        most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        tokio::time::sleep(self.by).await;
        now.fetch_sub(1, Ordering::Relaxed);
        self.inner.record(reports).await
    }

    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError> {
        let read = self.inner.list(lane, from_seq, limit).await;
        tokio::time::sleep(self.by).await;
        read
    }
}

struct Bed {
    stores: Stores,
    world: World,
}

impl Bed {
    fn new() -> Bed {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let world = World { clock: Arc::new(SimClock::new(START)), chance: Arc::new(SeededChance::from_seed(2)) };
        Bed { stores, world }
    }

    /// The intake of one process.
    fn intake(&self) -> (Arc<Intake>, Arc<MemoryTallies>) {
        self.intake_over(self.stores.clone())
    }

    fn intake_over(&self, stores: Stores) -> (Arc<Intake>, Arc<MemoryTallies>) {
        let routes = BTreeMap::from([("main".to_owned(), Route { account: account("main"), provider: Arc::new(Nobody) })]);
        let tallies = Arc::new(MemoryTallies::new());
        (Intake::new(stores, self.world.clone(), Arc::new(routes), tallies.clone(), None), tallies)
    }

    /// A window is answered: these ids are in the index from now on.
    async fn answered(&self, window: u64, entries: &[(&str, u64, PartKey)]) {
        let lane = entries[0].2.recipient.lane;
        let open = OpenWindow {
            window,
            leg: 0,
            from: 0,
            to: 1,
            account: "main".into(),
            declarer: WorkerId(1),
            declared_at: START,
            send_by: START,
        };
        let entry = |(id, number, part): &(&str, u64, PartKey)| IndexEntry {
            account: "main".into(),
            message_id: (*id).into(),
            number: Msisdn(*number),
            part: *part,
        };
        let row = WindowRow { window: open, answers: vec![], complete: true };
        self.stores.windows.put(WindowKey { lane, window }, &row, entries.iter().map(entry).collect()).await.expect("stored");
    }

    async fn find(&self, report: &Report) -> Option<PartKey> {
        let found = find(&self.stores, &Known::default(), Duration::ZERO, &account("main"), &[report]).await;
        found.expect("looked up")[0].map(|(part, _)| part)
    }
}

async fn take_in(intake: &Intake, reports: Vec<Report>) -> bool {
    let (ack, acknowledged) = oneshot::channel();
    intake.take_in(vec![Reports { account: "main".into(), reports, inbound: vec![], ack }]).await;
    acknowledged.await.unwrap_or(false)
}

#[tokio::test]
async fn one_id_for_a_hundred_numbers_and_an_id_that_comes_again_lose_nobody() {
    let bed = Bed::new();
    // A provider that gives one id to a whole request.
    let shared: Vec<(&str, u64, PartKey)> = (0..100).map(|seq| ("shared", 1_000 + u64::from(seq), part(1, seq, 0))).collect();
    bed.answered(1, &shared).await;
    for seq in 0..100 {
        assert_eq!(bed.find(&report("shared", 1_000 + u64::from(seq), "")).await, Some(part(1, seq, 0)));
    }
    // And one that begins its ids again after a restart: the same id, and even the same number.
    bed.answered(2, &[("shared", 1_007, part(2, 50, 0))]).await;
    assert_eq!(bed.find(&report("shared", 1_007, "")).await, Some(part(2, 50, 0)), "the newest");
    assert_eq!(bed.find(&report("shared", 1_008, "")).await, Some(part(1, 8, 0)));
    assert_eq!(bed.find(&report("shared", 9_999, "")).await, None);
}

#[tokio::test]
async fn a_report_settles_the_one_uncertain_recipient_that_it_fits_or_nobody() {
    let bed = Bed::new();
    let uncertain = |account: &str, number: u64, part, declared_at| UncertainEntry {
        account: account.into(),
        number: Msisdn(number),
        part,
        declared_at,
    };
    let entries = vec![
        uncertain("main", 1, part(1, 1, 0), START),
        uncertain("main", 2, part(1, 2, 0), START),
        uncertain("main", 2, part(2, 9, 0), START),
        uncertain("other", 3, part(1, 3, 0), START),
        uncertain("main", 4, part(1, 4, 0), START.plus(Duration::from_secs(120))),
        uncertain("main", 5, part(1, 5, 0), START.minus(WAIT + Duration::from_secs(120))),
        // Two parts of one message, and an old entry beside a new one.
        uncertain("main", 6, part(1, 6, 0), START),
        uncertain("main", 6, part(1, 6, 1), START),
        uncertain("main", 7, part(1, 7, 0), START),
        uncertain("main", 7, part(3, 7, 0), START.minus(WAIT + Duration::from_secs(120))),
    ];
    bed.stores.receipt_index.put_uncertain(entries).await.expect("stored");
    let fits = [(1, Some(1)), (2, None), (3, None), (4, None), (5, None), (6, Some(6)), (7, Some(7)), (8, None)];
    for (number, seq) in fits {
        let found = only_uncertain(&bed.stores, &account("main"), &report("?", number, "")).await.expect("looked up");
        assert_eq!(
            found.map(|(part, _)| (part.recipient.lane.batch, part.recipient.seq)),
            seq.map(|seq| (BatchId(1), seq)),
            "{number}"
        );
    }
}

#[tokio::test]
async fn a_later_report_of_a_message_whose_answer_never_came_finds_whom_the_first_one_found() {
    let bed = Bed::new();
    let (intake, _) = bed.intake();
    let account = account("main");
    let uncertain = |part, declared_at| UncertainEntry { account: "main".into(), number: Msisdn(1), part, declared_at };
    bed.stores.receipt_index.put_uncertain(vec![uncertain(part(1, 3, 0), START)]).await.expect("stored");
    let on_its_way = Report { rung: Rung::EnRoute, ..report("F1", 1, "on its way") };
    let found = only_uncertain(&bed.stores, &account, &on_its_way).await.expect("looked up").expect("the only one");
    let told = MatchedReport { part: found.0, account: "main".into(), report: on_its_way };
    intake.record(vec![told]).await.expect("recorded");
    // Long after receipts are waited for, and when somebody with that number is in doubt in another batch too.
    let late = Report { received: START.plus(WAIT * 3), ..report("F1", 1, "arrived") };
    let other = Report { message_id: "F2".into(), ..late.clone() };
    for again in [None, Some(uncertain(part(2, 8, 0), START.plus(WAIT * 3)))] {
        let is_again = again.is_some();
        bed.stores.receipt_index.put_uncertain(again.into_iter().collect()).await.expect("stored");
        assert_eq!(only_uncertain(&bed.stores, &account, &late).await, Ok(Some(found)), "{is_again}");
        let found = only_uncertain(&bed.stores, &account, &other).await.expect("looked up");
        assert_eq!(found.map(|(part, _)| part.recipient.seq), is_again.then_some(8), "another id is another message");
    }
}

#[tokio::test]
async fn two_reports_of_one_message_that_are_looked_for_together_find_the_same_recipient() {
    let bed = Bed::new();
    let (intake, _) = bed.intake();
    // Both wait for long; the second one came when receipts are not waited for any more, and is looked for first.
    let late = START.plus(WAIT * 3);
    let on_its_way = Report { rung: Rung::EnRoute, ..report("F1", 1, "on its way") };
    let arrived = Report { received: late, ..report("F1", 1, "arrived") };
    let now = intake.world.clock.now();
    let parked = |report: &Report, due| ParkedReport { looks: 9, due: Some(due), ..first_parked("main", report, now) };
    let all = vec![parked(&on_its_way, now), parked(&arrived, now.minus(Duration::from_secs(1)))];
    bed.stores.parked.park(all).await.expect("parked");
    let uncertain = UncertainEntry { account: "main".into(), number: Msisdn(1), part: part(1, 3, 0), declared_at: START };
    bed.stores.receipt_index.put_uncertain(vec![uncertain]).await.expect("stored");

    look_again(&intake).await.expect("looked over");
    assert_eq!(bed.stores.parked.counts().await, Ok((0, 0)));
    let kept = bed.stores.receipts.list(part(1, 3, 0).recipient.lane, 3, 1).await.expect("listed");
    assert_eq!(kept.iter().map(|kept| kept.report.rung).collect::<Vec<_>>(), [Rung::EnRoute, Rung::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn a_report_before_its_answer_waits_in_a_row_of_its_own_and_finds_it() {
    let bed = Bed::new();
    let (intake, tallies) = bed.intake();
    assert!(take_in(&intake, vec![report("early", 1, "raw")]).await, "it is acknowledged: it is durable");
    assert_eq!(bed.stores.parked.counts().await, Ok((1, 0)));
    // The answer's index entry is written right behind the look that missed it: another look comes by itself.
    bed.answered(1, &[("early", 1, part(1, 0, 0))]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    look_again(&intake).await.expect("looked over");
    assert_eq!(bed.stores.parked.counts().await, Ok((0, 0)));
    assert_eq!(tallies.read(BatchId(1), Tally::DeliveredReceipts), 1);
    let kept = bed.stores.receipts.list(part(1, 0, 0).recipient.lane, 0, 10).await.expect("listed");
    assert_eq!(kept.iter().map(|matched| matched.part).collect::<Vec<_>>(), [part(1, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn reports_of_one_message_on_two_processes_count_each_once() {
    let bed = Bed::new();
    let on_its_way = Arc::new((AtomicU32::default(), AtomicU32::default()));
    let far = |by| {
        let late = Late { inner: bed.stores.receipts.clone(), by: Duration::from_millis(by), on_its_way: on_its_way.clone() };
        bed.intake_over(Stores { receipts: Arc::new(late), ..bed.stores.clone() })
    };
    let ((one, counted), (other, counted_too)) = (far(10), far(15));
    let at_once = || on_its_way.1.swap(0, Ordering::Relaxed);
    let ids = ["a", "b", "c"];
    let entries: Vec<(&str, u64, PartKey)> = ids.iter().enumerate().map(|(n, id)| (*id, 1, part(1, 0, n as u8))).collect();
    bed.answered(1, &entries).await;
    let some = |ids: &[&str]| ids.iter().map(|id| report(id, 1, id)).collect::<Vec<_>>();
    // Each gets the last part that the other one does not have, while two of three are there to be read.
    assert!(take_in(&one, some(&["a"])).await);
    let (a, b) = tokio::join!(take_in(&one, some(&["b"])), take_in(&other, some(&["c"])));
    assert!(a && b);
    assert_eq!(at_once(), 2, "each was recorded while the other was on its way");
    // Both get all of them, in other orders and more than once, as after a lost acknowledgement.
    let (a, b) = tokio::join!(take_in(&one, some(&ids)), take_in(&other, some(&["c", "b", "a"])));
    assert!(a && b && take_in(&other, some(&ids)).await);
    // Of another message of three parts all come to both at once, and none is there before.
    let more = ["d", "e", "f"];
    let entries: Vec<(&str, u64, PartKey)> = more.iter().enumerate().map(|(n, id)| (*id, 2, part(1, 1, n as u8))).collect();
    bed.answered(2, &entries).await;
    let all = || more.map(|id| report(id, 2, id)).to_vec();
    at_once();
    let (a, b) = tokio::join!(take_in(&one, all()), take_in(&other, all().into_iter().rev().collect()));
    assert!(a && b);
    assert_eq!(at_once(), 2, "neither had heard of the other's");
    let total = counted.read(BatchId(1), Tally::DeliveredReceipts) + counted_too.read(BatchId(1), Tally::DeliveredReceipts);
    assert_eq!(total, 6);
    for seq in [0, 1] {
        let kept = bed.stores.receipts.list(part(1, seq, 0).recipient.lane, seq, 1).await.expect("listed");
        let rungs: Vec<(u8, Rung)> = kept.iter().map(|matched| (matched.part.part, matched.report.rung)).collect();
        assert_eq!(rungs, [0, 1, 2].map(|part| (part, Rung::Delivered)), "a cell for each part");
        assert_eq!(delivery(3, &rungs, false, false, false), Delivery::Delivered);
    }
}

#[tokio::test]
async fn a_receipt_with_a_national_number_finds_its_recipient_and_names_the_whole_one() {
    let bed = Bed::new();
    let mut account = account("main");
    account.opt_out.country_code = "86".into();
    let (home, abroad) = (8_613_800_138_000, 4_915_112_345_678);
    let entries = [
        ("77", home, part(1, 0, 0)),
        ("78", abroad, part(1, 1, 0)),
        ("79", home, part(1, 2, 0)),
        ("79", 13_800_138_000, part(1, 3, 0)),
    ];
    bed.answered(1, &entries).await;
    for (id, number, expected) in [
        ("77", 13_800_138_000, Some((part(1, 0, 0), home))),
        ("77", home, Some((part(1, 0, 0), home))),
        ("78", abroad, Some((part(1, 1, 0), abroad))),
        ("79", 13_800_138_000, Some((part(1, 3, 0), 13_800_138_000))),
        ("77", 13_900_138_000, None),
    ] {
        let report = report(id, number, "");
        let found = find(&bed.stores, &Known::default(), Duration::ZERO, &account, &[&report]).await.expect("looked up");
        assert_eq!(found, [expected.map(|(part, number)| (part, Some(Msisdn(number))))], "{id}, {number}");
    }
    let uncertain = UncertainEntry { account: "main".into(), number: Msisdn(home), part: part(1, 8, 0), declared_at: START };
    bed.stores.receipt_index.put_uncertain(vec![uncertain]).await.expect("stored");
    let found = only_uncertain(&bed.stores, &account, &report("?", 13_800_138_000, "")).await.expect("looked up");
    assert_eq!(found.map(|(part, number)| (part.recipient.seq, number)), Some((8, Some(Msisdn(home)))));
}

/// A store in which one recipient's receipts and one batch's row are damaged.
struct Damaged {
    receipts: Arc<dyn Receipts>,
    batches: Arc<dyn BatchRows>,
}

const DAMAGED_SEQ: u32 = 3;
const DAMAGED_BATCH: BatchId = BatchId(5);

fn damaged<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("on purpose".into()))
}

#[async_trait::async_trait]
impl Receipts for Damaged {
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        self.receipts.record(reports).await
    }
    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError> {
        if from_seq == DAMAGED_SEQ { damaged() } else { self.receipts.list(lane, from_seq, limit).await }
    }
}

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for Damaged {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        if key == DAMAGED_BATCH { damaged() } else { self.batches.load(key).await }
    }
    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.batches.insert(key, row, nonce).await
    }
    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.batches.replace(key, expected, row, nonce).await
    }
    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        self.batches.list(batch).await
    }
}

#[tokio::test]
async fn a_damaged_row_keeps_no_report_from_its_recipient_but_its_own() {
    let mut bed = Bed::new();
    let worn = Arc::new(Damaged { receipts: bed.stores.receipts.clone(), batches: bed.stores.batches.clone() });
    (bed.stores.receipts, bed.stores.batches) = (worn.clone(), worn);
    let (intake, _) = bed.intake();
    bed.answered(1, &[("77", 1, part(1, 0, 0))]).await;
    let about_damaged = Report { reference: Some(format!("{DAMAGED_BATCH}-0-0-0")), ..report("", 9, "damaged") };
    assert!(take_in(&intake, vec![about_damaged, report("77", 1, "good")]).await, "all of them are taken in");
    assert_eq!(bed.stores.parked.counts().await, Ok((1, 0)));
    let kept = bed.stores.receipts.list(part(1, 0, 0).recipient.lane, 0, 1).await.expect("listed");
    assert_eq!(kept.len(), 1);

    let now = intake.world.clock.now();
    let parked = |number| ParkedReport { looks: 9, due: Some(now), ..first_parked("main", &report("F1", number, ""), now) };
    bed.stores.parked.park(vec![parked(2), parked(3)]).await.expect("parked");
    let uncertain = |number: u64, seq| UncertainEntry {
        account: "main".into(),
        number: Msisdn(number),
        part: part(1, seq, 0),
        declared_at: START,
    };
    let entries = vec![uncertain(2, DAMAGED_SEQ), uncertain(3, DAMAGED_SEQ + 1)];
    bed.stores.receipt_index.put_uncertain(entries).await.expect("stored");
    look_again(&intake).await.expect("looked over");
    let kept = bed.stores.receipts.list(part(1, 0, 0).recipient.lane, DAMAGED_SEQ + 1, 1).await.expect("listed");
    assert_eq!(kept.len(), 1);
    assert_eq!(bed.stores.parked.counts().await, Ok((1, 0)), "only the one of the damaged batch waits");
}
