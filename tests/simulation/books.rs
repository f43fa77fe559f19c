//! What kept each process waiting, and when. The oracle excuses nobody for longer than that: a worker that lives, is not frozen and
//! waits for nobody has done what it had to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::model::id::{BatchId, LaneKey, Msisdn, WindowKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Judgement, RetryPack, WindowRow};
use smsfleet::ports::clock::Clock;
use smsfleet::ports::control::{Cas, ControlRows, Versioned};
use smsfleet::ports::receipts::{IndexEntry, PartKey, ReceiptIndex, UncertainEntry};
use smsfleet::ports::windows::{StoredWindow, Windows};
use smsfleet::ports::{StoreError, Stores};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A window's answers are written down.
    Answers(WindowKey),
    /// Who is in doubt is written down, of a lane.
    Doubts(LaneKey),
    /// Messages of a lane are handed over.
    HandOver(LaneKey),
    /// A lane's ledger is read or changed.
    Ledger(LaneKey),
}

/// How long after a call that failed the next may be waited for: the longest pause of the schedules of `src/deliver`, and some more.
const PAUSE: Duration = Duration::from_millis(2_500);

/// From when until when something was waited for.
pub type Span = (Timestamp, Timestamp);

/// The waits of one process.
pub struct Books {
    clock: Arc<dyn Clock>,
    spans: Mutex<BTreeMap<Place, Vec<Span>>>,
}

impl Books {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Books> {
        Arc::new(Books { clock, spans: Mutex::default() })
    }

    /// When something was waited for; what still is has no end.
    pub fn spans(&self, place: Place) -> Vec<Span> {
        self.spans.lock().expect("not poisoned").get(&place).cloned().unwrap_or_default()
    }

    /// From here on something is waited for, until what is given back is dropped.
    pub fn wait(self: &Arc<Books>, place: Place) -> Waiting {
        let mut all = self.spans.lock().expect("not poisoned");
        let spans = all.entry(place).or_default();
        spans.push((self.clock.now(), Timestamp(i64::MAX)));
        Waiting { books: self.clone(), place, at: spans.len() - 1, is_well: false }
    }

    /// A store whose calls are noted, where they decide when answers are durable and when a window begins.
    pub fn stores(self: &Arc<Books>, inner: Stores) -> Stores {
        let ledgers: Arc<dyn ControlRows<LaneKey, Ledger>> = inner.ledgers.clone();
        Stores {
            ledgers: Arc::new(NotedLedgers(ledgers, self.clone())),
            windows: Arc::new(NotedWindows(inner.windows.clone(), self.clone())),
            receipt_index: Arc::new(NotedIndex(inner.receipt_index.clone(), self.clone())),
            ..inner
        }
    }
}

/// Something that is waited for.
pub struct Waiting {
    books: Arc<Books>,
    place: Place,
    at: usize,
    is_well: bool,
}

impl Waiting {
    /// Waits for a call.
    async fn on<T>(mut self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = call.await;
        self.is_well = answer.is_ok();
        answer
    }

    /// It went well: there is no pause behind it.
    pub fn end_well(mut self) {
        self.is_well = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.books.clock.now();
        let until = if self.is_well { now } else { now.plus(PAUSE) };
        let mut all = self.books.spans.lock().expect("not poisoned");
        if let Some(span) = all.get_mut(&self.place).and_then(|spans| spans.get_mut(self.at)) {
            span.1 = until;
        }
    }
}

/// How much of the time between two instants lies in none of these spans.
pub fn outside(mut spans: Vec<Span>, from: Timestamp, to: Timestamp) -> Duration {
    spans.sort_unstable();
    let (mut free, mut at) = (Duration::ZERO, from);
    for (begin, end) in spans {
        free += begin.min(to).since(at);
        at = at.max(end);
    }
    free + to.since(at)
}

struct NotedLedgers(Arc<dyn ControlRows<LaneKey, Ledger>>, Arc<Books>);

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for NotedLedgers {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.1.wait(Place::Ledger(key)).on(self.0.load(key)).await
    }

    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.0.insert(key, row, nonce).await
    }

    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.1.wait(Place::Ledger(key)).on(self.0.replace(key, expected, row, nonce)).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.0.list(batch).await
    }
}

struct NotedWindows(Arc<dyn Windows>, Arc<Books>);

#[async_trait::async_trait]
impl Windows for NotedWindows {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        self.1.wait(Place::Answers(key)).on(self.0.put(key, row, index)).await
    }

    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError> {
        self.0.put_judgement(key, judgement).await
    }

    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        self.0.get(key).await
    }

    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        self.0.list(lane, from, limit).await
    }

    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError> {
        self.0.put_retry(lane, name, pack).await
    }

    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        self.0.retry(lane, name).await
    }
}

struct NotedIndex(Arc<dyn ReceiptIndex>, Arc<Books>);

#[async_trait::async_trait]
impl ReceiptIndex for NotedIndex {
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        self.0.find(account, ids).await
    }

    async fn put_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError> {
        // They are of one lane.
        let Some(lane) = entries.first().map(|entry| entry.part.recipient.lane) else {
            return self.0.put_uncertain(entries).await;
        };
        self.1.wait(Place::Doubts(lane)).on(self.0.put_uncertain(entries)).await
    }

    async fn uncertain(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        self.0.uncertain(account, number).await
    }
}

#[test]
fn what_lies_in_no_span_is_free() {
    let (at, ms) = (Timestamp, Duration::from_millis);
    let spans = vec![(at(20), at(30)), (at(5), at(12)), (at(25), at(40)), (at(90), at(i64::MAX))];
    for (from, to, free) in [(0, 100, 63), (10, 22, 8), (21, 29, 0), (41, 95, 49), (95, 200, 0), (50, 40, 0), (0, 5, 5)] {
        assert_eq!(outside(spans.clone(), at(from), at(to)), ms(free), "{from}..{to}");
    }
    assert_eq!(outside(vec![], at(3), at(10)), ms(7));
}
