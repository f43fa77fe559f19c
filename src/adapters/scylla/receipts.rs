//! Reports of recipients: a row for each part, rung and raw text, so that a report that comes twice is there once.
//!
//! A row is written without a condition, because whoever writes it writes the same. Only the answer whether a report was
//! new rests on a read before: of two processes that record the same report in the same instant both may say so. What
//! counts for good is recounted from the rows.
//!
//! Erasing a recipient sets a mark beside the body. A mark is never taken away and a recorder never writes one, so a
//! recorder that is late by any time brings back nothing that a reader shows.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use xxhash_rust::xxh3::xxh3_64;

use super::bucket::Bucketed;
use super::key;
use super::statement::{NAMES_AT_ONCE, Statement};
use super::store::CqlStore;
use crate::adapters::rows::receipt;
use crate::model::id::{LaneKey, RecipientKey};
use crate::ports::StoreError;
use crate::ports::receipts::{MatchedReport, PartKey, Receipts};

/// Places in one partition: those of 64 packs.
const BUCKET_PLACES: u32 = 65_536;
/// Partitions that one call reads and writes at once.
const PARTITIONS_AT_ONCE: usize = 32;
/// Rows read beyond what a list asks for, to see where a recipient ends.
const ROWS_BEYOND: usize = 32;
/// Bytes of a row beside its body, about.
const KEY_BYTES: usize = 60;

const KNOWN: Statement = Statement::read(
    "SELECT seq, part, rung, digest FROM receipt \
     WHERE batch_id = ? AND lane = ? AND bucket = ? AND (seq, part, rung, digest) IN ?",
);
const INSERT: Statement = Statement::write(
    "INSERT INTO receipt (batch_id, lane, bucket, seq, part, rung, digest, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
);
const LIST: Statement = Statement::read(
    "SELECT seq, part, rung, digest, body, erased FROM receipt \
     WHERE batch_id = ? AND lane = ? AND bucket = ? AND (seq, part, rung, digest) > (?, ?, ?, ?) LIMIT ?",
);
const DROP: Statement = Statement::write("DELETE FROM receipt WHERE batch_id = ? AND lane = ? AND bucket = ?");
const ERASE: Statement = Statement::write(
    "UPDATE receipt SET body = ?, erased = true \
     WHERE batch_id = ? AND lane = ? AND bucket = ? AND seq = ? AND part = ? AND rung = ? AND digest = ?",
);

/// Where a report stands within its partition: place, part, rung, digest of the raw text.
type Cell = (i64, i32, i32, i64);
/// A row of [`LIST`].
type Row = (i64, i32, i32, i64, Option<Vec<u8>>, Option<bool>);

/// Before all rows of a place.
fn before(seq: u32) -> Cell {
    (i64::from(seq), -1, -1, i64::MIN)
}

fn cell_of(report: &MatchedReport) -> Cell {
    let PartKey { recipient, part } = report.part;
    let rung = receipt::rung_number(report.report.rung);
    (i64::from(recipient.seq), i32::from(part), i32::from(rung), xxh3_64(report.report.raw.as_bytes()) as i64)
}

fn bucket_of(seq: u32) -> u64 {
    u64::from(seq / BUCKET_PLACES)
}

/// The report of a row; none when its body is gone.
fn report_of(lane: LaneKey, row: Row) -> Result<Option<MatchedReport>, StoreError> {
    let (seq, part, _, _, body, erased) = row;
    let Some(body) = body else { return Ok(None) };
    let recipient = RecipientKey { lane, seq: key::read(seq)? };
    let mut matched = receipt::read(PartKey { recipient, part: key::read(part)? }, &body)?;
    if erased == Some(true) {
        (matched.report.number, matched.report.raw) = (None, String::new());
    }
    Ok(Some(matched))
}

