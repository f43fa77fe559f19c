//! A store for tests that is filled by hand: what the readers of this folder need, and no more. What it does not keep
//! answers that it is unavailable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, Msisdn, RangeKey, RecipientKey, WindowKey};
use crate::model::ledger::Ledger;
use crate::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::{RangeRow, Reject};
use crate::model::time::Timestamp;
use crate::model::window::{Judgement, RetryPack, WindowRow};
use crate::ports::StoreError;
use crate::ports::Stores;
use crate::ports::batches::{BatchIndex, Listed};
use crate::ports::control::{Cas, ControlRows, Versioned};
use crate::ports::documents::{Document, Documents, Shelf};
use crate::ports::erasure::{Erasure, FoundMessage, OfNumber};
use crate::ports::journal::{Direction, Entry, Journal, Place, Stream};
use crate::ports::links::{LinkBlock, Links};
use crate::ports::meta::Meta;
use crate::ports::packs::{Manifests, Packs, Rejects};
use crate::ports::receipts::{IndexEntry, MatchedReport, Parked, ParkedReport, PartKey, ReceiptIndex, Receipts, UncertainEntry};
use crate::ports::retention::{Kind, Retention};
use crate::ports::suppressions::Suppressions;
use crate::ports::windows::{StoredWindow, Windows};

/// What the tests put in.
#[derive(Default)]
pub(crate) struct Rows {
    pub batches: BTreeMap<BatchId, BatchRow>,
    pub ranges: BTreeMap<RangeKey, RangeRow>,
    pub ledgers: BTreeMap<LaneKey, Ledger>,
    pub packs: BTreeMap<PackKey, Option<SmsDeliveryPack>>,
    pub rejects: BTreeMap<(RangeKey, u32, u32), Vec<Reject>>,
    pub manifests: BTreeMap<LaneKey, Manifest>,
    pub windows: BTreeMap<WindowKey, StoredWindow>,
    pub retries: BTreeMap<(LaneKey, u64), RetryPack>,
    pub receipts: BTreeMap<LaneKey, Vec<MatchedReport>>,
    /// Packs that were read, whole and by their small columns alone.
    pub read: (Vec<PackKey>, Vec<PackKey>),
}

impl Rows {
    /// A pack; an error for one that is damaged.
    fn pack(&self, key: PackKey) -> Result<Option<&SmsDeliveryPack>, StoreError> {
        let damaged = || StoreError::Corrupt("on purpose".into());
        self.packs.get(&key).map(|pack| pack.as_ref().ok_or_else(damaged)).transpose()
    }
}

/// The store.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Rows>>);

impl Fake {
    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().expect("no test panics while it holds the rows")
    }

    pub fn stores(&self) -> Stores {
        Stores::of(&Arc::new(self.clone()))
    }
}

fn no<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the tests' store does not keep this".into()))
}

macro_rules! control_rows {
    ($key:ty, $row:ty, $field:ident, $batch:expr) => {
        #[async_trait]
        impl ControlRows<$key, $row> for Fake {
            async fn load(&self, key: $key) -> Result<Option<Versioned<$row>>, StoreError> {
                Ok(self.rows().$field.get(&key).map(|row| Versioned { version: 1, nonce: 0, row: row.clone() }))
            }
            async fn insert(&self, _: $key, _: &$row, _: u64) -> Result<Cas, StoreError> {
                no()
            }
            async fn replace(&self, _: $key, _: u64, _: &$row, _: u64) -> Result<Cas, StoreError> {
                no()
            }
            async fn list(&self, batch: BatchId) -> Result<Vec<($key, Versioned<$row>)>, StoreError> {
                let of: fn(&$key) -> BatchId = $batch;
                let rows = self.rows();
                let mine = rows.$field.iter().filter(|(key, _)| of(key) == batch);
                Ok(mine.map(|(key, row)| (*key, Versioned { version: 1, nonce: 0, row: row.clone() })).collect())
            }
        }
    };
}

control_rows!(BatchId, BatchRow, batches, |key| *key);
control_rows!(RangeKey, RangeRow, ranges, |key| key.batch);
control_rows!(LaneKey, Ledger, ledgers, |key| key.batch);

