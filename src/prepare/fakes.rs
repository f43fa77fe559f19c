//! Small stand-ins for the ports, for the tests of this stage: they behave, and they can be made to misbehave.

// A poisoned lock means that a test has failed already.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tools::{Settings, Tools};
use crate::adapters::system::{SeededChance, SystemClock};
use crate::model::account::Capabilities;
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, LaneKey, Msisdn, RangeKey, TaskCode, WorkerId};
use crate::model::ledger::Ledger;
use crate::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::{RangePlan, RangeRow, Record, Reject, SourcePlan};
use crate::model::state::StepEvent;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::World;
use crate::ports::clock::Clock;
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::links::{LinkBlock, Links};
use crate::ports::packs::{Manifests, Packs, Rejects};
use crate::ports::source::{RangeReader, Source, SourceSpec};
use crate::ports::suppressions::Suppressions;
use crate::ports::tallies::{Tallies, Tally};

/// Makes every `every`-th call fail, in turn as unavailable, as unknown but applied, and as unknown and dropped.
#[derive(Default)]
pub struct Trouble {
    every: AtomicU64,
    calls: AtomicU64,
}

enum Fate {
    Fine,
    Refused(StoreError),
    AppliedUnanswered,
}

impl Trouble {
    pub fn every(&self, every: u64) {
        self.every.store(every, Ordering::Relaxed);
    }

    fn meet(&self) -> Fate {
        let (call, every) = (self.calls.fetch_add(1, Ordering::Relaxed), self.every.load(Ordering::Relaxed));
        if every == 0 || call % every != every - 1 {
            return Fate::Fine;
        }
        match call / every % 4 {
            0 => Fate::Refused(StoreError::Unavailable("fake".into())),
            1 => Fate::AppliedUnanswered,
            2 => Fate::Refused(StoreError::Full("fake".into())),
            _ => Fate::Refused(StoreError::Unknown("fake".into())),
        }
    }

    fn through<T>(&self, call: impl FnOnce() -> T) -> Result<T, StoreError> {
        match self.meet() {
            Fate::Fine => Ok(call()),
            Fate::Refused(error) => Err(error),
            Fate::AppliedUnanswered => {
                call();
                Err(StoreError::Unknown("fake".into()))
            }
        }
    }
}

/// A batch's name inside a key.
pub trait OfBatch {
    fn batch(&self) -> BatchId;
}
impl OfBatch for BatchId {
    fn batch(&self) -> BatchId {
        *self
    }
}
impl OfBatch for RangeKey {
    fn batch(&self) -> BatchId {
        self.batch
    }
}
impl OfBatch for LaneKey {
    fn batch(&self) -> BatchId {
        self.batch
    }
}

pub struct Rows<K, T> {
    pub rows: Mutex<BTreeMap<K, Versioned<T>>>,
    pub trouble: Arc<Trouble>,
}

#[async_trait::async_trait]
impl<K, T> ControlRows<K, T> for Rows<K, T>
where
    K: Send + Sync + Copy + Ord + OfBatch + 'static,
    T: Send + Sync + Clone + 'static,
{
    async fn load(&self, key: K) -> Result<Option<Versioned<T>>, StoreError> {
        tokio::task::yield_now().await;
        Ok(self.rows.lock().unwrap().get(&key).cloned())
    }

    async fn insert(&self, key: K, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        self.trouble.through(|| {
            let mut rows = self.rows.lock().unwrap();
            if rows.contains_key(&key) {
                return Cas::Refused;
            }
            rows.insert(key, Versioned { version: 1, nonce, row: row.clone() });
            Cas::Applied
        })
    }

    async fn replace(&self, key: K, expected: u64, row: &T, nonce: u64) -> Result<Cas, StoreError> {
        tokio::task::yield_now().await;
        self.trouble.through(|| {
            let mut rows = self.rows.lock().unwrap();
            match rows.get_mut(&key) {
                Some(stored) if stored.version == expected => {
                    *stored = Versioned { version: expected + 1, nonce, row: row.clone() };
                    Cas::Applied
                }
                _ => Cas::Refused,
            }
        })
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(K, Versioned<T>)>, StoreError> {
        let rows = self.rows.lock().unwrap();
        Ok(rows.iter().filter(|(key, _)| key.batch() == batch).map(|(key, row)| (*key, row.clone())).collect())
    }
}

/// All data rows.
#[derive(Default)]
pub struct Data {
    pub packs: Arc<Mutex<BTreeMap<PackKey, Arc<SmsDeliveryPack>>>>,
    /// How long packs are on their way, whether or not their sender still waits for the answer.
    pub late: Mutex<Duration>,
    pub rejects: Mutex<BTreeMap<(RangeKey, u32, u32), Vec<Reject>>>,
    pub manifests: Mutex<BTreeMap<LaneKey, Arc<Manifest>>>,
    pub suppressed: Mutex<BTreeSet<Msisdn>>,
    pub numbers: AtomicU64,
    pub prepared: AtomicU64,
    pub trouble: Arc<Trouble>,
}

#[async_trait::async_trait]
impl Packs for Data {
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        let (stored, trouble, late) = (self.packs.clone(), self.trouble.clone(), *self.late.lock().unwrap());
        let arriving = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3) + late).await;
            trouble.through(|| {
                let mut stored = stored.lock().unwrap();
                for (key, pack) in packs {
                    let pack = Arc::new(pack);
                    let before = stored.insert(key, Arc::clone(&pack));
                    assert!(before.is_none_or(|before| before == pack), "a pack was overwritten by another");
                }
            })
        });
        arriving.await.expect("no pack was overwritten")
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        Ok(self.packs.lock().unwrap().get(&key).map(|pack| pack.head()))
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        Ok(self.packs.lock().unwrap().get(&key).cloned())
    }
}

