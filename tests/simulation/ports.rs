//! The ports of a store as a process meets them: each call with its fate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use smsfleet::model::id::{BatchId, LaneKey, Msisdn, RangeKey, WindowKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use smsfleet::model::record::Reject;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Judgement, RetryPack, WindowRow};
use smsfleet::ports::batches::{BatchIndex, Listed};
use smsfleet::ports::control::{Cas, ControlRows, Versioned};
use smsfleet::ports::documents::{Document, Documents, Shelf};
use smsfleet::ports::journal::{Direction, Entry, Journal, Place, Stream};
use smsfleet::ports::meta::Meta;
use smsfleet::ports::packs::{Manifests, Packs, Rejects};
use smsfleet::ports::receipts::{
    IndexEntry, MatchedReport, Parked, ParkedReport, PartKey, ReceiptIndex, Receipts, UncertainEntry,
};
use smsfleet::ports::suppressions::Suppressions;
use smsfleet::ports::windows::{StoredWindow, Windows};
use smsfleet::ports::{StoreError, Stores};

use super::faults::Trouble;

/// How often the mark beside the store was raised, over all processes.
pub type Raised = Arc<AtomicU64>;

impl Trouble {
    /// A store as this process meets it.
    pub fn stores(&self, inner: &Stores, raised: &Raised) -> Stores {
        let batches: Arc<dyn ControlRows<BatchId, _>> = inner.batches.clone();
        let ranges: Arc<dyn ControlRows<RangeKey, _>> = inner.ranges.clone();
        let ledgers: Arc<dyn ControlRows<LaneKey, _>> = inner.ledgers.clone();
        Stores {
            batches: Arc::new(Rows { inner: batches, trouble: self.clone(), is_data: |_, _| false }),
            ranges: Arc::new(Rows { inner: ranges, trouble: self.clone(), is_data: |_, _| false }),
            ledgers: Arc::new(Rows { inner: ledgers, trouble: self.clone(), is_data: declares }),
            packs: Arc::new(TroubledPacks(inner.packs.clone(), self.clone())),
            rejects: Arc::new(TroubledRejects(inner.rejects.clone(), self.clone())),
            manifests: Arc::new(TroubledManifests(inner.manifests.clone(), self.clone())),
            windows: Arc::new(TroubledWindows(inner.windows.clone(), self.clone(), Puts::default())),
            receipts: Arc::new(TroubledReceipts(inner.receipts.clone(), self.clone())),
            receipt_index: Arc::new(TroubledIndex(inner.receipt_index.clone(), self.clone())),
            parked: Arc::new(TroubledParked(inner.parked.clone(), self.clone())),
            suppressions: Arc::new(TroubledSuppressions(inner.suppressions.clone(), self.clone())),
            documents: Arc::new(TroubledDocuments(inner.documents.clone(), self.clone())),
            journal: Arc::new(TroubledJournal(inner.journal.clone(), self.clone())),
            meta: Arc::new(TroubledMeta(inner.meta.clone(), self.clone(), raised.clone())),
            batch_index: Arc::new(StaleIndex {
                inner: inner.batch_index.clone(),
                trouble: self.clone(),
                before: Mutex::default(),
            }),
            ..inner.clone()
        }
    }
}

/// Conditional writes meet trouble so many times as often as others: there are few, and everything rests on them.
const CONDITIONAL: u64 = 3;

struct Rows<K, T> {
    inner: Arc<dyn ControlRows<K, T>>,
    trouble: Trouble,
    /// Whether a row that makes this version is refused while the disk is full.
    is_data: fn(&T, u64) -> bool,
}

/// Whether a ledger of this version declares a window: what follows from it could not be stored on a full disk.
fn declares(ledger: &Ledger, version: u64) -> bool {
    ledger.open.iter().any(|window| window.window == version)
}

#[async_trait::async_trait]
impl<K, T> ControlRows<K, T> for Rows<K, T>
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    async fn load(&self, key: K) -> Result<Option<Versioned<T>>, StoreError> {
        self.trouble.read(self.inner.load(key)).await
    }

    async fn insert(&self, key: K, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        let (inner, row) = (self.inner.clone(), row.clone());
        self.trouble.write(CONDITIONAL, move || async move { inner.insert(key, &row, nonce).await }).await
    }

    async fn replace(&self, key: K, expected: u64, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        if (self.is_data)(row, expected + 1) {
            self.trouble.takes_room("declare refused on a full disk")?;
        }
        let (inner, row) = (self.inner.clone(), row.clone());
        self.trouble.write(CONDITIONAL, move || async move { inner.replace(key, expected, &row, nonce).await }).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(K, Versioned<T>)>, StoreError> {
        self.trouble.read(self.inner.list(batch)).await
    }
}

