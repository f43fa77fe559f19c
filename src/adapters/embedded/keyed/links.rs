//! Numbers for short links, handed out in blocks.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Order, Table, Written};
use crate::adapters::rows::frame::{corrupt, read_small, small};
use crate::adapters::rows::key::KeyReader;
use crate::model::id::BatchId;
use crate::ports::StoreError;
use crate::ports::links::{LinkBlock, Links};

const NEXT: &[u8] = b"links_next";
const KEY: &[u8] = b"links_key";
/// Where a row's fields begin, behind its version.
const WHOLE: usize = 0;

#[async_trait::async_trait]
impl Links for Keyed {
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError> {
        loop {
            let row = self.engine.read()?.get(Table::System, NEXT)?;
            let (first,): (u64,) = row.as_deref().map_or(Ok((0,)), |bytes| read_small("link counter", bytes))?;
            let next = first.checked_add(len).ok_or_else(|| StoreError::Full("all link numbers are handed out".into()))?;
            // The whole row is compared: its length grows with the number, so no longer number has it as its beginning.
            let expect = row.map_or(Expect::Absent, |bytes| Expect::Bytes(WHOLE, bytes));
            let change = Batch::data()
                .check(Table::System, NEXT.to_vec(), expect)
                .put(Table::System, NEXT.to_vec(), small(&(next,)))
                .put(Table::LinkBlock, first.to_be_bytes().to_vec(), small(&(len, batch)));
            if let Written::Applied(_) = self.engine.write(change).await? {
                return Ok(LinkBlock { first, len, batch });
            }
        }
    }

    async fn end(&self) -> Result<u64, StoreError> {
        let row = self.engine.read()?.get(Table::System, NEXT)?;
        row.as_deref().map_or(Ok(0), |bytes| read_small("link counter", bytes).map(|(next,)| next))
    }

    async fn block_of(&self, number: u64) -> Result<Option<LinkBlock>, StoreError> {
        let behind = number.checked_add(1).map(u64::to_be_bytes);
        let mut found = None;
        let reader = self.engine.read()?;
        reader.scan(Table::LinkBlock, &[], behind.as_ref().map(|key| &key[..]), Order::Down, &mut |key, bytes| {
            let (len, batch) = read_small("link block", bytes)?;
            found = Some(LinkBlock { first: KeyReader(key).u64()?, len, batch });
            Ok(false)
        })?;
        Ok(found.filter(|block| number - block.first < block.len))
    }

    async fn key(&self) -> Result<[u8; 16], StoreError> {
        loop {
            if let Some(row) = self.engine.read()?.get(Table::System, KEY)? {
                return row.try_into().map_err(|_| corrupt("link key", "it has not sixteen bytes"));
            }
            let mut key = [0; 16];
            key[..8].copy_from_slice(&self.chance.next().to_be_bytes());
            key[8..].copy_from_slice(&self.chance.next().to_be_bytes());
            // Whoever loses reads the key of the one who won.
            let made = Batch::data().check(Table::System, KEY.to_vec(), Expect::Absent);
            self.engine.write(made.put(Table::System, KEY.to_vec(), key.to_vec())).await?;
        }
    }
}
