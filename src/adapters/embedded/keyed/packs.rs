//! Packs, rejects and manifests.

use std::sync::Arc;

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Expect, Table, Written};
use crate::adapters::rows::key::{self, KeyBuilder};
use crate::adapters::rows::{manifest, pack, reject};
use crate::model::id::{LaneKey, RangeKey};
use crate::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::Reject;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::packs::{Manifests, Packs, Rejects};

/// Bytes of packs in one batch at most, so that a ledger's declare never waits long behind packs.
const PUT_BYTES_MAX: usize = 1 << 20;

#[async_trait::async_trait]
impl Packs for Keyed {
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        let mut batch = Batch::data();
        for (key, pack) in packs {
            let key = key::pack(key);
            let (head, texts) = pack::write(&pack);
            batch = batch.put(Table::PackHead, key.clone(), head).put(Table::PackText, key, texts);
            if batch.bytes() >= PUT_BYTES_MAX {
                self.engine.write(std::mem::take(&mut batch)).await?;
            }
        }
        if !batch.ops.is_empty() {
            self.engine.write(batch).await?;
        }
        Ok(())
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        let row = self.engine.read()?.get(Table::PackHead, &key::pack(key))?;
        row.map(|bytes| pack::read_head(&bytes)).transpose()
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        let key = key::pack(key);
        let (head, texts) = {
            let reader = self.engine.read()?;
            (reader.get(Table::PackHead, &key)?, reader.get(Table::PackText, &key)?)
        };
        match (head, texts) {
            (Some(head), Some(texts)) => Ok(Some(Arc::new(pack::read(&head, &texts)?))),
            (None, None) => Ok(None),
            _ => Err(StoreError::Corrupt("pack: one of its two rows is missing".into())),
        }
    }
}

#[async_trait::async_trait]
impl Rejects for Keyed {
    async fn put(&self, range: RangeKey, attempt: u32, n: u32, rejects: Vec<Reject>) -> Result<(), StoreError> {
        let row = reject::write(&rejects);
        self.engine.write(Batch::data().put(Table::Rejects, piece(range, attempt, n), row)).await?;
        Ok(())
    }

    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError> {
        let row = self.engine.read()?.get(Table::Rejects, &piece(range, attempt, n))?;
        row.map_or(Ok(vec![]), |bytes| reject::read(&bytes))
    }
}

fn piece(range: RangeKey, attempt: u32, n: u32) -> Vec<u8> {
    KeyBuilder::new().batch(range.batch).u32(range.range).u32(attempt).u32(n).done()
}

#[async_trait::async_trait]
impl Manifests for Keyed {
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError> {
        let key = key::lane(lane);
        let row = manifest::write(manifest);
        let batch = Batch::data().check(Table::Manifest, key.clone(), Expect::Absent).put(Table::Manifest, key, row);
        Ok(match self.engine.write(batch).await? {
            Written::Applied(_) => Cas::Applied,
            Written::Refused => Cas::Refused,
        })
    }

    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        let row = self.engine.read()?.get(Table::Manifest, &key::lane(lane))?;
        row.map(|bytes| manifest::read(&bytes).map(Arc::new)).transpose()
    }
}