#[async_trait::async_trait]
impl Rejects for Data {
    async fn put(&self, range: RangeKey, attempt: u32, n: u32, rejects: Vec<Reject>) -> Result<(), StoreError> {
        self.trouble.through(|| {
            self.rejects.lock().unwrap().insert((range, attempt, n), rejects);
        })
    }

    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError> {
        Ok(self.rejects.lock().unwrap().get(&(range, attempt, n)).cloned().unwrap_or_default())
    }
}

#[async_trait::async_trait]
impl Manifests for Data {
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError> {
        self.trouble.through(|| {
            let mut manifests = self.manifests.lock().unwrap();
            if manifests.contains_key(&lane) {
                return Cas::Refused;
            }
            manifests.insert(lane, Arc::new(manifest.clone()));
            Cas::Applied
        })
    }

    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        Ok(self.manifests.lock().unwrap().get(&lane).cloned())
    }
}

#[async_trait::async_trait]
impl Suppressions for Data {
    async fn add(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        self.suppressed.lock().unwrap().extend(numbers);
        Ok(())
    }

    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        self.suppressed.lock().unwrap().retain(|number| !numbers.contains(number));
        Ok(())
    }

    async fn check(&self, numbers: &[Msisdn]) -> Result<Vec<bool>, StoreError> {
        let suppressed = self.suppressed.lock().unwrap();
        Ok(numbers.iter().map(|number| suppressed.contains(number)).collect())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.suppressed.lock().unwrap().len() as u64)
    }
}

#[async_trait::async_trait]
impl Links for Data {
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError> {
        Ok(LinkBlock { first: self.numbers.fetch_add(len, Ordering::Relaxed), len, batch })
    }

    async fn end(&self) -> Result<u64, StoreError> {
        Ok(self.numbers.load(Ordering::Relaxed))
    }

    async fn block_of(&self, _: u64) -> Result<Option<LinkBlock>, StoreError> {
        Ok(None)
    }

    async fn key(&self) -> Result<[u8; 16], StoreError> {
        Ok([7; 16])
    }
}

impl Tallies for Data {
    fn add(&self, _: BatchId, _: Tally, n: u64) {
        self.prepared.fetch_add(n, Ordering::Relaxed);
    }
    fn read(&self, _: BatchId, _: Tally) -> u64 {
        self.prepared.load(Ordering::Relaxed)
    }
    fn clear(&self, _: BatchId) {}
    fn running(&self) -> (u64, u64) {
        (0, 0)
    }
    fn set_running(&self, _: u64, _: u64) {}
}

/// A list in memory. Reading can be slow, hang, or fail for a while.
#[derive(Default)]
pub struct List {
    pub records: Vec<Record>,
    /// What whoever opens it from now on reads instead.
    pub changed: Mutex<Option<Vec<Record>>>,
    /// Simulated time that each chunk takes.
    pub slow: Mutex<Duration>,
    /// Faults of the next reads.
    pub faults: Mutex<VecDeque<Fault>>,
    pub opened: AtomicU64,
}

struct Reader {
    list: Arc<List>,
    records: Vec<Record>,
    next: usize,
    end: usize,
}

pub struct ListSource(pub Arc<List>);

#[async_trait::async_trait]
impl Source for ListSource {
    async fn plan(&self, _: &SourceSpec, _: u32) -> Result<SourcePlan, Fault> {
        Err(Fault::new(Code::Internal, "not planned here"))
    }

    async fn open(&self, _: &SourceSpec, _: &SourcePlan, range: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let next = range.first_record as usize;
        let records = self.0.changed.lock().unwrap().clone().unwrap_or_else(|| self.0.records.clone());
        Ok(Box::new(Reader { list: Arc::clone(&self.0), records, next, end: next + range.records as usize }))
    }
}

