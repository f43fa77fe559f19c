//! Ports that wait, fail, answer late and lie, as real servers do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::adapters::system::SeededChance;
use smsfleet::model::id::{BatchId, LaneKey, RangeKey, WindowKey};
use smsfleet::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use smsfleet::model::task::{PrepareTask, SmsBatchPartitionTask};
use smsfleet::model::trace::TraceParent;
use smsfleet::model::window::{Judgement, RetryPack, WindowRow};
use smsfleet::ports::batches::{BatchIndex, Listed};
use smsfleet::ports::clock::Chance;
use smsfleet::ports::control::{Cas, ControlRows, Versioned};
use smsfleet::ports::lease::Lease;
use smsfleet::ports::meta::Meta;
use smsfleet::ports::packs::{Manifests, Packs};
use smsfleet::ports::queue::{QueueError, TaskSender};
use smsfleet::ports::receipts::{IndexEntry, MatchedReport, Receipts};
use smsfleet::ports::windows::{StoredWindow, Windows};
use smsfleet::ports::{StoreError, Stores};
use tokio::sync::Notify;

/// How often a fault fired, over a whole run.
pub type Fired = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// What a process's ports are behind: nothing passes while it is shut. Whoever waits goes on in the order they came, which a
/// watch channel of tokio would leave to chance, and one seed would make many runs.
#[derive(Default)]
pub struct Gate {
    is_shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::Relaxed);
    }

    pub fn open(&self) {
        self.is_shut.store(false, Ordering::Relaxed);
        self.opened.notify_waiters();
    }

    async fn pass(&self) {
        while self.is_shut.load(Ordering::Relaxed) {
            self.opened.notified().await;
        }
    }
}

/// The troubles of one process: its own chance, its own gate.
#[derive(Clone)]
pub struct Trouble {
    chance: Arc<SeededChance>,
    /// Shut while the process is frozen.
    gate: Arc<Gate>,
    /// Troubles in a thousand calls; shared by all processes, so that everything can heal.
    pub per_mille: Arc<Mutex<u64>>,
    fired: Fired,
    /// True while the disk is full: data is refused, control rows are not.
    pub full: Arc<AtomicBool>,
}

enum Fate {
    Fine,
    Unavailable,
    /// No answer, and it never happened.
    Dropped,
    /// No answer, and it happened.
    Applied,
    /// No answer, and it happens later.
    Late(Duration),
    /// An answer, after long.
    Slow(Duration),
}

impl Trouble {
    pub fn new(seed: u64, gate: Arc<Gate>, per_mille: Arc<Mutex<u64>>, fired: Fired, full: Arc<AtomicBool>) -> Trouble {
        Trouble { chance: Arc::new(SeededChance::from_seed(seed)), gate, per_mille, fired, full }
    }

    /// Waits while the process is frozen.
    pub async fn gate(&self) {
        self.gate.pass().await;
    }

    /// A short wait, sometimes only a yield, and the gate.
    pub async fn wait(&self) {
        match self.chance.next() % 8 {
            0 => tokio::task::yield_now().await,
            1 => tokio::time::sleep(Duration::from_millis(self.chance.next() % 40)).await,
            _ => tokio::time::sleep(Duration::from_micros(self.chance.next() % 3_000)).await,
        }
        self.gate().await;
    }

    /// What becomes of a call that meets trouble so many times as often as others.
    fn fate(&self, times: u64) -> Fate {
        if !self.is_mixed(times) {
            return Fate::Fine;
        }
        let (fate, name) = match self.chance.next() % 6 {
            0 => (Fate::Unavailable, "store unavailable"),
            1 => (Fate::Slow(Duration::from_millis(500 + self.chance.next() % 12_000)), "store slow"),
            2 => (Fate::Dropped, "timed out, not applied"),
            3 => (Fate::Applied, "timed out, applied"),
            _ => (Fate::Late(Duration::from_millis(50 + self.chance.next() % 3_000)), "timed out, applied late"),
        };
        self.fire(name);
        fate
    }

    pub fn fire(&self, name: &'static str) {
        *self.fired.lock().expect("not poisoned").entry(name).or_default() += 1;
    }

    /// Whether this call meets trouble.
    fn is_mixed(&self, times: u64) -> bool {
        self.chance.next() % 1_000 < times * *self.per_mille.lock().expect("not poisoned")
    }

