//! Lists of batches: the active ones, and all by time of creation.

use super::Keyed;
use crate::adapters::embedded::engine::{Order, Table};
use crate::adapters::rows::control::read;
use crate::adapters::rows::key::{self, KeyReader};
use crate::model::batch::BatchRow;
use crate::model::hex;
use crate::model::id::BatchId;
use crate::ports::StoreError;
use crate::ports::batches::{BatchIndex, Listed};
use crate::runtime::digest;

#[async_trait::async_trait]
impl BatchIndex for Keyed {
    async fn active(&self) -> Result<Vec<BatchId>, StoreError> {
        let mut active = Vec::new();
        self.engine.read()?.scan(Table::BatchActive, &[], None, Order::Up, &mut |key, _| {
            active.push(KeyReader(key).batch()?);
            Ok(true)
        })?;
        Ok(active)
    }

    async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        // A place that is none is taken as the end of the list: it can only come from outside.
        let behind = match behind.as_deref().map(hex::bytes) {
            None => None,
            Some(Some(key)) => Some(key),
            Some(None) => return Ok((vec![], None)),
        };
        let reader = self.engine.read()?;
        let mut keys: Vec<Vec<u8>> = Vec::new();
        // One more than asked for tells whether there is a next page.
        reader.scan(Table::BatchCreated, &[], behind.as_deref(), Order::Down, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(keys.len() <= limit)
        })?;
        let has_more = keys.len() > limit;
        keys.truncate(limit);
        let mut listed = Vec::with_capacity(keys.len());
        for key in &keys {
            let mut fields = KeyReader(key);
            fields.time()?;
            let batch = fields.batch()?;
            if let Some(bytes) = reader.get(Table::Batch, &key::batch(batch))? {
                let row = self.unread_batches.read(read::<BatchRow>(Table::Batch.name(), &bytes))?;
                listed.extend(row.map(|row| Listed { batch, row: row.row }));
            }
        }
        Ok((listed, if has_more { keys.last().map(|key| digest::hex(key)) } else { None }))
    }
}