#[async_trait::async_trait]
impl RangeReader for Reader {
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        let slow = *self.list.slow.lock().unwrap();
        tokio::time::sleep(slow).await;
        if let Some(fault) = self.list.faults.lock().unwrap().pop_front() {
            return Err(fault);
        }
        let end = (self.next + limit).min(self.end).min(self.records.len());
        let records = self.records[self.next..end].to_vec();
        self.next = end;
        Ok(records)
    }
}

/// The wall clock of a paused runtime.
pub struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.elapsed().as_millis() as i64)
    }
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }
    fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16> {
        SystemClock.minute_of_day(zone, at)
    }
}

/// A batch that is being prepared, and everything around it.
pub struct Bed {
    pub batches: Arc<Rows<BatchId, BatchRow>>,
    pub ranges: Arc<Rows<RangeKey, RangeRow>>,
    pub ledgers: Arc<Rows<LaneKey, Ledger>>,
    pub data: Arc<Data>,
    pub list: Arc<List>,
    pub trouble: Arc<Trouble>,
    clock: Arc<PausedClock>,
}

pub const COLUMNS: [&str; 2] = ["phone", "name"];

/// A record of the test list.
pub fn record(record: u64, phone: &str, name: &str) -> Record {
    Record { record, line: record + 2, fields: Ok(vec![phone.to_owned(), name.to_owned()]) }
}

impl Bed {
    /// A batch over `records` in ranges of `range_records`, running, with `lanes` lanes.
    pub fn new(batch: SmsBatch, records: Vec<Record>, range_records: usize, lanes: u16) -> Bed {
        let trouble = Arc::new(Trouble::default());
        let now = Timestamp(0);
        let created = BatchRow::created(batch, String::new(), now);
        let mut row = created.command(Command::EntryProcess, now).and_then(|row| row.after(StepEvent::Start, None, now)).unwrap();
        row.columns = COLUMNS.map(str::to_owned).to_vec();
        row.records = records.len() as u64;
        row.lanes = lanes;
        let mut ranges = BTreeMap::new();
        for (range, records) in records.chunks(range_records).enumerate() {
            let key = RangeKey { batch: row.batch.batch_id, range: range as u32 };
            let first_record = (range * range_records) as u64;
            let plan = RangePlan { first_record, records: records.len() as u64, ..RangePlan::default() };
            ranges.insert(key, Versioned { version: 1, nonce: 0, row: RangeRow::planned(plan) });
        }
        row.ranges = ranges.len() as u32;
        let id = row.batch.batch_id;
        let batches = BTreeMap::from([(id, Versioned { version: 1, nonce: 0, row })]);
        Bed {
            batches: Arc::new(Rows { rows: Mutex::new(batches), trouble: Arc::clone(&trouble) }),
            ranges: Arc::new(Rows { rows: Mutex::new(ranges), trouble: Arc::clone(&trouble) }),
            ledgers: Arc::new(Rows { rows: Mutex::default(), trouble: Arc::clone(&trouble) }),
            data: Arc::new(Data { trouble: Arc::clone(&trouble), ..Data::default() }),
            list: Arc::new(List { records, ..List::default() }),
            trouble,
            clock: Arc::new(PausedClock(tokio::time::Instant::now())),
        }
    }

    /// The tools of one worker.
    pub fn tools(&self, worker: u64) -> Arc<Tools> {
        let data = &self.data;
        Arc::new(Tools {
            batches: self.batches.clone(),
            ranges: self.ranges.clone(),
            ledgers: self.ledgers.clone(),
            packs: data.clone(),
            rejects: data.clone(),
            manifests: data.clone(),
            suppressions: data.clone(),
            links: data.clone(),
            tallies: data.clone(),
            source: Arc::new(ListSource(self.list.clone())),
            world: World { clock: self.clock.clone(), chance: Arc::new(SeededChance::from_seed(worker)) },
            accounts: Arc::new(|name| (name == "smpp").then(Capabilities::default)),
            worker: WorkerId(worker),
            settings: Settings { tasks: 2, dead_after: Duration::from_secs(10) },
        })
    }

    pub fn task_code(&self) -> TaskCode {
        self.batch().task_code()
    }

    pub fn batch(&self) -> BatchRow {
        self.batches.rows.lock().unwrap().values().next().unwrap().row.clone()
    }

    /// Changes the batch as the leader or an operator would.
    pub fn change_batch(&self, change: impl Fn(&BatchRow) -> BatchRow) {
        for row in self.batches.rows.lock().unwrap().values_mut() {
            row.row = change(&row.row);
            row.version += 1;
        }
    }

    pub fn range(&self, range: u32) -> RangeRow {
        self.ranges.rows.lock().unwrap()[&RangeKey { batch: self.task_code().batch, range }].row.clone()
    }
}
