//! A store, an account and a pace that do what a test wants.

// A poisoned lock means that a test has failed already.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::account::LongMessage;
use crate::model::answer::{Answer, NotNow};
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, WorkerId};
use crate::model::ledger::Ledger;
use crate::model::pack::{PackHead, PackKey, SmsDeliveryPack};
use crate::model::text::encode;
use crate::model::window::Answered;
use crate::ports::StoreError;
use crate::ports::batches::{BatchRows, Ledgers};
use crate::ports::clock::Clock;
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::documents::{Document, Documents, Shelf};
use crate::ports::packs::Packs;
use crate::ports::provider::{Chunk, Health, Provider, Submit};
use crate::ports::rates::{Grant, RateView, Rates};

/// What becomes of one declare.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is stored at once, and the answer takes this long.
    AnsweredLate(Duration),
    /// It takes this long to be stored, or refused.
    StoredLate(Duration),
    /// It is not answered, and arrives at the store only after this long.
    Unanswered(Duration),
    /// It is stored and not answered, and another worker claims the lane before anybody can look.
    Overtaken,
    /// It is refused: the disk is full.
    Full,
}

/// How long a ledger takes to be read or changed: others go on meanwhile.
const STORE_TAKES: Duration = Duration::from_millis(1);

/// Ledgers whose next declares meet their fates in order, then go well.
pub struct Declares {
    pub inner: Arc<dyn Ledgers>,
    pub fates: Mutex<VecDeque<Fate>>,
    /// What came of declares that arrived after they were given up.
    pub late: Arc<Mutex<Vec<Cas>>>,
}

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for Declares {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        tokio::time::sleep(STORE_TAKES).await;
        self.inner.load(key).await
    }

    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.inner.insert(key, row, nonce).await
    }

    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        tokio::time::sleep(STORE_TAKES).await;
        let declares = row.open.last().is_some_and(|window| window.window == expected + 1);
        let fate = if declares { self.fates.lock().unwrap().pop_front() } else { None };
        match fate {
            None => self.inner.replace(key, expected, row, nonce).await,
            Some(Fate::AnsweredLate(time)) => {
                let answer = self.inner.replace(key, expected, row, nonce).await;
                tokio::time::sleep(time).await;
                answer
            }
            Some(Fate::StoredLate(time)) => {
                tokio::time::sleep(time).await;
                self.inner.replace(key, expected, row, nonce).await
            }
            Some(Fate::Full) => Err(StoreError::Full("on purpose".into())),
            Some(Fate::Overtaken) => {
                assert_eq!(self.inner.replace(key, expected, row, nonce).await, Ok(Cas::Applied));
                let claimed = row.claim(WorkerId(99), row.task_number).expect("it is open");
                assert_eq!(self.inner.replace(key, expected + 1, &claimed, !nonce).await, Ok(Cas::Applied));
                Err(StoreError::Unknown("no answer".into()))
            }
            Some(Fate::Unanswered(time)) => {
                let (inner, row, late) = (self.inner.clone(), row.clone(), self.late.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let came = inner.replace(key, expected, &row, nonce).await.expect("the store is in memory");
                    late.lock().unwrap().push(came);
                });
                Err(StoreError::Unknown("no answer".into()))
            }
        }
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.inner.list(batch).await
    }
}

/// Batches that count how often they are read, and do not answer while a test says so.
pub struct Rows {
    pub inner: Arc<dyn BatchRows>,
    pub times: AtomicU32,
    pub is_away: AtomicBool,
}

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for Rows {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        self.times.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(STORE_TAKES).await;
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("on purpose".into()));
        }
        self.inner.load(key).await
    }

    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.inner.insert(key, row, nonce).await
    }

    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.inner.replace(key, expected, row, nonce).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        self.inner.list(batch).await
    }
}

/// Packs that take their time, one of which may be damaged.
pub struct SlowPacks {
    pub inner: Arc<dyn Packs>,
    pub time: Mutex<Duration>,
    /// The number of the damaged one.
    pub damaged: Mutex<Option<u32>>,
}

#[async_trait::async_trait]
impl Packs for SlowPacks {
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        self.inner.put(packs).await
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        self.inner.head(key).await
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        let time = *self.time.lock().unwrap();
        tokio::time::sleep(time).await;
        if *self.damaged.lock().unwrap() == Some(key.n) {
            return Err(StoreError::Corrupt("on purpose".into()));
        }
        self.inner.get(key).await
    }
}

