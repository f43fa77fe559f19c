//! The stores that every suite runs over, and rows to fill them with.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use smsfleet::adapters::embedded::index::{Index, IndexOptions};
use smsfleet::adapters::embedded::{EmbeddedStore, StoreOptions};
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::scylla::CqlStore;
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::{BatchId, LaneKey, RecipientKey};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::Stores;
use smsfleet::ports::receipts::PartKey;

pub use super::keyspace::Keyspace;

/// A receipt index that makes and merges runs within a test, and has memory for the filters of some of them.
pub const SMALL_INDEX: IndexOptions = IndexOptions { memtable_entries: 64, merge_runs: 3, filter_bytes: 3_000 };

/// A store under test that can be stopped and started.
pub enum Subject {
    Folder(tempfile::TempDir, Box<Option<EmbeddedStore>>),
    Memory(MemoryStore),
    Cluster(Box<Keyspace>, Arc<CqlStore>),
}

impl Subject {
    pub fn stores(&self) -> Stores {
        match self {
            Subject::Folder(_, store) => store.as_ref().as_ref().expect("it is open").stores(),
            Subject::Memory(store) => store.stores(),
            Subject::Cluster(_, store) => store.stores(),
        }
    }

    /// The store as the next process finds it.
    pub async fn restarted(self) -> Subject {
        match self {
            Subject::Folder(folder, store) => {
                drop(store);
                let store = open(folder.path()).await;
                Subject::Folder(folder, Box::new(Some(store)))
            }
            Subject::Memory(store) => Subject::Memory(store.reopen().expect("it opens again")),
            Subject::Cluster(keyspace, store) => {
                drop(store);
                let store = keyspace.connect().await;
                Subject::Cluster(keyspace, store)
            }
        }
    }

    /// The receipt index, where it is the embedded one.
    pub fn index(&self) -> Option<Arc<Index>> {
        match self {
            Subject::Folder(_, store) => Some(store.as_ref().as_ref().expect("it is open").index()),
            Subject::Memory(store) => Some(store.index()),
            Subject::Cluster(..) => None,
        }
    }

    /// Waits until the receipt index has nothing left to do.
    pub async fn index_at_rest(&self) {
        let Some(index) = self.index() else { return };
        while index.maintain().await.expect("the index is kept up") {}
    }
}

pub fn small_options() -> StoreOptions {
    StoreOptions { index: SMALL_INDEX, cache_bytes: 4 << 20, min_free_bytes: 1 << 20, ..StoreOptions::default() }
}

pub async fn open(folder: &Path) -> EmbeddedStore {
    EmbeddedStore::open(folder, small_options()).await.expect("the folder opens")
}

/// Runs a suite over all stores.
pub fn over_all<F, Fut>(suite: F)
where
    F: Fn(Subject) -> Fut,
    Fut: Future<Output = ()>,
{
    over_embedded(&suite);
    runtime().block_on(async {
        let keyspace = Keyspace::empty().await;
        let store = keyspace.connect().await;
        suite(Subject::Cluster(Box::new(keyspace), store)).await;
    });
}

/// Runs a suite over the folder and over memory: for what only they do.
pub fn over_embedded<F, Fut>(suite: F)
where
    F: Fn(Subject) -> Fut,
    Fut: Future<Output = ()>,
{
    runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(folder.path()).await;
        suite(Subject::Folder(folder, Box::new(Some(store)))).await;
        suite(Subject::Memory(MemoryStore::with_index(Arc::new(SeededChance::from_seed(1)), SMALL_INDEX))).await;
    });
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub fn lane(batch: u128, lane: u8) -> LaneKey {
    LaneKey { batch: BatchId(batch), lane }
}

pub fn part(batch: u128, seq: u32) -> PartKey {
    PartKey { recipient: RecipientKey { lane: lane(batch, 3), seq }, part: 0 }
}

pub fn batch_row(id: u128, created: i64) -> BatchRow {
    let batch = SmsBatch {
        batch_id: BatchId(id),
        tenant: "t".into(),
        auto_trigger: true,
        ext_code: "007".into(),
        ..SmsBatch::new("list.csv", "Hello", "smpp")
    };
    BatchRow::created(batch, "digest".into(), Timestamp(created))
}
