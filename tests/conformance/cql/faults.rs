//! Conditional writes whose answers get lost: applied once, whatever happened on the way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::scylla::{CqlStore, ScyllaConfig};
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::id::{BatchId, LaneKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::ports::StoreError;
use smsfleet::ports::batches::Ledgers;
use smsfleet::ports::control::{Cas, ControlRows, Versioned};
use smsfleet::runtime::control::{change, create};

use super::proxy::{Proxy, Way};
use crate::conformance::fixture::{Keyspace, lane};

/// A process with its own way to the server.
struct Process {
    keyspace: Keyspace,
    proxy: Proxy,
    store: Arc<CqlStore>,
}

async fn process() -> Process {
    let keyspace = Keyspace::empty().await;
    let proxy = Proxy::before(keyspace.config.nodes[0].clone()).await;
    let config = ScyllaConfig {
        nodes: vec![proxy.address.clone()],
        // Long for a server that is busy with other tests, short for one whose answer is lost.
        request_timeout: Duration::from_secs(4),
        ..keyspace.config.clone()
    };
    let store = keyspace.connect_by(&config).await;
    // Every statement is prepared before anything gets lost, so that it is the write itself that does.
    let ledgers = store.stores().ledgers;
    let key = lane(999, 0);
    ledgers.insert(key, &Ledger::sealed(1), 1).await.expect("it is created");
    ledgers.replace(key, 1, &Ledger::sealed(1), 1).await.expect("it is replaced");
    ledgers.load(key).await.expect("it is read");
    Process { keyspace, proxy, store }
}

/// Ledgers whose next conditional writes meet what was ordered, one after another.
struct Lossy<'a> {
    process: &'a Process,
    inner: Arc<dyn Ledgers>,
    orders: Mutex<VecDeque<Way>>,
    writes: AtomicU32,
}

impl<'a> Lossy<'a> {
    fn new(process: &'a Process, orders: &[Way]) -> Lossy<'a> {
        let orders = Mutex::new(orders.iter().copied().collect());
        Lossy { process, inner: process.store.stores().ledgers, orders, writes: AtomicU32::new(0) }
    }

    async fn meeting<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let order = self.orders.lock().expect("orders").pop_front();
        self.process.proxy.set(order.unwrap_or(Way::Open));
        let answer = write.await;
        self.process.proxy.set(Way::Open);
        if let Some(order) = order {
            assert!(matches!(answer, Err(StoreError::Unknown(_))), "{order:?} was answered");
        }
        answer
    }
}

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for Lossy<'_> {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.inner.load(key).await
    }

    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.meeting(self.inner.insert(key, row, nonce)).await
    }

    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.meeting(self.inner.replace(key, expected, row, nonce)).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.inner.list(batch).await
    }
}

async fn raise(rows: &Lossy<'_>, key: LaneKey) -> Result<Versioned<Ledger>, StoreError> {
    let chance = SeededChance::from_system();
    let raised = change(rows, key, &chance, |row| Ok::<_, ()>(Ledger { fences: row.row.fences + 1, ..row.row.clone() })).await;
    raised.map(|row| row.expect("nothing refuses"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_answer_is_lost_is_made_once() {
    let process = process().await;
    let key = lane(1, 0);
    process.store.stores().ledgers.insert(key, &Ledger::sealed(5), 1).await.expect("it is created");
    // Which way each write meets, and how many writes it then takes until the change is known to be made.
    let cases: [(&[Way], u32); 6] = [
        (&[], 1),
        (&[Way::AnswersCut], 1),
        (&[Way::AnswersLost], 1),
        (&[Way::RequestsCut], 2),
        (&[Way::RequestsLost], 2),
        (&[Way::RequestsCut, Way::RequestsLost, Way::AnswersCut], 3),
    ];
    for (at, (orders, writes)) in cases.into_iter().enumerate() {
        let lossy = Lossy::new(&process, orders);
        let raised = raise(&lossy, key).await.expect("it is made");
        assert_eq!((raised.version, raised.row.fences), (at as u64 + 2, at as u32 + 1), "{orders:?}");
        assert_eq!(lossy.writes.load(Ordering::Relaxed), writes, "{orders:?}");
        // As another process sees it.
        let seen = process.keyspace.connect().await.stores().ledgers.load(key).await.expect("it is read");
        assert_eq!(seen, Some(raised), "{orders:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_creation_was_not_answered_is_its_creators() {
    let process = process().await;
    let chance = SeededChance::from_system();
    for (at, order) in [Way::AnswersCut, Way::RequestsCut].into_iter().enumerate() {
        let lossy = Lossy::new(&process, &[order]);
        let key = lane(2, at as u8);
        assert_eq!(create(&lossy, key, &chance, &Ledger::sealed(7)).await, Ok(Cas::Applied), "{order:?}");
        assert_eq!(create(&lossy, key, &chance, &Ledger::sealed(8)).await, Ok(Cas::Refused));
        assert_eq!(lossy.load(key).await.expect("it is read").map(|row| row.row.len), Some(7));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_write_on_an_old_version_changes_nothing() {
    let process = process().await;
    let (key, other) = (lane(3, 0), process.keyspace.connect().await.stores().ledgers);
    let mine = process.store.stores().ledgers;
    mine.insert(key, &Ledger::sealed(1), 1).await.expect("it is created");
    process.proxy.set(Way::RequestsHeld);
    let late = mine.replace(key, 1, &Ledger::sealed(66), 66).await;
    assert!(matches!(late, Err(StoreError::Unknown(_))), "{late:?}");
    assert_eq!(other.replace(key, 1, &Ledger::sealed(2), 2).await, Ok(Cas::Applied), "nothing was applied so far");
    // Now it arrives, and so does what was asked behind it on the same connection.
    process.proxy.set(Way::Open);
    let seen = mine.load(key).await.expect("it is read").expect("it is there");
    assert_eq!((seen.version, seen.nonce, seen.row.len), (2, 2, 2));
    assert_eq!(other.load(key).await.expect("it is read"), Some(seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_may_be_repeated_is_sent_again_over_a_new_connection() {
    let process = process().await;
    let meta = process.store.stores().meta;
    meta.put("a", "1").await.expect("it is stored");
    process.proxy.set(Way::AnswersCut);
    let broken = meta.put("a", "2").await;
    assert!(matches!(broken, Err(StoreError::Unknown(_))), "{broken:?}: the way stays broken for every try");
    process.proxy.set(Way::Open);
    // The driver makes a new connection by itself, after a while.
    let again = tokio::time::timeout(Duration::from_secs(30), async {
        while meta.put("a", "3").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    again.await.expect("it connects again");
    assert_eq!(meta.get("a").await, Ok(Some("3".into())));
}