#[async_trait::async_trait]
impl Receipts for CqlStore {
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError> {
        let mut new = vec![false; reports.len()];
        // The first of equal ones counts.
        let mut partitions: BTreeMap<(LaneKey, u64), BTreeMap<Cell, usize>> = BTreeMap::new();
        for (at, report) in reports.iter().enumerate() {
            let RecipientKey { lane, seq } = report.part.recipient;
            partitions.entry((lane, bucket_of(seq))).or_default().entry(cell_of(report)).or_insert(at);
        }
        let reports = &reports;
        let mut recorded = stream::iter(partitions)
            .map(|((lane, bucket), cells)| self.record_in(lane, bucket, cells, reports))
            .buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some(stored) = recorded.try_next().await? {
            stored.into_iter().for_each(|at| new[at] = true);
        }
        Ok(new)
    }

    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError> {
        let mut found: Vec<MatchedReport> = Vec::new();
        for bucket in self.buckets_of(lane, Bucketed::Receipts, bucket_of(from_seq)).await? {
            let mut behind = before(from_seq);
            loop {
                let asked = limit.saturating_sub(found.len()).min(1 << 20) + ROWS_BEYOND;
                let rows = self.receipt_rows(lane, bucket, behind, asked).await?;
                let is_last = rows.len() < asked;
                for row in rows {
                    behind = (row.0, row.1, row.2, row.3);
                    let Some(report) = report_of(lane, row)? else { continue };
                    let begins = found.last().is_some_and(|last| last.part.recipient != report.part.recipient);
                    if begins && found.len() >= limit {
                        return Ok(found);
                    }
                    found.push(report);
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(found)
    }
}

impl CqlStore {
    /// Stores what is not there in one partition; answers which.
    async fn record_in(
        &self,
        lane: LaneKey,
        bucket: u64,
        cells: BTreeMap<Cell, usize>,
        reports: &[MatchedReport],
    ) -> Result<Vec<usize>, StoreError> {
        self.note_bucket(lane, Bucketed::Receipts, bucket).await?;
        let (batch, number, bucket) = (key::batch(lane.batch), key::lane(lane), bucket as i64);
        let names: Vec<Cell> = cells.keys().copied().collect();
        let mut known: BTreeSet<Cell> = BTreeSet::new();
        for some in names.chunks(NAMES_AT_ONCE) {
            known.extend(self.cql.rows::<Cell, _>(&KNOWN, (&batch, number, bucket, some)).await?);
        }
        let new: Vec<(Cell, usize)> = cells.into_iter().filter(|(cell, _)| !known.contains(cell)).collect();
        let stored = new.iter().map(|(_, at)| *at).collect();
        let row = |((seq, part, rung, digest), at): (Cell, usize)| {
            let body = receipt::write(&reports[at].account, &reports[at].report);
            (&batch, number, bucket, seq, part, rung, digest, body)
        };
        let rows: Vec<_> = new.into_iter().map(row).collect();
        self.cql.write_rows(&INSERT, rows, |row| KEY_BYTES + row.7.len()).await?;
        Ok(stored)
    }

    async fn receipt_rows(&self, lane: LaneKey, bucket: u64, behind: Cell, limit: usize) -> Result<Vec<Row>, StoreError> {
        let (batch, (seq, part, rung, digest)) = (key::batch(lane.batch), behind);
        self.cql.rows(&LIST, (&batch, key::lane(lane), bucket as i64, seq, part, rung, digest, limit as i32)).await
    }

    /// Takes number and raw text out of a recipient's reports: see [`crate::ports::erasure::Erasure::erase_reports`].
    pub(super) async fn erase_receipts(&self, recipient: RecipientKey) -> Result<u64, StoreError> {
        let RecipientKey { lane, seq } = recipient;
        let (bucket, batch, number) = (bucket_of(seq), key::batch(lane.batch), key::lane(lane));
        let (mut behind, mut erased) = (before(seq), 0);
        loop {
            let rows = self.receipt_rows(lane, bucket, behind, NAMES_AT_ONCE).await?;
            let is_last = rows.len() < NAMES_AT_ONCE || rows.last().is_some_and(|row| row.0 != i64::from(seq));
            let mut emptied = Vec::new();
            for row in rows.into_iter().filter(|row| row.0 == i64::from(seq)) {
                behind = (row.0, row.1, row.2, row.3);
                let Some(mut matched) = report_of(lane, row)? else { continue };
                if matched.report.number.is_none() && matched.report.raw.is_empty() {
                    continue;
                }
                (matched.report.number, matched.report.raw) = (None, String::new());
                let body = receipt::write(&matched.account, &matched.report);
                emptied.push((body, &batch, number, bucket as i64, behind.0, behind.1, behind.2, behind.3));
            }
            erased += emptied.len() as u64;
            self.cql.write_rows(&ERASE, emptied, |row| KEY_BYTES + row.0.len()).await?;
            if is_last {
                return Ok(erased);
            }
        }
    }

    /// Removes a lane's receipts.
    pub(super) async fn drop_receipts(&self, lane: LaneKey) -> Result<(), StoreError> {
        let buckets = self.buckets_of(lane, Bucketed::Receipts, 0).await?;
        for bucket in &buckets {
            self.cql.write(&DROP, (key::batch(lane.batch), key::lane(lane), *bucket as i64)).await?;
        }
        if buckets.is_empty() { Ok(()) } else { self.forget_buckets(lane, Bucketed::Receipts).await }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::limits::PACK_RECIPIENTS_MAX;

    /// Packs whose receipts lie in one partition.
    const PACKS: u32 = 64;

    #[test]
    fn receipts_of_a_lane_lie_in_partitions_of_sixty_four_packs() {
        let pack = PACK_RECIPIENTS_MAX as u32;
        assert_eq!([0, PACKS * pack - 1, PACKS * pack, 2 * PACKS * pack].map(bucket_of), [0, 0, 1, 2]);
        // A lane of a hundred million recipients in 128 lanes.
        let mut people: BTreeMap<u64, u32> = BTreeMap::new();
        (0..781_250).for_each(|seq| *people.entry(bucket_of(seq)).or_default() += 1);
        assert!(people.len() == 12 && people.values().all(|people| *people <= PACKS * pack), "{people:?}");
        assert!(people.keys().copied().eq(0..12), "a list reads them in order");
    }
}
