//! Packs, rejects and manifests.
//!
//! A pack stands in a partition with the other attempts of the same lane and range: small, and named by what the plan
//! already lists, so that whoever erases or lets go of packs finds every partition without an index of them.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::erasure::{Gone, empty_pack, empty_rejects, head_without};
use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::{manifest, pack, reject};
use crate::model::id::{LaneKey, RangeKey};
use crate::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::Reject;
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::ports::packs::{Manifests, Packs, Rejects};

/// Packs of one call that are on their way at once.
const PACKS_AT_ONCE: usize = 64;

const PUT_PACK: Statement = Statement::write(
    "INSERT INTO sms_delivery_pack (batch_id, lane, range_no, attempt, n, head, texts) VALUES (?, ?, ?, ?, ?, ?, ?)",
);
const PACK: Statement = Statement::read(
    "SELECT head, texts, gone FROM sms_delivery_pack WHERE batch_id = ? AND lane = ? AND range_no = ? AND attempt = ? AND n = ?",
);
const HEAD: Statement = Statement::read(
    "SELECT head, gone FROM sms_delivery_pack WHERE batch_id = ? AND lane = ? AND range_no = ? AND attempt = ? AND n = ?",
);
const PUT_REJECTS: Statement =
    Statement::write("INSERT INTO reject (batch_id, range_no, attempt, n, body) VALUES (?, ?, ?, ?, ?)");
const REJECTS: Statement =
    Statement::read("SELECT body, gone FROM reject WHERE batch_id = ? AND range_no = ? AND attempt = ? AND n = ?");
const PUT_MANIFEST: Statement =
    Statement::condition("INSERT INTO manifest (batch_id, lane, body) VALUES (?, ?, ?) IF NOT EXISTS");
// Written under a condition, so what it decided is only sure to be seen by a read that is linearisable with it.
const MANIFEST: Statement = Statement::serial_read("SELECT body FROM manifest WHERE batch_id = ? AND lane = ?");

/// A pack's key as values.
type Values = ([u8; 16], i32, i64, i64, i64);

fn values(key: PackKey) -> Values {
    (key::batch(key.lane.batch), key::lane(key.lane), key.range.into(), key.attempt.into(), key.n.into())
}

#[async_trait::async_trait]
impl Packs for CqlStore {
    /// One statement a pack, many at once: a batch over partitions would only make one node pass them on.
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        let put = async |(key, pack): (PackKey, SmsDeliveryPack)| {
            let (head, texts) = pack::write(&pack);
            let (batch, lane, range, attempt, n) = values(key);
            self.cql.write(&PUT_PACK, (batch, lane, range, attempt, n, head, texts)).await
        };
        stream::iter(packs).map(put).buffer_unordered(PACKS_AT_ONCE).try_for_each(async |()| Ok(())).await
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        let row: Option<(Option<Vec<u8>>, Gone)> = self.cql.first(&HEAD, values(key)).await?;
        let Some((Some(head), gone)) = row else { return Ok(None) };
        Ok(Some(head_without(pack::read_head(&head)?, &gone)))
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        let row: Option<(Option<Vec<u8>>, Option<Vec<u8>>, Gone)> = self.cql.first(&PACK, values(key)).await?;
        let Some((Some(head), Some(texts), gone)) = row else { return Ok(None) };
        let mut content = pack::read(&head, &texts)?;
        empty_pack(&mut content, &gone);
        Ok(Some(Arc::new(content)))
    }
}

#[async_trait::async_trait]
impl Rejects for CqlStore {
    async fn put(&self, range: RangeKey, attempt: u32, n: u32, rejects: Vec<Reject>) -> Result<(), StoreError> {
        let id = (key::batch(range.batch), i64::from(range.range));
        self.cql.write(&PUT_REJECTS, (id.0, id.1, i64::from(attempt), i64::from(n), reject::write(&rejects))).await
    }

    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError> {
        let values = (key::batch(range.batch), i64::from(range.range), i64::from(attempt), i64::from(n));
        let row: Option<(Option<Vec<u8>>, Gone)> = self.cql.first(&REJECTS, values).await?;
        let Some((Some(body), gone)) = row else { return Ok(vec![]) };
        let mut rejects = reject::read(&body)?;
        empty_rejects(&mut rejects, &gone);
        Ok(rejects)
    }
}

#[async_trait::async_trait]
impl Manifests for CqlStore {
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError> {
        self.cql.cas(&PUT_MANIFEST, (key::batch(lane.batch), key::lane(lane), manifest::write(manifest))).await
    }

    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError> {
        let row: Option<(Vec<u8>,)> = self.cql.first(&MANIFEST, (key::batch(lane.batch), key::lane(lane))).await?;
        row.map(|(body,)| manifest::read(&body).map(Arc::new)).transpose()
    }
}
