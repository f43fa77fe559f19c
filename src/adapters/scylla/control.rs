//! Batches, ranges and ledgers: rows that only ever change by conditional writes.
//!
//! Their cells carry the timestamps of those writes' ballots, so no plain write ever touches them: by a clock that goes
//! ahead it would hide every change behind it. That holds for deleting them too.

use futures::stream::{self, StreamExt, TryStreamExt};
use scylla::serialize::row::SerializeRow;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::control::{read, write};
use crate::adapters::rows::frame::corrupt;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, RangeKey};
use crate::model::ledger::Ledger;
use crate::model::record::RangeRow;
use crate::ports::StoreError;
use crate::ports::control::{Cas, ControlRows, Versioned};

/// Ledgers that one list reads at once.
const LEDGERS_AT_ONCE: usize = 32;

const LOAD_BATCH: Statement = Statement::serial_read("SELECT version, body FROM sms_batch WHERE batch_id = ?");
const INSERT_BATCH: Statement =
    Statement::condition("INSERT INTO sms_batch (version, nonce, body, batch_id) VALUES (?, ?, ?, ?) IF NOT EXISTS");
const REPLACE_BATCH: Statement =
    Statement::condition("UPDATE sms_batch SET version = ?, nonce = ?, body = ? WHERE batch_id = ? IF version = ?");
const DROP_BATCH: Statement = Statement::condition("DELETE FROM sms_batch WHERE batch_id = ? IF EXISTS");
const PEEK_BATCH: Statement = Statement::read("SELECT version, body FROM sms_batch WHERE batch_id = ?");

const LOAD_RANGE: Statement =
    Statement::serial_read("SELECT version, body FROM record_range WHERE batch_id = ? AND range_no = ?");
const INSERT_RANGE: Statement = Statement::condition(
    "INSERT INTO record_range (version, nonce, body, batch_id, range_no) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
);
const REPLACE_RANGE: Statement = Statement::condition(
    "UPDATE record_range SET version = ?, nonce = ?, body = ? WHERE batch_id = ? AND range_no = ? IF version = ?",
);
const LIST_RANGES: Statement = Statement::read("SELECT range_no, version, body FROM record_range WHERE batch_id = ?").by(200);
const RANGE_NUMBERS: Statement = Statement::read("SELECT range_no FROM record_range WHERE batch_id = ?");
const DROP_RANGE: Statement = Statement::condition("DELETE FROM record_range WHERE batch_id = ? AND range_no = ? IF EXISTS");

const LOAD_LEDGER: Statement = Statement::serial_read("SELECT version, body FROM lane_ledger WHERE batch_id = ? AND lane = ?");
const PEEK_LEDGER: Statement = Statement::read("SELECT version, body FROM lane_ledger WHERE batch_id = ? AND lane = ?");
const INSERT_LEDGER: Statement =
    Statement::condition("INSERT INTO lane_ledger (version, nonce, body, batch_id, lane) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS");
const REPLACE_LEDGER: Statement = Statement::condition(
    "UPDATE lane_ledger SET version = ?, nonce = ?, body = ? WHERE batch_id = ? AND lane = ? IF version = ?",
);
const DROP_LEDGER: Statement = Statement::condition("DELETE FROM lane_ledger WHERE batch_id = ? AND lane = ? IF EXISTS");

/// A stored row: its version, and its body with version and nonce in it.
type Stored = (i64, Vec<u8>);

fn versioned<T: DeserializeOwned>(what: &str, (version, body): Stored) -> Result<Versioned<T>, StoreError> {
    let row: Versioned<T> = read(what, &body)?;
    // Both are written by the same statement, so they only ever differ when something else wrote the row.
    if row.version as i64 == version { Ok(row) } else { Err(corrupt(what, "its version and its body differ")) }
}

impl CqlStore {
    async fn load_row<T: DeserializeOwned>(
        &self,
        what: &str,
        statement: &'static Statement,
        key: impl SerializeRow + Send + Sync,
    ) -> Result<Option<Versioned<T>>, StoreError> {
        let row: Option<Stored> = self.cql.first(statement, key).await?;
        row.map(|stored| versioned(what, stored)).transpose()
    }

    /// The numbers of a batch's ranges.
    pub(super) async fn ranges_of(&self, batch: BatchId) -> Result<Vec<u32>, StoreError> {
        let rows: Vec<(i64,)> = self.cql.rows(&RANGE_NUMBERS, (key::batch(batch),)).await?;
        rows.into_iter().map(|(range,)| key::read(range)).collect()
    }

    /// A batch's row as most nodes have it: good for showing it, not for deciding on it.
    pub(super) async fn peek_batch(&self, batch: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        self.load_row("batch", &PEEK_BATCH, (key::batch(batch),)).await
    }

