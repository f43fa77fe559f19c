//! Letting go of old data: whole partitions, named by what the batch's plan and the lanes' buckets list.

use std::ops::Range;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::control::ControlRows;
use crate::ports::retention::{Kind, Retention};

/// Partitions deleted at once: retention must not stand in the way of anybody.
const DELETES_AT_ONCE: usize = 16;

const DROP_PACKS: Statement = Statement::write("DELETE FROM sms_delivery_pack WHERE batch_id = ? AND lane = ? AND range_no = ?");
const DROP_REJECTS: Statement = Statement::write("DELETE FROM reject WHERE batch_id = ? AND range_no = ?");
// Made under a condition, so removed under one.
const DROP_MANIFEST: Statement = Statement::condition("DELETE FROM manifest WHERE batch_id = ? AND lane = ? IF EXISTS");

#[async_trait::async_trait]
impl Retention for CqlStore {
    async fn drop_batch(&self, batch: BatchId, kind: Kind) -> Result<(), StoreError> {
        match kind {
            Kind::Texts => self.drop_texts(batch).await,
            Kind::History => self.drop_history(batch).await,
            Kind::Batch => self.drop_control(batch).await,
        }
    }

    /// Message ids have a time to live, and so have uncertain recipients, which are few enough to be looked over all the same.
    async fn drop_index_before(&self, before: Timestamp) -> Result<(), StoreError> {
        self.drop_uncertain_before(before).await?;
        self.drop_parked_before(before).await
    }
}

impl CqlStore {
    /// The lanes that a batch can have rows in. Where its row does not say, all there can be.
    async fn lanes_of(&self, batch: BatchId) -> Result<Range<u8>, StoreError> {
        let row = StoreError::unless_damaged(self.peek_batch(batch).await)?;
        Ok(match row.map(|row| row.row.lanes) {
            Some(lanes @ 1..=128) => 0..lanes as u8,
            _ => key::LANES,
        })
    }

    async fn drop_texts(&self, batch: BatchId) -> Result<(), StoreError> {
        let (id, lanes) = (key::batch(batch), self.lanes_of(batch).await?);
        for range in self.ranges_of(batch).await? {
            let range = i64::from(range);
            stream::iter(lanes.clone())
                .map(|lane| self.cql.write(&DROP_PACKS, (id, i32::from(lane), range)))
                .buffer_unordered(DELETES_AT_ONCE)
                .try_for_each(async |()| Ok(()))
                .await?;
            self.cql.write(&DROP_REJECTS, (id, range)).await?;
        }
        stream::iter(lanes)
            .map(|lane| self.cql.cas(&DROP_MANIFEST, (id, i32::from(lane))))
            .buffer_unordered(DELETES_AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await
    }

    async fn drop_history(&self, batch: BatchId) -> Result<(), StoreError> {
        let of_lane = async |lane| {
            let lane = LaneKey { batch, lane };
            self.drop_windows(lane).await?;
            self.drop_receipts(lane).await
        };
        stream::iter(self.lanes_of(batch).await?)
            .map(of_lane)
            .buffer_unordered(DELETES_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await
    }

    /// The batch's own row goes behind its ranges and ledgers, and the lists that name it around it: whoever finds the batch
    /// listed can let go of it once more.
    async fn drop_control(&self, batch: BatchId) -> Result<(), StoreError> {
        self.drop_parts(batch).await?;
        let Some(row) = ControlRows::<BatchId, BatchRow>::load(self, batch).await? else { return Ok(()) };
        self.forget_active(batch, row.row.created.0, row.version as i64).await?;
        self.drop_batch_row(batch).await?;
        self.forget_created(batch, &row.row).await
    }
}