struct TroubledMeta(Arc<dyn Meta>, Trouble, Raised);

#[async_trait::async_trait]
impl Meta for TroubledMeta {
    async fn raise_mark(&self) -> Result<u64, StoreError> {
        let (inner, raised) = (self.0.clone(), self.2.clone());
        let raising = move || async move {
            let mark = inner.raise_mark().await?;
            raised.fetch_add(1, Ordering::Relaxed);
            Ok(mark)
        };
        self.1.write(1, raising).await
    }

    async fn check_mark(&self) -> Result<Result<(), String>, StoreError> {
        self.1.read(self.0.check_mark()).await
    }

    async fn accept(&self) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.accept().await }).await
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.1.read(self.0.get(name)).await
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (inner, name, value) = (self.0.clone(), name.to_owned(), value.to_owned());
        self.1.write(1, move || async move { inner.put(&name, &value).await }).await
    }

    async fn room(&self) -> Result<(), StoreError> {
        self.1.room()
    }
}

/// The list of active batches, sometimes as it was when it was last asked for: a projection may lag behind the rows.
struct StaleIndex {
    inner: Arc<dyn BatchIndex>,
    trouble: Trouble,
    before: Mutex<Vec<BatchId>>,
}

#[async_trait::async_trait]
impl BatchIndex for StaleIndex {
    async fn active(&self) -> Result<Vec<BatchId>, StoreError> {
        let active = self.trouble.read(self.inner.active()).await?;
        let before = std::mem::replace(&mut *self.before.lock().expect("not poisoned"), active.clone());
        if before != active && self.trouble.is_mixed(1) {
            self.trouble.fire("stale read");
            return Ok(before);
        }
        Ok(active)
    }

    async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        self.trouble.read(self.inner.list(behind, limit)).await
    }
}

struct TroubledReceipts(Arc<dyn Receipts>, Trouble);

#[async_trait::async_trait]
impl Receipts for TroubledReceipts {
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.record(reports).await }).await
    }

    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError> {
        self.1.read(self.0.list(lane, from_seq, limit)).await
    }
}

struct TroubledPacks(Arc<dyn Packs>, Trouble);

#[async_trait::async_trait]
impl Packs for TroubledPacks {
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        self.1.takes_room("disk full")?;
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.put(packs).await }).await
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        self.1.read(self.0.head(key)).await
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        self.1.read(self.0.get(key)).await
    }
}

struct TroubledManifests(Arc<dyn Manifests>, Trouble);

#[async_trait::async_trait]
impl Manifests for TroubledManifests {
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError> {
        let (inner, manifest) = (self.0.clone(), manifest.clone());
        self.1.write(1, move || async move { inner.put(lane, &manifest).await }).await
    }

    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        self.1.read(self.0.get(lane)).await
    }
}

struct TroubledWindows(Arc<dyn Windows>, Trouble, Puts);

/// Which of a writer's rows of a window is there: a data row has one writer whose later rows hold the earlier ones, and real
/// stores order a writer's own rows by their time. One that lands late lands behind none that is newer.
#[derive(Clone, Default)]
struct Puts(Arc<Mutex<(u64, BTreeMap<WindowKey, u64>)>>);

impl Puts {
    fn next(&self) -> u64 {
        let mut puts = self.0.lock().expect("not poisoned");
        puts.0 += 1;
        puts.0
    }

    /// Whether a row is newer than what is there. From here on it is there.
    fn lands(&self, key: WindowKey, put: u64) -> bool {
        let mut puts = self.0.lock().expect("not poisoned");
        let there = puts.1.entry(key).or_default();
        let lands = put > *there;
        *there = put.max(*there);
        lands
    }
}