    /// One write with its fate. `call` may be called later than this returns.
    async fn write<T, F, Fut>(&self, times: u64, call: F) -> Result<T, StoreError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send,
        T: Send,
    {
        self.wait().await;
        let unknown = || Err(StoreError::Unknown("no answer".into()));
        match self.fate(times) {
            Fate::Fine => {
                let answer = call().await;
                self.wait().await;
                answer
            }
            Fate::Slow(takes) => {
                // Before it happens or after, as long as it takes in all.
                tokio::time::sleep(takes / 2).await;
                self.gate().await;
                let answer = call().await;
                tokio::time::sleep(takes / 2).await;
                self.gate().await;
                answer
            }
            Fate::Unavailable => Err(StoreError::Unavailable("not now".into())),
            Fate::Dropped => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                unknown()
            }
            Fate::Applied => {
                let _ = call().await;
                self.wait().await;
                unknown()
            }
            Fate::Late(after) => {
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = call().await;
                });
                tokio::time::sleep(Duration::from_millis(200)).await;
                unknown()
            }
        }
    }

    /// Whether there is room for data.
    fn room(&self) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) { Err(StoreError::Full("no room".into())) } else { Ok(()) }
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.wait().await;
        let takes = match self.fate(1) {
            Fate::Unavailable => return Err(StoreError::Unavailable("not now".into())),
            Fate::Slow(takes) => takes,
            Fate::Fine | Fate::Dropped | Fate::Applied | Fate::Late(_) => Duration::ZERO,
        };
        let answer = call.await;
        tokio::time::sleep(takes).await;
        self.gate().await;
        answer
    }

    /// A store as this process meets it.
    pub fn stores(&self, inner: &Stores) -> Stores {
        let batches: Arc<dyn ControlRows<BatchId, _>> = inner.batches.clone();
        let ranges: Arc<dyn ControlRows<RangeKey, _>> = inner.ranges.clone();
        let ledgers: Arc<dyn ControlRows<LaneKey, _>> = inner.ledgers.clone();
        Stores {
            batches: Arc::new(Rows { inner: batches, trouble: self.clone() }),
            ranges: Arc::new(Rows { inner: ranges, trouble: self.clone() }),
            ledgers: Arc::new(Rows { inner: ledgers, trouble: self.clone() }),
            packs: Arc::new(TroubledPacks(inner.packs.clone(), self.clone())),
            manifests: Arc::new(TroubledManifests(inner.manifests.clone(), self.clone())),
            windows: Arc::new(TroubledWindows(inner.windows.clone(), self.clone())),
            receipts: Arc::new(TroubledReceipts(inner.receipts.clone(), self.clone())),
            meta: Arc::new(TroubledMeta(inner.meta.clone(), self.clone())),
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
        let (inner, row) = (self.inner.clone(), row.clone());
        self.trouble.write(CONDITIONAL, move || async move { inner.replace(key, expected, &row, nonce).await }).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(K, Versioned<T>)>, StoreError> {
        self.trouble.read(self.inner.list(batch)).await
    }
}

struct TroubledMeta(Arc<dyn Meta>, Trouble);

#[async_trait::async_trait]
impl Meta for TroubledMeta {
    async fn raise_mark(&self) -> Result<u64, StoreError> {
        self.0.raise_mark().await
    }

    async fn check_mark(&self) -> Result<Result<(), String>, StoreError> {
        self.0.check_mark().await
    }

    async fn accept(&self) -> Result<(), StoreError> {
        self.0.accept().await
    }

    async fn get(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.1.read(self.0.get(name)).await
    }

    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.0.put(name, value).await
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

/// The way into the queue: tokens that come twice, come late, or are lost with or without an error.
pub struct TroubledSender(pub Arc<dyn TaskSender>, pub Trouble);

impl TroubledSender {
    async fn send<F, Fut>(&self, send: F) -> Result<(), QueueError>
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), QueueError>> + Send,
    {
        self.1.wait().await;
        if !self.1.is_mixed(1) {
            return send().await;
        }
        let draw = self.1.chance.next();
        let late = Duration::from_millis(draw >> 8 & 0x3fff);
        match draw % 4 {
            0 => {
                self.1.fire("token twice");
                send().await?;
                tokio::time::sleep(late / 8).await;
                send().await
            }
            1 => {
                self.1.fire("token late");
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = send().await;
                });
                Ok(())
            }
            2 => {
                self.1.fire("token sent, with an error");
                send().await?;
                Err(QueueError::Unavailable("no answer".into()))
            }
            _ => Err(QueueError::Unavailable("not now".into())),
        }
    }
}

#[async_trait::async_trait]
impl TaskSender for TroubledSender {
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let inner = self.0.clone();
        self.send(move || {
            let (inner, tasks) = (inner.clone(), tasks.clone());
            async move { inner.send_delivery(tasks, trace).await }
        })
        .await
    }

    async fn send_prepare(&self, tasks: Vec<PrepareTask>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let inner = self.0.clone();
        self.send(move || {
            let (inner, tasks) = (inner.clone(), tasks.clone());
            async move { inner.send_prepare(tasks, trace).await }
        })
        .await
    }
}

/// The leader's lock behind a network: away, or taken without the taker being told.
pub struct TroubledLease(pub Arc<dyn Lease>, pub Trouble);

#[async_trait::async_trait]
impl Lease for TroubledLease {
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError> {
        self.1.wait().await;
        let answer = self.0.acquire(name, token, ttl).await;
        self.1.wait().await;
        if self.1.is_mixed(1) {
            self.1.fire("lease without an answer");
            return Err(StoreError::Unknown("no answer".into()));
        }
        answer
    }

    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError> {
        self.1.wait().await;
        self.0.release(name, token).await
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
        self.1.room()?;
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

struct TroubledWindows(Arc<dyn Windows>, Trouble);

#[async_trait::async_trait]
impl Windows for TroubledWindows {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        let (inner, row) = (self.0.clone(), row.clone());
        // A data row has one writer whose later rows hold the earlier ones: an older write that lands late would lose
        // answers, and real stores order a writer's own writes by their time. So no late landing here.
        self.1.wait().await;
        match self.1.fate(1) {
            Fate::Fine | Fate::Late(_) => inner.put(key, &row, index).await,
            Fate::Slow(takes) => {
                tokio::time::sleep(takes).await;
                self.1.gate().await;
                inner.put(key, &row, index).await
            }
            Fate::Unavailable => Err(StoreError::Unavailable("not now".into())),
            Fate::Dropped => Err(StoreError::Unknown("no answer".into())),
            Fate::Applied => {
                let _ = inner.put(key, &row, index).await;
                Err(StoreError::Unknown("no answer".into()))
            }
        }
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
