//! Which buckets of a lane were ever used: noted before the first row goes in, so that a list need not guess.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::model::id::LaneKey;
use crate::ports::StoreError;

/// Buckets that a process remembers having noted. Noting one again costs a write and changes nothing.
const REMEMBERED: usize = 65_536;

const NOTE: Statement = Statement::write("INSERT INTO lane_bucket (batch_id, lane, kind, bucket) VALUES (?, ?, ?, ?)");
const LIST: Statement =
    Statement::read("SELECT bucket FROM lane_bucket WHERE batch_id = ? AND lane = ? AND kind = ? AND bucket >= ?");
const FORGET: Statement = Statement::write("DELETE FROM lane_bucket WHERE batch_id = ? AND lane = ? AND kind = ?");

/// What stands in buckets. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucketed {
    /// Windows.
    Windows = 0,
    /// Receipts.
    Receipts = 1,
}

/// The buckets that this process has noted.
#[derive(Default)]
pub(super) struct Buckets(Mutex<HashSet<(LaneKey, Bucketed, u64)>>);

impl CqlStore {
    /// Notes that a bucket is used. To be called before a row goes in.
    pub(super) async fn note_bucket(&self, lane: LaneKey, kind: Bucketed, bucket: u64) -> Result<(), StoreError> {
        let entry = (lane, kind, bucket);
        if self.noted().contains(&entry) {
            return Ok(());
        }
        self.cql.write(&NOTE, (key::batch(lane.batch), key::lane(lane), kind as i32, bucket as i64)).await?;
        let mut noted = self.noted();
        if noted.len() >= REMEMBERED {
            noted.clear();
        }
        noted.insert(entry);
        Ok(())
    }

    /// The buckets of a lane that may hold rows, in order, from `from` on.
    pub(super) async fn buckets_of(&self, lane: LaneKey, kind: Bucketed, from: u64) -> Result<Vec<u64>, StoreError> {
        let values = (key::batch(lane.batch), key::lane(lane), kind as i32, from as i64);
        let rows: Vec<(i64,)> = self.cql.rows(&LIST, values).await?;
        rows.into_iter().map(|(bucket,)| key::read(bucket)).collect()
    }

    /// Forgets a lane's buckets, once their rows are gone.
    pub(super) async fn forget_buckets(&self, lane: LaneKey, kind: Bucketed) -> Result<(), StoreError> {
        self.noted().retain(|(noted, of, _)| *noted != lane || *of != kind);
        self.cql.write(&FORGET, (key::batch(lane.batch), key::lane(lane), kind as i32)).await
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, HashSet<(LaneKey, Bucketed, u64)>> {
        self.buckets.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