#[async_trait::async_trait]
impl Windows for TroubledWindows {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        let (inner, row, puts, put) = (self.0.clone(), row.clone(), self.2.clone(), self.2.next());
        let write = move || async move { if puts.lands(key, put) { inner.put(key, &row, index).await } else { Ok(()) } };
        self.1.write(1, write).await
    }

    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError> {
        let (inner, judgement) = (self.0.clone(), judgement.clone());
        self.1.write(1, move || async move { inner.put_judgement(key, &judgement).await }).await
    }

    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        self.1.read(self.0.get(key)).await
    }

    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        self.1.read(self.0.list(lane, from, limit)).await
    }

    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError> {
        let (inner, pack) = (self.0.clone(), pack.clone());
        self.1.write(1, move || async move { inner.put_retry(lane, name, &pack).await }).await
    }

    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        self.1.read(self.0.retry(lane, name)).await
    }
}

struct TroubledRejects(Arc<dyn Rejects>, Trouble);

#[async_trait::async_trait]
impl Rejects for TroubledRejects {
    async fn put(&self, range: RangeKey, attempt: u32, n: u32, rejects: Vec<Reject>) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.put(range, attempt, n, rejects).await }).await
    }

    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError> {
        self.1.read(self.0.get(range, attempt, n)).await
    }
}

struct TroubledIndex(Arc<dyn ReceiptIndex>, Trouble);

#[async_trait::async_trait]
impl ReceiptIndex for TroubledIndex {
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        self.1.read(self.0.find(account, ids)).await
    }

    async fn put_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.put_uncertain(entries).await }).await
    }

    async fn uncertain(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        self.1.read(self.0.uncertain(account, number)).await
    }
}

struct TroubledParked(Arc<dyn Parked>, Trouble);

#[async_trait::async_trait]
impl Parked for TroubledParked {
    async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.park(reports).await }).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        self.1.read(self.0.due(now, limit)).await
    }

    async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.remove(ids).await }).await
    }

    async fn counts(&self) -> Result<(u64, u64), StoreError> {
        self.1.read(self.0.counts()).await
    }

    async fn unmatched(&self, behind: Option<u64>, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        self.1.read(self.0.unmatched(behind, limit)).await
    }
}

struct TroubledSuppressions(Arc<dyn Suppressions>, Trouble);

#[async_trait::async_trait]
impl Suppressions for TroubledSuppressions {
    async fn add(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        let (inner, numbers) = (self.0.clone(), numbers.to_vec());
        self.1.write(1, move || async move { inner.add(&numbers).await }).await
    }

    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        let (inner, numbers) = (self.0.clone(), numbers.to_vec());
        self.1.write(1, move || async move { inner.remove(&numbers).await }).await
    }

    async fn check(&self, numbers: &[Msisdn]) -> Result<Vec<bool>, StoreError> {
        let suppressed = self.1.read(self.0.check(numbers)).await?;
        if suppressed.contains(&true) {
            self.1.fire("suppressed during the run");
        }
        Ok(suppressed)
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.1.read(self.0.count()).await
    }
}

struct TroubledDocuments(Arc<dyn Documents>, Trouble);

#[async_trait::async_trait]
impl Documents for TroubledDocuments {
    async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError> {
        self.1.read(self.0.get(shelf, name)).await
    }

    async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError> {
        let (inner, name, body) = (self.0.clone(), name.to_owned(), body.to_owned());
        self.1.write(1, move || async move { inner.insert(shelf, &name, &body).await }).await
    }

    async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError> {
        let (inner, name, expected, body) = (self.0.clone(), name.to_owned(), expected.to_owned(), body.to_owned());
        self.1.write(1, move || async move { inner.replace(shelf, &name, &expected, &body).await }).await
    }

    async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError> {
        let (inner, name, body) = (self.0.clone(), name.to_owned(), body.to_owned());
        self.1.write(1, move || async move { inner.put(shelf, &name, &body).await }).await
    }

    async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError> {
        let (inner, name) = (self.0.clone(), name.to_owned());
        self.1.write(1, move || async move { inner.delete(shelf, &name).await }).await
    }

    async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        self.1.read(self.0.list(shelf, prefix, behind, limit)).await
    }
}

struct TroubledJournal(Arc<dyn Journal>, Trouble);

#[async_trait::async_trait]
impl Journal for TroubledJournal {
    async fn append(&self, stream: Stream, entries: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.append(stream, entries).await }).await
    }

    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError> {
        self.1.read(self.0.list(stream, within, behind, limit, direction)).await
    }

    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.remove(stream, places).await }).await
    }

    async fn drop_before(&self, stream: Stream, before: Timestamp) -> Result<(), StoreError> {
        let inner = self.0.clone();
        self.1.write(1, move || async move { inner.drop_before(stream, before).await }).await
    }
}