#[async_trait]
impl BatchIndex for Fake {
    async fn active(&self) -> Result<Vec<BatchId>, StoreError> {
        Ok(self.rows().batches.iter().filter(|(_, row)| row.is_active()).map(|(id, _)| *id).collect())
    }
    async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        let from: usize = behind.and_then(|place| place.parse().ok()).unwrap_or(0);
        let rows = self.rows();
        let page = rows.batches.iter().skip(from).take(limit).map(|(id, row)| Listed { batch: *id, row: row.clone() });
        let next = (from + limit < rows.batches.len()).then(|| (from + limit).to_string());
        Ok((page.collect(), next))
    }
}

#[async_trait]
impl Packs for Fake {
    async fn put(&self, _: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        no()
    }
    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        let mut rows = self.rows();
        rows.read.1.push(key);
        Ok(rows.pack(key)?.map(SmsDeliveryPack::head))
    }
    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        let mut rows = self.rows();
        rows.read.0.push(key);
        Ok(rows.pack(key)?.map(|pack| Arc::new(pack.clone())))
    }
}

#[async_trait]
impl Rejects for Fake {
    async fn put(&self, _: RangeKey, _: u32, _: u32, _: Vec<Reject>) -> Result<(), StoreError> {
        no()
    }
    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError> {
        Ok(self.rows().rejects.get(&(range, attempt, n)).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl Manifests for Fake {
    async fn put(&self, _: LaneKey, _: &Manifest) -> Result<Cas, StoreError> {
        no()
    }
    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        Ok(self.rows().manifests.get(&lane).cloned().map(Arc::new))
    }
}

#[async_trait]
impl Windows for Fake {
    async fn put(&self, _: WindowKey, _: &WindowRow, _: Vec<IndexEntry>) -> Result<(), StoreError> {
        no()
    }
    async fn put_judgement(&self, _: WindowKey, _: &Judgement) -> Result<(), StoreError> {
        no()
    }
    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        Ok(self.rows().windows.get(&key).cloned())
    }
    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        let rows = self.rows();
        let page = rows.windows.range(WindowKey { lane, window: from }..=WindowKey { lane, window: u64::MAX });
        // Small pages, so that every test goes over the edge of one.
        Ok(page.take(limit.min(2)).map(|(_, window)| window.clone()).collect())
    }
    async fn put_retry(&self, _: LaneKey, _: u64, _: &RetryPack) -> Result<(), StoreError> {
        no()
    }
    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        Ok(self.rows().retries.get(&(lane, name)).cloned())
    }
}

#[async_trait]
impl Receipts for Fake {
    async fn record(&self, _: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        no()
    }
    async fn list(&self, lane: LaneKey, from_seq: u32, _: usize) -> Result<Vec<MatchedReport>, StoreError> {
        let rows = self.rows();
        let mut all: Vec<MatchedReport> = rows.receipts.get(&lane).cloned().unwrap_or_default();
        all.sort_by_key(|report| (report.part, report.report.rung));
        let first = all.iter().map(|report| report.part.recipient.seq).find(|seq| *seq >= from_seq);
        Ok(all.into_iter().filter(|report| Some(report.part.recipient.seq) == first).collect())
    }
}

#[async_trait]
impl ReceiptIndex for Fake {
    async fn find(&self, _: &str, _: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        no()
    }
    async fn put_uncertain(&self, _: Vec<UncertainEntry>) -> Result<(), StoreError> {
        no()
    }
    async fn uncertain(&self, _: &str, _: Msisdn) -> Result<Vec<UncertainEntry>, StoreError> {
        no()
    }
}

#[async_trait]
impl Parked for Fake {
    async fn park(&self, _: Vec<ParkedReport>) -> Result<(), StoreError> {
        no()
    }
    async fn due(&self, _: Timestamp, _: usize) -> Result<Vec<ParkedReport>, StoreError> {
        no()
    }
    async fn remove(&self, _: Vec<u64>) -> Result<(), StoreError> {
        no()
    }
    async fn counts(&self) -> Result<(u64, u64), StoreError> {
        Ok((0, 0))
    }
    async fn unmatched(&self, _: Option<u64>, _: usize) -> Result<Vec<ParkedReport>, StoreError> {
        no()
    }
}