/// Documents that count how often they are asked for, and do not answer while a test says so.
pub struct Asked {
    pub inner: Arc<dyn Documents>,
    pub times: AtomicU32,
    pub is_away: AtomicBool,
}

#[async_trait::async_trait]
impl Documents for Asked {
    async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError> {
        self.times.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(STORE_TAKES).await;
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("on purpose".into()));
        }
        self.inner.get(shelf, name).await
    }

    async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError> {
        self.inner.insert(shelf, name, body).await
    }

    async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError> {
        self.inner.replace(shelf, name, expected, body).await
    }

    async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError> {
        self.inner.put(shelf, name, body).await
    }

    async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError> {
        self.inner.delete(shelf, name).await
    }

    async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        self.inner.list(shelf, prefix, behind, limit).await
    }
}

/// How an account answers one message: after how long, and what.
pub type Manner = Box<dyn FnMut(&Submit) -> (Duration, Answer) + Send>;

/// One message that an account took.
#[derive(Clone, Debug)]
pub struct Got {
    pub account: String,
    pub submit: Submit,
    pub batch: BatchId,
    pub at: Duration,
}

/// An account: takes what comes in time, and answers in the manner that a test gave it.
pub struct Desk {
    pub name: String,
    pub long: LongMessage,
    pub clock: Arc<dyn Clock>,
    pub up: AtomicBool,
    pub manner: Mutex<Manner>,
    pub got: Arc<Mutex<Vec<Got>>>,
}

/// Taken, under the number for an id.
pub fn taken(submit: &Submit) -> Answer {
    Answer::Accepted { id: submit.number.0.to_string().into() }
}

/// "Not now".
pub fn not_now(kind: NotNow) -> Answer {
    Answer::NotNow { kind, detail: "".into() }
}

impl Desk {
    /// A part of a message of several is noted as what it would be if it had been asked for alone.
    fn take_part(
        &self,
        message: &Submit,
        (part, parts): (u8, u8),
        stop: &CancellationToken,
        answers: mpsc::UnboundedSender<Vec<Answered>>,
    ) {
        let seq = message.seq;
        // It does not look at the chunk's limit: that nothing comes late is for whoever hands over to see to.
        let (after, answer) = if stop.is_cancelled() {
            (Duration::ZERO, Answer::NotSent)
        } else {
            let batch = message.key.split('-').next().and_then(|batch| batch.parse().ok()).expect("our own key");
            let submit = Submit { parts: if parts == 1 { 0 } else { 1 << part }, ..message.clone() };
            let answer = (self.manner.lock().unwrap())(&submit);
            self.got.lock().unwrap().push(Got { account: self.name.clone(), submit, batch, at: self.clock.boot() });
            answer
        };
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            // Whoever handed it over may be dead.
            let _ = answers.send(vec![Answered { seq, part, parts, answer }]);
        });
    }
}

#[async_trait::async_trait]
impl Provider for Desk {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        for message in chunk.messages {
            let parts = encode(&message.text, self.long).parts.len() as u8;
            for part in (0..parts).filter(|part| message.parts == 0 || message.parts & 1 << part != 0) {
                self.take_part(&message, (part, parts), &chunk.stop, chunk.answers.clone());
            }
        }
        Ok(())
    }

    fn health(&self) -> Health {
        Health { up: self.up.load(Ordering::Relaxed), ..Health::default() }
    }

    fn window(&self) -> u32 {
        1_000
    }

    async fn close(&self, _: Duration) {}
}

/// A governor that allows 500 a second, and hands out what a test lets it.
#[derive(Default)]
pub struct Pace {
    pub left: AtomicU32,
    /// How long it takes an answer to need.
    pub answer_time: Mutex<Duration>,
}

impl Rates for Pace {
    fn take(&self, _: &str, want: u32, _: Duration) -> Grant {
        let some = |left: u32| (left > 0).then(|| left - left.min(want));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, some) {
            Ok(left) => Grant::Take(left.min(want)),
            Err(_) => Grant::Wait(Duration::from_millis(50)),
        }
    }

    fn give_back(&self, _: &str, segments: u32) {
        self.left.fetch_add(segments, Ordering::Relaxed);
    }

    fn answered(&self, _: &str, _: u32, _: u32, _: Duration) {}

    fn set_ceiling(&self, _: &str, _: Option<u32>, _: Duration) {}

    fn view(&self, _: &str) -> RateView {
        let answer_time = *self.answer_time.lock().unwrap();
        RateView { rate: 500.0, answer_time, ceiling: None, throttled: 0, sharers: 1 }
    }
}
