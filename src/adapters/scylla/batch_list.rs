//! Lists of batches: the active ones, and all by time of creation.
//!
//! Neither is part of the row's own conditional write, so each is written before it and read with care. The list by time
//! may name a batch whose creation was refused, which is seen by its row; the index of active ones may name one that has
//! ended. Entries of that index carry the version of the row as their timestamp: whoever writes late, and whatever the clocks
//! say, the newest version has the last word.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::key;
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::key::{KeyBuilder, KeyReader};
use crate::model::batch::BatchRow;
use crate::model::hex;
use crate::model::id::BatchId;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::batches::{BatchIndex, Listed};
use crate::ports::control::ControlRows;
use crate::runtime::digest;

/// Partitions of a day, and of the active batches. Part of the stored form.
const SHARDS: u8 = 8;
const DAY: i64 = 24 * 3_600_000;
/// Every so many calls for the active batches look for entries that nobody needs.
const TIDY_EVERY: u32 = 256;
/// An entry without a row may be about to get one; after this long it does not any more.
const ABANDONED: i64 = DAY;
/// Rows that one list reads at once.
const ROWS_AT_ONCE: usize = 32;

const NOTE_DAY: Statement = Statement::write("INSERT INTO batch_day (one, day) VALUES (0, ?)");
const DAYS: Statement = Statement::read("SELECT day FROM batch_day WHERE one = 0 AND day <= ?");
const NOTE_CREATED: Statement = Statement::write("INSERT INTO batch_by_day (day, shard, created, batch_id) VALUES (?, ?, ?, ?)");
const FORGET_CREATED: Statement =
    Statement::write("DELETE FROM batch_by_day WHERE day = ? AND shard = ? AND created = ? AND batch_id = ?");
const NEWEST: Statement = Statement::read("SELECT created, batch_id FROM batch_by_day WHERE day = ? AND shard = ? LIMIT ?");
const NEWEST_BEHIND: Statement = Statement::read(
    "SELECT created, batch_id FROM batch_by_day WHERE day = ? AND shard = ? AND (created, batch_id) < (?, ?) LIMIT ?",
);

const NOTE_ACTIVE: Statement =
    Statement::write("INSERT INTO active_batch (shard, batch_id, created, noted) VALUES (?, ?, ?, ?) USING TIMESTAMP ?");
const NOTE_ENDED: Statement =
    Statement::write("DELETE FROM active_batch USING TIMESTAMP ? WHERE shard = ? AND batch_id = ? AND created = ?");
const ACTIVE: Statement = Statement::read("SELECT batch_id, created, noted, WRITETIME(noted) FROM active_batch WHERE shard = ?");

/// An entry of the index of active batches.
struct Entry {
    batch: BatchId,
    created: i64,
    noted: i64,
    version: i64,
}

fn shard(batch: BatchId) -> i32 {
    (batch.0 % u128::from(SHARDS)) as i32
}

fn day(created: i64) -> i32 {
    created.div_euclid(DAY) as i32
}

impl CqlStore {
    /// Enters a batch into the list by time.
    pub(super) async fn note_created(&self, batch: BatchId, row: &BatchRow) -> Result<(), StoreError> {
        let created = row.created.0;
        self.cql.write(&NOTE_DAY, (day(created),)).await?;
        self.cql.write(&NOTE_CREATED, (day(created), shard(batch), created, key::batch(batch))).await
    }

    /// Removes a batch from the list by time.
    pub(super) async fn forget_created(&self, batch: BatchId, row: &BatchRow) -> Result<(), StoreError> {
        let created = row.created.0;
        self.cql.write(&FORGET_CREATED, (day(created), shard(batch), created, key::batch(batch))).await
    }

    /// Enters a batch that is about to be active at this version of its row.
    pub(super) async fn note_active(&self, batch: BatchId, row: &BatchRow, version: i64) -> Result<(), StoreError> {
        let values = (shard(batch), key::batch(batch), row.created.0, self.clock.now().0, version);
        self.cql.write(&NOTE_ACTIVE, values).await
    }

    /// Removes a batch that ended at this version of its row. The row has the word: an entry that could not be removed is
    /// found when the index is tidied.
    pub(super) async fn note_ended(&self, batch: BatchId, row: &BatchRow, version: i64) {
        if let Err(error) = self.forget_active(batch, row.created.0, version).await {
            tracing::debug!(%batch, %error, "an ended batch stays in the index of active ones for a while");
        }
    }

    /// Removes an entry as it was up to a version.
    pub(super) async fn forget_active(&self, batch: BatchId, created: i64, version: i64) -> Result<(), StoreError> {
        self.cql.write(&NOTE_ENDED, (version, shard(batch), key::batch(batch), created)).await
    }

