//! A whole embedded store of damaged rows: whatever lies in its tables, it opens or says what is damaged, and answers every call.

use std::sync::Arc;

use smsfleet::adapters::embedded::engine::memory::MemoryEngine;
use smsfleet::adapters::embedded::engine::{Batch, Engine, Op, TABLES};
use smsfleet::adapters::embedded::index::IndexOptions;
use smsfleet::adapters::embedded::keyed::{Keyed, MarkCell};
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::id::{BatchId, LaneKey, Msisdn, RangeKey, RecipientKey, WindowKey};
use smsfleet::model::pack::PackKey;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::StoreError;
use smsfleet::ports::documents::{SHELVES, Shelf};
use smsfleet::ports::journal::{Direction, STREAMS};
use smsfleet::ports::retention::Kind;

use super::input::Input;
use super::is_reason;

/// Small sizes, so that a few rows are a table and a few runs are merged.
const INDEX: IndexOptions = IndexOptions { memtable_entries: 4, merge_runs: 2, filter_bytes: 1 << 20 };
const BATCH: BatchId = BatchId(1);
const LANE: LaneKey = LaneKey { batch: BATCH, lane: 2 };
const NUMBER: Msisdn = Msisdn(4_915_112_345_678);

/// Rows: an octet that says in which table, the key and the row, each behind its length.
pub fn store(input: &[u8]) -> bool {
    let mut input = Input(input);
    let engine = Arc::new(MemoryEngine::default());
    let mut batch = Batch::control();
    while !input.0.is_empty() {
        let table = TABLES[usize::from(input.byte()) % TABLES.len()];
        batch.ops.push(Op::Put(table, input.piece().to_vec(), input.piece().to_vec()));
    }
    // Nothing of it ever waits: the engine answers at once.
    futures::executor::block_on(use_it(engine, batch))
}

async fn use_it(engine: Arc<MemoryEngine>, rows: Batch) -> bool {
    let mut all_read = true;
    let mut told = Told(&mut all_read);
    told.of(engine.write(rows).await);
    let chance = Arc::new(SeededChance::from_seed(1));
    let Some(keyed) = told.of(Keyed::open(engine, INDEX, chance, Box::new(MarkCell::default())).await) else { return false };
    let keyed = Arc::new(keyed);
    let stores = keyed.stores();
    let (range, recipient) = (RangeKey { batch: BATCH, range: 0 }, RecipientKey { lane: LANE, seq: 0 });

    told.of(stores.batches.load(BATCH).await);
    told.of(stores.batches.list(BATCH).await);
    told.of(stores.batch_index.active().await);
    told.of(stores.batch_index.list(None, 10).await);
    told.of(stores.ranges.list(BATCH).await);
    told.of(stores.ledgers.list(BATCH).await);
    let pack = PackKey { lane: LANE, range: 0, attempt: 1, n: 0 };
    told.of(stores.packs.head(pack).await);
    told.of(stores.packs.get(pack).await);
    told.of(stores.rejects.get(range, 1, 0).await);
    told.of(stores.manifests.get(LANE).await);
    told.of(stores.windows.get(WindowKey { lane: LANE, window: 3 }).await);
    told.of(stores.windows.list(LANE, 0, 10).await);
    told.of(stores.windows.retry(LANE, 7).await);
    told.of(stores.receipts.list(LANE, 0, 10).await);
    told.of(stores.receipt_index.find("a", &[("m1".into(), None), ("m2".into(), Some(NUMBER))]).await);
    told.of(stores.receipt_index.uncertain("a", NUMBER).await);
    let parked = told.of(stores.parked.due(Timestamp(i64::MAX), 10).await).unwrap_or_default();
    told.of(stores.parked.unmatched(None, 10).await);
    told.of(stores.suppressions.check(&[NUMBER]).await);
    told.of(stores.links.end().await);
    told.of(stores.links.block_of(5).await);
    told.of(stores.links.block_of(u64::MAX).await);
    told.of(stores.meta.check_mark().await);
    told.of(stores.meta.get("fact").await);
    for shelf in SHELVES {
        told.of(stores.documents.list(shelf, "", None, 10).await);
    }
    told.of(stores.documents.get(Shelf::ApiKey, "k").await);
    for stream in STREAMS {
        for direction in [Direction::Forward, Direction::Backward] {
            told.of(stores.journal.list(stream, "", None, 10, direction).await);
        }
    }
    told.of(stores.erasure.messages(LANE, NUMBER).await);
    told.of(stores.erasure.of_number(NUMBER).await);

    // What writes goes on with what was read.
    told.of(stores.meta.raise_mark().await);
    told.of(stores.links.reserve(BATCH, 10).await);
    told.of(stores.links.key().await);
    while told.of(keyed.index().maintain().await).unwrap_or(false) {}
    told.of(stores.receipt_index.find("a", &[("m1".into(), None)]).await);
    told.of(stores.parked.park(parked.clone()).await);
    told.of(stores.parked.remove(parked.iter().map(|parked| parked.id).collect()).await);
    told.of(stores.erasure.erase_messages(LANE, NUMBER).await);
    told.of(stores.erasure.erase_rejects(BATCH, NUMBER).await);
    told.of(stores.erasure.erase_reports(recipient).await);
    told.of(stores.erasure.erase_of_number(NUMBER).await);
    for stream in STREAMS {
        told.of(stores.journal.drop_before(stream, Timestamp(5)).await);
    }
    told.of(stores.retention.drop_index_before(Timestamp(5)).await);
    for kind in [Kind::Texts, Kind::History, Kind::Batch] {
        told.of(stores.retention.drop_batch(BATCH, kind).await);
    }
    all_read
}

/// Hears what calls come to.
struct Told<'a>(&'a mut bool);

impl Told<'_> {
    /// An answer, or a reason with a code that fits: a row is damaged, the counter of something is at its end, or the store is
    /// another than it was.
    fn of<T>(&mut self, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error @ (StoreError::Corrupt(_) | StoreError::Full(_) | StoreError::Unavailable(_))) => {
                assert!(is_reason(&error.to_string()));
                *self.0 = false;
                None
            }
            Err(other) => panic!("nothing is left open in memory: {other:?}"),
        }
    }
}
