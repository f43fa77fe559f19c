//! Answers, judgements and retry packs.
//!
//! A window's answers and its judgement are two cells of one row, each written by one process. The index entries of the
//! answers are durable before the answers are: whoever finds a window complete finds its message ids too.

use super::bucket::Bucketed;
use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::window;
use crate::model::id::{LaneKey, WindowKey};
use crate::model::window::{Judgement, RetryPack, WindowRow};
use crate::ports::StoreError;
use crate::ports::receipts::IndexEntry;
use crate::ports::windows::{StoredWindow, Windows};

/// Names of windows in one partition. Part of the stored form.
const BUCKET_WINDOWS: u64 = 512;
/// Windows of a page: each has up to two thousand answers.
const PAGE_WINDOWS: i32 = 20;

const PUT_ROW: Statement =
    Statement::write("INSERT INTO send_window (batch_id, lane, bucket, window_no, body) VALUES (?, ?, ?, ?, ?)");
const PUT_JUDGEMENT: Statement =
    Statement::write("INSERT INTO send_window (batch_id, lane, bucket, window_no, judgement) VALUES (?, ?, ?, ?, ?)");
const GET: Statement = Statement::read(
    "SELECT window_no, body, judgement FROM send_window WHERE batch_id = ? AND lane = ? AND bucket = ? AND window_no = ?",
);
const LIST: Statement = Statement::read(
    "SELECT window_no, body, judgement FROM send_window WHERE batch_id = ? AND lane = ? AND bucket = ? AND window_no >= ?",
)
.by(PAGE_WINDOWS);
const DROP_BUCKET: Statement = Statement::write("DELETE FROM send_window WHERE batch_id = ? AND lane = ? AND bucket = ?");
const PUT_RETRY: Statement = Statement::write("INSERT INTO retry_pack (batch_id, lane, name, body) VALUES (?, ?, ?, ?)");
const RETRY: Statement = Statement::read("SELECT body FROM retry_pack WHERE batch_id = ? AND lane = ? AND name = ?");
const DROP_RETRIES: Statement = Statement::write("DELETE FROM retry_pack WHERE batch_id = ? AND lane = ?");

/// A row as it is read.
type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn values(key: WindowKey) -> ([u8; 16], i32, i64, i64) {
    (key::batch(key.lane.batch), key::lane(key.lane), bucket_of(key.window) as i64, key.window as i64)
}

fn bucket_of(window: u64) -> u64 {
    window / BUCKET_WINDOWS
}

fn read(lane: LaneKey, (window, body, judgement): Row) -> Result<StoredWindow, StoreError> {
    Ok(StoredWindow {
        key: WindowKey { lane, window: key::read(window)? },
        row: body.map(|body| window::read(&body)).transpose()?,
        judgement: judgement.map(|judgement| window::read_judgement(&judgement)).transpose()?,
    })
}

#[async_trait::async_trait]
impl Windows for CqlStore {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        futures::try_join!(self.note_window(key), self.note_messages(index))?;
        let (batch, lane, bucket, window) = values(key);
        self.cql.write(&PUT_ROW, (batch, lane, bucket, window, window::write(row))).await
    }

    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError> {
        self.note_window(key).await?;
        let (batch, lane, bucket, window) = values(key);
        self.cql.write(&PUT_JUDGEMENT, (batch, lane, bucket, window, window::write_judgement(judgement))).await
    }

    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        let row: Option<Row> = self.cql.first(&GET, values(key)).await?;
        row.map(|row| read(key.lane, row)).transpose()
    }

    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        let mut found = Vec::new();
        for bucket in self.buckets_of(lane, Bucketed::Windows, bucket_of(from)).await? {
            if found.len() >= limit {
                break;
            }
            let values = (key::batch(lane.batch), key::lane(lane), bucket as i64, from as i64);
            let more = |row: Row| {
                found.push(read(lane, row)?);
                Ok(found.len() < limit)
            };
            self.cql.scan(&LIST, values, more).await?;
        }
        Ok(found)
    }

    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError> {
        let values = (key::batch(lane.batch), key::lane(lane), name as i64, window::write_retry(pack));
        self.cql.write(&PUT_RETRY, values).await
    }

    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        let row: Option<(Vec<u8>,)> = self.cql.first(&RETRY, (key::batch(lane.batch), key::lane(lane), name as i64)).await?;
        row.map(|(body,)| window::read_retry(&body)).transpose()
    }
}

impl CqlStore {
    async fn note_window(&self, key: WindowKey) -> Result<(), StoreError> {
        self.note_bucket(key.lane, Bucketed::Windows, bucket_of(key.window)).await
    }

    /// Removes a lane's windows and retry packs.
    pub(super) async fn drop_windows(&self, lane: LaneKey) -> Result<(), StoreError> {
        let (batch, number) = (key::batch(lane.batch), key::lane(lane));
        let buckets = self.buckets_of(lane, Bucketed::Windows, 0).await?;
        for bucket in &buckets {
            self.cql.write(&DROP_BUCKET, (batch, number, *bucket as i64)).await?;
        }
        if !buckets.is_empty() {
            self.forget_buckets(lane, Bucketed::Windows).await?;
        }
        self.cql.write(&DROP_RETRIES, (batch, number)).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::id::BatchId;

    #[test]
    fn windows_of_a_lane_lie_in_partitions_of_five_hundred() {
        let lane = LaneKey { batch: BatchId(1), lane: 2 };
        let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
        for window in 0..3_000 {
            let (_, _, bucket, row) = values(WindowKey { lane, window });
            assert_eq!((row, bucket), (window as i64, bucket_of(window) as i64), "a row is written where it is looked for");
            *windows.entry(bucket).or_default() += 1;
        }
        let sizes: Vec<u64> = windows.into_values().collect();
        assert_eq!(sizes, [512, 512, 512, 512, 512, 440]);
        assert!((1..3_000).all(|window| bucket_of(window - 1) <= bucket_of(window)), "a list reads them in order");
    }
}