    async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let of_shard = async |shard: u8| -> Result<Vec<Entry>, StoreError> {
            let rows: Vec<(Vec<u8>, i64, i64, i64)> = self.cql.rows(&ACTIVE, (i32::from(shard),)).await?;
            let entry = |(batch, created, noted, version): (Vec<u8>, i64, i64, i64)| {
                Ok(Entry { batch: key::read_batch(&batch)?, created, noted, version })
            };
            rows.into_iter().map(entry).collect()
        };
        let shards: Vec<Vec<Entry>> = stream::iter(0..SHARDS).map(of_shard).buffered(SHARDS.into()).try_collect().await?;
        Ok(shards.into_iter().flatten().collect())
    }

    /// Removes entries of batches that have ended, and of creations that came to nothing.
    async fn tidy(&self, entries: &[Entry]) -> Result<(), StoreError> {
        for entry in entries {
            let row = ControlRows::<BatchId, BatchRow>::load(self, entry.batch).await;
            let Some(row) = self.unread_batches.read(row)? else { continue };
            match row.filter(|row| row.row.created.0 == entry.created) {
                Some(row) if row.row.is_active() => {}
                // Whatever makes it active again has a higher version.
                Some(row) => self.forget_active(entry.batch, entry.created, row.version as i64).await?,
                None if self.clock.now().0.saturating_sub(entry.noted) > ABANDONED => {
                    self.forget_active(entry.batch, entry.created, entry.version).await?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Names of a day's batches, newest first, behind a place, at most `limit`.
    async fn of_day(&self, day: i32, behind: Option<(i64, BatchId)>, limit: usize) -> Result<Vec<(i64, BatchId)>, StoreError> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let of_shard = async |shard: u8| -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
            let shard = i32::from(shard);
            match behind {
                None => self.cql.rows(&NEWEST, (day, shard, most)).await,
                Some((created, batch)) => self.cql.rows(&NEWEST_BEHIND, (day, shard, created, key::batch(batch), most)).await,
            }
        };
        let shards: Vec<Vec<_>> = stream::iter(0..SHARDS).map(of_shard).buffered(SHARDS.into()).try_collect().await?;
        let named: Result<Vec<_>, _> =
            shards.into_iter().flatten().map(|(created, batch)| Ok((created, key::read_batch(&batch)?))).collect();
        let mut named = named?;
        named.sort_unstable_by(|a, b| b.cmp(a));
        named.truncate(limit);
        Ok(named)
    }
}

#[async_trait::async_trait]
impl BatchIndex for CqlStore {
    async fn active(&self) -> Result<Vec<BatchId>, StoreError> {
        let entries = self.entries().await?;
        if self.active_calls.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.tidy(&entries).await?;
        }
        let batches: BTreeSet<BatchId> = entries.into_iter().map(|entry| entry.batch).collect();
        Ok(batches.into_iter().collect())
    }

    async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        // A place that is none is taken as the end of the list: it can only come from outside.
        let behind = match behind.as_deref().map(read_place) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return Ok((vec![], None)),
        };
        let newest_day = behind.map_or(i32::MAX, |(created, _)| day(created));
        let days: Vec<(i32,)> = self.cql.rows(&DAYS, (newest_day,)).await?;
        let mut named: Vec<(i64, BatchId)> = Vec::new();
        for (day_of,) in days {
            let within = behind.filter(|(created, _)| day(*created) == day_of);
            // One more than asked for tells whether there is a next page.
            named.extend(self.of_day(day_of, within, limit + 1 - named.len()).await?);
            if named.len() > limit {
                break;
            }
        }
        let has_more = named.len() > limit;
        named.truncate(limit);
        let place = named.last().filter(|_| has_more).map(|(created, batch)| write_place(*created, *batch));
        let row = async |(created, batch): (i64, BatchId)| -> Result<Option<Listed>, StoreError> {
            let row = self.unread_batches.read(self.peek_batch(batch).await)?.flatten();
            // The name of a creation that was refused, or a batch that was dropped.
            Ok(row.filter(|row| row.row.created.0 == created).map(|row| Listed { batch, row: row.row }))
        };
        let rows: Vec<Option<Listed>> = stream::iter(named).map(row).buffered(ROWS_AT_ONCE).try_collect().await?;
        Ok((rows.into_iter().flatten().collect(), place))
    }
}

/// The place behind a batch, the same in every implementation.
fn write_place(created: i64, batch: BatchId) -> String {
    let key = KeyBuilder::new().time(Timestamp(created)).batch(batch).done();
    digest::hex(&key)
}

fn read_place(text: &str) -> Option<(i64, BatchId)> {
    let bytes = hex::bytes(text).filter(|bytes| bytes.len() == 24)?;
    let mut fields = KeyReader(&bytes);
    Some((fields.time().ok()?.0, fields.batch().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::SmsBatch;

    #[test]
    fn batches_of_one_day_are_spread_over_eight_partitions() {
        let mut batches = [0u32; SHARDS as usize];
        for n in 0..4_000u32 {
            let id = SmsBatch::generate_id(&digest::digest([n.to_be_bytes().as_slice()]));
            batches[usize::try_from(shard(id)).expect("it is not negative")] += 1;
        }
        assert_eq!(batches.len(), 8);
        assert!(batches.iter().all(|batches| (400..600).contains(batches)), "{batches:?}");
    }

    #[test]
    fn a_place_reads_back_and_days_begin_at_midnight() {
        for created in [-1, 0, 1_700_000_000_000] {
            assert_eq!(read_place(&write_place(created, BatchId(7))), Some((created, BatchId(7))));
        }
        assert_eq!(read_place("no such place"), None);
        assert_eq!(read_place(&"z".repeat(48)), None);
        assert_eq!(read_place(&"+1".repeat(24)), None, "a place is written in one way");
        assert_eq!([-1, 0, DAY - 1, DAY].map(day), [-1, 0, 0, 1]);
    }
}