#[async_trait]
impl Suppressions for Fake {
    async fn add(&self, _: &[Msisdn]) -> Result<(), StoreError> {
        no()
    }
    async fn remove(&self, _: &[Msisdn]) -> Result<(), StoreError> {
        no()
    }
    async fn check(&self, _: &[Msisdn]) -> Result<Vec<bool>, StoreError> {
        no()
    }
    async fn count(&self) -> Result<u64, StoreError> {
        no()
    }
}

#[async_trait]
impl Links for Fake {
    async fn reserve(&self, _: BatchId, _: u64) -> Result<LinkBlock, StoreError> {
        no()
    }
    async fn end(&self) -> Result<u64, StoreError> {
        no()
    }
    async fn block_of(&self, _: u64) -> Result<Option<LinkBlock>, StoreError> {
        no()
    }
    async fn key(&self) -> Result<[u8; 16], StoreError> {
        no()
    }
}

#[async_trait]
impl Retention for Fake {
    async fn drop_batch(&self, _: BatchId, _: Kind) -> Result<(), StoreError> {
        no()
    }
    async fn drop_index_before(&self, _: Timestamp) -> Result<(), StoreError> {
        no()
    }
}

#[async_trait]
impl Meta for Fake {
    async fn room(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn raise_mark(&self) -> Result<u64, StoreError> {
        no()
    }
    async fn check_mark(&self) -> Result<Result<(), String>, StoreError> {
        no()
    }
    async fn accept(&self) -> Result<(), StoreError> {
        no()
    }
    async fn get(&self, _: &str) -> Result<Option<String>, StoreError> {
        no()
    }
    async fn put(&self, _: &str, _: &str) -> Result<(), StoreError> {
        no()
    }
}

#[async_trait]
impl Documents for Fake {
    async fn get(&self, _: Shelf, _: &str) -> Result<Option<String>, StoreError> {
        no()
    }

    async fn insert(&self, _: Shelf, _: &str, _: &str) -> Result<Cas, StoreError> {
        no()
    }

    async fn replace(&self, _: Shelf, _: &str, _: &str, _: &str) -> Result<Cas, StoreError> {
        no()
    }

    async fn put(&self, _: Shelf, _: &str, _: &str) -> Result<(), StoreError> {
        no()
    }

    async fn delete(&self, _: Shelf, _: &str) -> Result<(), StoreError> {
        no()
    }

    async fn list(&self, _: Shelf, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Document>, StoreError> {
        no()
    }
}

#[async_trait]
impl Erasure for Fake {
    async fn messages(&self, _: LaneKey, _: Msisdn) -> Result<Vec<FoundMessage>, StoreError> {
        no()
    }
    async fn erase_messages(&self, _: LaneKey, _: Msisdn) -> Result<u64, StoreError> {
        no()
    }
    async fn erase_rejects(&self, _: BatchId, _: Msisdn) -> Result<u64, StoreError> {
        no()
    }
    async fn erase_reports(&self, _: RecipientKey) -> Result<u64, StoreError> {
        no()
    }
    async fn of_number(&self, _: Msisdn) -> Result<OfNumber, StoreError> {
        no()
    }
    async fn erase_of_number(&self, _: Msisdn) -> Result<(u64, u64), StoreError> {
        no()
    }
}

#[async_trait]
impl Journal for Fake {
    async fn append(&self, _: Stream, _: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        no()
    }

    async fn list(&self, _: Stream, _: &str, _: Option<&Place>, _: usize, _: Direction) -> Result<Vec<Entry>, StoreError> {
        no()
    }

    async fn remove(&self, _: Stream, _: Vec<Place>) -> Result<(), StoreError> {
        no()
    }

    async fn drop_before(&self, _: Stream, _: Timestamp) -> Result<(), StoreError> {
        no()
    }
}