    /// Removes a batch's ranges and ledgers.
    pub(super) async fn drop_parts(&self, batch: BatchId) -> Result<(), StoreError> {
        let id = key::batch(batch);
        for range in self.ranges_of(batch).await? {
            self.cql.cas(&DROP_RANGE, (id, i64::from(range))).await?;
        }
        stream::iter(key::LANES)
            .map(|lane| self.cql.cas(&DROP_LEDGER, (id, i32::from(lane))))
            .buffer_unordered(LEDGERS_AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    /// Removes a batch's own row.
    pub(super) async fn drop_batch_row(&self, batch: BatchId) -> Result<(), StoreError> {
        self.cql.cas(&DROP_BATCH, (key::batch(batch),)).await.map(|_| ())
    }
}

fn insertion<T: Serialize>(row: &T, nonce: u64) -> (i64, i64, Vec<u8>) {
    (1, nonce as i64, write(1, nonce, row))
}

fn replacement<T: Serialize>(expected: u64, row: &T, nonce: u64) -> (i64, i64, Vec<u8>) {
    let version = expected.wrapping_add(1);
    (version as i64, nonce as i64, write(version, nonce, row))
}

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for CqlStore {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        self.load_row("batch", &LOAD_BATCH, (key::batch(key),)).await
    }

    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        self.note_created(key, row).await?;
        self.note_active(key, row, 1).await?;
        let (version, nonce, body) = insertion(row, nonce);
        self.cql.cas(&INSERT_BATCH, (version, nonce, body, key::batch(key))).await
    }

    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        let (version, nonce, body) = replacement(expected, row, nonce);
        // Entered before the row is active, removed after it has ended: the index never misses one.
        if row.is_active() {
            self.note_active(key, row, version).await?;
        }
        let cas = self.cql.cas(&REPLACE_BATCH, (version, nonce, body, key::batch(key), expected as i64)).await?;
        if cas == Cas::Applied && !row.is_active() {
            self.note_ended(key, row, version).await;
        }
        Ok(cas)
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        Ok(self.load(batch).await?.map(|row| (batch, row)).into_iter().collect())
    }
}

#[async_trait::async_trait]
impl ControlRows<RangeKey, RangeRow> for CqlStore {
    async fn load(&self, key: RangeKey) -> Result<Option<Versioned<RangeRow>>, StoreError> {
        self.load_row("range", &LOAD_RANGE, (key::batch(key.batch), i64::from(key.range))).await
    }

    async fn insert(&self, key: RangeKey, row: &RangeRow, nonce: u64) -> Result<Cas, StoreError> {
        let (version, nonce, body) = insertion(row, nonce);
        self.cql.cas(&INSERT_RANGE, (version, nonce, body, key::batch(key.batch), i64::from(key.range))).await
    }

    async fn replace(&self, key: RangeKey, expected: u64, row: &RangeRow, nonce: u64) -> Result<Cas, StoreError> {
        let (version, nonce, body) = replacement(expected, row, nonce);
        let id = (key::batch(key.batch), i64::from(key.range));
        self.cql.cas(&REPLACE_RANGE, (version, nonce, body, id.0, id.1, expected as i64)).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(RangeKey, Versioned<RangeRow>)>, StoreError> {
        let mut listed = Vec::new();
        self.cql
            .scan(&LIST_RANGES, (key::batch(batch),), |(range, version, body): (i64, i64, Vec<u8>)| {
                listed.push((RangeKey { batch, range: key::read(range)? }, versioned("range", (version, body))?));
                Ok(true)
            })
            .await?;
        Ok(listed)
    }
}

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for CqlStore {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.load_row("ledger", &LOAD_LEDGER, (key::batch(key.batch), key::lane(key))).await
    }

    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        let (version, nonce, body) = insertion(row, nonce);
        self.cql.cas(&INSERT_LEDGER, (version, nonce, body, key::batch(key.batch), key::lane(key))).await
    }

    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        let (version, nonce, body) = replacement(expected, row, nonce);
        let id = (key::batch(key.batch), key::lane(key));
        self.cql.cas(&REPLACE_LEDGER, (version, nonce, body, id.0, id.1, expected as i64)).await
    }

    /// Each ledger has a partition of its own, so they are read side by side.
    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        let ledger = async |lane| -> Result<Option<(LaneKey, Versioned<Ledger>)>, StoreError> {
            let key = LaneKey { batch, lane };
            let row = self.load_row("ledger", &PEEK_LEDGER, (key::batch(batch), i32::from(lane))).await?;
            Ok(row.map(|row| (key, row)))
        };
        let found: Vec<Option<_>> = stream::iter(key::LANES).map(ledger).buffered(LEDGERS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}
