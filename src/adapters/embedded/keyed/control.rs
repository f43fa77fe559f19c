//! Batches, ranges and ledgers: compare-and-set inside the engine's own transaction.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Room, Table, Written};
use crate::adapters::rows::control::{VERSION_AT, read, write};
use crate::adapters::rows::key::{self, KeyBuilder, KeyReader};
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, RangeKey};
use crate::model::ledger::Ledger;
use crate::model::record::RangeRow;
use crate::ports::StoreError;
use crate::ports::control::{Cas, ControlRows, Versioned};

impl Keyed {
    fn load_row<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<Versioned<T>>, StoreError> {
        self.engine.read()?.get(table, key)?.map(|bytes| read(table.name(), &bytes)).transpose()
    }

    fn list_rows<K, T: DeserializeOwned>(
        &self,
        table: Table,
        batch: BatchId,
        key_of: impl Fn(&mut KeyReader) -> Result<K, StoreError>,
    ) -> Result<Vec<(K, Versioned<T>)>, StoreError> {
        let mut rows = Vec::new();
        self.engine.read()?.scan_prefix(table, &key::batch(batch), &mut |key, bytes| {
            rows.push((key_of(&mut KeyReader(key))?, read(table.name(), bytes)?));
            Ok(true)
        })?;
        Ok(rows)
    }

    async fn cas(&self, batch: Batch) -> Result<Cas, StoreError> {
        Ok(match self.engine.write(batch).await? {
            Written::Applied(_) => Cas::Applied,
            Written::Refused => Cas::Refused,
        })
    }
}

fn insertion<T: Serialize>(table: Table, key: Vec<u8>, row: &T, nonce: u64) -> Batch {
    Batch::control().check(table, key.clone(), Expect::Absent).put(table, key, write(1, nonce, row))
}

fn replacement<T: Serialize>(table: Table, key: Vec<u8>, expected: u64, row: &T, nonce: u64) -> Batch {
    let version = Expect::Bytes(VERSION_AT, expected.to_be_bytes().to_vec());
    Batch::control().check(table, key.clone(), version).put(table, key, write(expected + 1, nonce, row))
}

/// The index of active batches changes with the row, in the same commit.
fn with_activity(batch: Batch, id: BatchId, row: &BatchRow) -> Batch {
    let key = key::batch(id);
    if row.is_active() { batch.put(Table::BatchActive, key, vec![]) } else { batch.delete(Table::BatchActive, key) }
}

#[async_trait::async_trait]
impl ControlRows<BatchId, BatchRow> for Keyed {
    async fn load(&self, key: BatchId) -> Result<Option<Versioned<BatchRow>>, StoreError> {
        self.load_row(Table::Batch, &key::batch(key))
    }

    async fn insert(&self, key: BatchId, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        let created = KeyBuilder::new().time(row.created).batch(key).done();
        let batch = insertion(Table::Batch, key::batch(key), row, nonce).put(Table::BatchCreated, created, vec![]);
        self.cas(with_activity(batch, key, row)).await
    }

    async fn replace(&self, key: BatchId, expected: u64, row: &BatchRow, nonce: u64) -> Result<Cas, StoreError> {
        let batch = replacement(Table::Batch, key::batch(key), expected, row, nonce);
        self.cas(with_activity(batch, key, row)).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(BatchId, Versioned<BatchRow>)>, StoreError> {
        Ok(self.load_row(Table::Batch, &key::batch(batch))?.map(|row| (batch, row)).into_iter().collect())
    }
}

#[async_trait::async_trait]
impl ControlRows<RangeKey, RangeRow> for Keyed {
    async fn load(&self, key: RangeKey) -> Result<Option<Versioned<RangeRow>>, StoreError> {
        self.load_row(Table::Range, &key::range(key))
    }

    async fn insert(&self, key: RangeKey, row: &RangeRow, nonce: u64) -> Result<Cas, StoreError> {
        self.cas(insertion(Table::Range, key::range(key), row, nonce)).await
    }

    async fn replace(&self, key: RangeKey, expected: u64, row: &RangeRow, nonce: u64) -> Result<Cas, StoreError> {
        self.cas(replacement(Table::Range, key::range(key), expected, row, nonce)).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(RangeKey, Versioned<RangeRow>)>, StoreError> {
        self.list_rows(Table::Range, batch, |key| Ok(RangeKey { batch: key.batch()?, range: key.u32()? }))
    }
}

#[async_trait::async_trait]
impl ControlRows<LaneKey, Ledger> for Keyed {
    async fn load(&self, key: LaneKey) -> Result<Option<Versioned<Ledger>>, StoreError> {
        self.load_row(Table::Ledger, &key::lane(key))
    }

    async fn insert(&self, key: LaneKey, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        self.cas(insertion(Table::Ledger, key::lane(key), row, nonce)).await
    }

    /// A declare is refused while the disk is nearly full: what follows from it could not be stored. Every other change,
    /// and the answers to what was declared before, may use what is left.
    async fn replace(&self, key: LaneKey, expected: u64, row: &Ledger, nonce: u64) -> Result<Cas, StoreError> {
        let declares = row.open.iter().any(|window| window.window == expected + 1);
        let room = if declares { Room::Data } else { Room::Control };
        self.cas(Batch { room, ..replacement(Table::Ledger, key::lane(key), expected, row, nonce) }).await
    }

    async fn list(&self, batch: BatchId) -> Result<Vec<(LaneKey, Versioned<Ledger>)>, StoreError> {
        self.list_rows(Table::Ledger, batch, |key| key.lane())
    }
}
