//! Who hears of a report, when, and how often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Intake;
use super::tests::Nobody;
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::system::SeededChance;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::limits::ERASURE_READING_MAX;
use crate::model::receipt::{Report, Rung};
use crate::model::time::Timestamp;
use crate::ports::documents::Shelf;
use crate::ports::provider::{Reports, Route};
use crate::ports::receipts::{MatchedReport, ReportListener};
use crate::ports::{StoreError, World};
use crate::runtime::erased;

#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<String>>,
    fails: AtomicBool,
}

#[async_trait::async_trait]
impl ReportListener for Listener {
    async fn inbound(&self, _: &[crate::ports::receipts::Heard]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn wanted(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn reports(&self, reports: &[MatchedReport]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("not now".into()));
        }
        self.heard.lock().expect("heard").extend(reports.iter().map(|matched| matched.report.raw.clone()));
        Ok(())
    }
}

const LANE: LaneKey = LaneKey { batch: BatchId(9), lane: 0 };

fn report(seq: u32, raw: &str) -> Report {
    Report {
        message_id: "m".into(),
        number: Some(Msisdn(8_613_900_000_001)),
        reference: Some(format!("{}-0-{seq}-0", BatchId(9))),
        rung: Rung::Delivered,
        done: None,
        error: String::new(),
        raw: raw.into(),
        received: Timestamp(5),
    }
}

fn intake(store: &MemoryStore, listener: Arc<Listener>) -> Arc<Intake> {
    let world = World { clock: Arc::new(SimClock::new(Timestamp(1))), chance: Arc::new(SeededChance::from_seed(2)) };
    let account = crate::roles::config::AccountConfig::default().account("main");
    let routes = Arc::new(BTreeMap::from([("main".to_owned(), Route { account, provider: Arc::new(Nobody) })]));
    Intake::new(store.stores(), world, routes, Arc::new(MemoryTallies::new()), Some(listener))
}

/// The batch that the reports are about.
async fn sent(store: &MemoryStore) {
    let mut row = BatchRow::created(crate::model::batch::tests::batch(), String::new(), Timestamp(1));
    (row.lanes, row.records, row.batch.provider_type) = (1, 10, "main".into());
    store.stores().batches.insert(LANE.batch, &row, 1).await.expect("it is stored");
}

async fn take(intake: &Intake, reports: Vec<Report>) -> bool {
    let (ack, acked) = oneshot::channel();
    intake.take_in(vec![Reports { account: "main".into(), reports, inbound: vec![], ack }]).await;
    acked.await.expect("it is answered")
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_of_each_report_once_and_before_it_is_acknowledged() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    sent(&store).await;
    let listener = Arc::new(Listener::default());
    let first = intake(&store, listener.clone());
    assert!(take(&first, vec![report(1, "a"), report(1, "a"), report(2, "b")]).await);
    assert!(take(&first, vec![report(1, "a")]).await, "a repeat is acknowledged");
    assert_eq!(*listener.heard.lock().expect("heard"), ["a", "b"]);
    // While the listener cannot take it in, it is neither recorded nor acknowledged: the provider sends it again.
    listener.fails.store(true, Ordering::Relaxed);
    assert!(!take(&first, vec![report(3, "c")]).await);
    assert_eq!(store.stores().receipts.list(LANE, 3, 9).await, Ok(vec![]));
    listener.fails.store(false, Ordering::Relaxed);
    // Another life finds what this one recorded.
    let second = intake(&store, listener.clone());
    assert!(take(&second, vec![report(3, "c"), report(2, "b")]).await);
    assert_eq!(*listener.heard.lock().expect("heard"), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn reports_about_erased_recipients_are_kept_without_naming_them() {
    let store = MemoryStore::new(Arc::new(SeededChance::from_seed(1)));
    sent(&store).await;
    let (stores, listener) = (store.stores(), Arc::new(Listener::default()));
    let intake = intake(&store, listener.clone());
    assert!(take(&intake, vec![report(1, "before")]).await);
    let name = erased::name_of(RecipientKey { lane: LANE, seq: 2 });
    stores.documents.put(Shelf::Erased, &name, "{}").await.expect("it is stored");
    erased::raise(&stores, "1").await.expect("it is stored");
    // As long as whoever erases waits for readings to be over.
    tokio::time::sleep(ERASURE_READING_MAX + Duration::from_millis(1)).await;
    assert!(take(&intake, vec![report(2, "to 8613900000001"), report(1, "after")]).await);
    let kept = stores.receipts.list(LANE, 2, 9).await.expect("they are read");
    assert_eq!(kept.len(), 1, "it counts");
    assert_eq!((kept[0].report.number, kept[0].report.raw.as_str()), (None, ""));
    assert_eq!(*listener.heard.lock().expect("heard"), ["before", "after"], "nobody is told of it");
}
