//! The suppression list: rows by hash of the number, and all of it in the memory of each process.
//!
//! Nothing tells a process that another one changed the list, and asking the store for every number would cost a read each.
//! So each change leaves random bits beside the bucket that it changed, after its rows are durable, and a process reads these
//! marks, all in one partition, whenever its last reading is older than [`FRESH`]; it then reads the buckets whose bits
//! differ from those it saw before it last read them. A mark is written as one that is later than the one that is there: by its
//! own clock alone, that of a machine whose clock is behind would be hidden by an older one, and its change seen by nobody.
//!
//! A bucket is kept as sorted numbers, eight bytes each: a bitmap of numbers that a hash has scattered would take more.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::statement::Statement;
use super::store::CqlStore;
use crate::model::id::Msisdn;
use crate::model::lane::mix;
use crate::ports::StoreError;
use crate::ports::suppressions::Suppressions;

/// Partitions of the list. Part of the stored form.
const BUCKETS: usize = 1_024;
/// How old a reading of the marks may be when somebody asks.
const FRESH: Duration = Duration::from_millis(400);
/// Buckets read or written at once.
const BUCKETS_AT_ONCE: usize = 32;
/// Bytes of a row, about.
const ROW_BYTES: usize = 40;

const ADD: Statement = Statement::write("INSERT INTO suppressed (bucket, number) VALUES (?, ?)");
const REMOVE: Statement = Statement::write("DELETE FROM suppressed WHERE bucket = ? AND number = ?");
const READ: Statement = Statement::read("SELECT number FROM suppressed WHERE bucket = ?").by(5_000);
const MARK: Statement = Statement::write("INSERT INTO suppression_mark (one, bucket, nonce) VALUES (0, ?, ?) USING TIMESTAMP ?");
const WRITTEN: Statement =
    Statement::read("SELECT bucket, WRITETIME(nonce) FROM suppression_mark WHERE one = 0").by(BUCKETS as i32 + 1);
const MARKS: Statement = Statement::read("SELECT bucket, nonce FROM suppression_mark WHERE one = 0").by(BUCKETS as i32 + 1);

/// The timestamp of a mark, in microseconds: now, but later than the mark that is there.
fn later_than(written: Option<i64>, now: i64) -> i64 {
    written.map_or(now, |written| now.max(written.saturating_add(1)))
}

fn bucket_of(number: Msisdn) -> usize {
    (mix(number.0) % BUCKETS as u64) as usize
}

/// What a process keeps of the list. Nothing is read before somebody asks.
#[derive(Default)]
pub(super) struct SuppressedKept {
    list: RwLock<List>,
    /// Held by the one that reads for all.
    reading: tokio::sync::Mutex<()>,
}

/// The list as this process last read it.
struct List {
    buckets: Vec<Bucket>,
    /// When the last complete reading of it began.
    begun: Option<Instant>,
    /// What this process changed is in readings that began later.
    changed: Option<Instant>,
}

#[derive(Clone, Default)]
struct Bucket {
    /// The mark that was seen before the numbers were read; a bucket without one was never changed.
    mark: Option<i64>,
    /// Sorted.
    numbers: Box<[u64]>,
}

impl List {
    /// Whether it has what was added up to a little before `asked`.
    fn is_fresh(&self, asked: Instant) -> bool {
        self.begun.is_some_and(|begun| begun + FRESH >= asked && self.changed.is_none_or(|changed| begun >= changed))
    }
}

#[async_trait::async_trait]
impl Suppressions for CqlStore {
    async fn add(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        self.change_suppressed(&ADD, numbers).await
    }

    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError> {
        self.change_suppressed(&REMOVE, numbers).await
    }

    async fn check(&self, numbers: &[Msisdn]) -> Result<Vec<bool>, StoreError> {
        self.refresh_suppressed().await?;
        let list = self.suppressed.list();
        let is_in = |number: &Msisdn| list.buckets[bucket_of(*number)].numbers.binary_search(&number.0).is_ok();
        Ok(numbers.iter().map(is_in).collect())
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.refresh_suppressed().await?;
        Ok(self.suppressed.list().buckets.iter().map(|bucket| bucket.numbers.len() as u64).sum())
    }
}

impl Default for List {
    fn default() -> List {
        List { buckets: vec![Bucket::default(); BUCKETS], begun: None, changed: None }
    }
}

impl SuppressedKept {
    fn list(&self) -> RwLockReadGuard<'_, List> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_mut(&self) -> RwLockWriteGuard<'_, List> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CqlStore {
    async fn change_suppressed(&self, statement: &'static Statement, numbers: &[Msisdn]) -> Result<(), StoreError> {
        let mut buckets: BTreeMap<usize, Vec<(i32, i64)>> = BTreeMap::new();
        for number in numbers {
            let bucket = bucket_of(*number);
            buckets.entry(bucket).or_default().push((bucket as i32, number.0 as i64));
        }
        let marks: Vec<(i32, i64)> = buckets.keys().map(|bucket| (*bucket as i32, self.chance.next() as i64)).collect();
        stream::iter(buckets.into_values())
            .map(|rows| self.cql.write_rows(statement, rows, |_| ROW_BYTES))
            .buffer_unordered(BUCKETS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let written: Vec<(i32, i64)> = self.cql.rows(&WRITTEN, ()).await?;
        let written: BTreeMap<i32, i64> = written.into_iter().collect();
        let now = self.clock.now().0.saturating_mul(1_000);
        stream::iter(marks)
            .map(|(bucket, nonce)| self.cql.write(&MARK, (bucket, nonce, later_than(written.get(&bucket).copied(), now))))
            .buffer_unordered(BUCKETS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.suppressed.list_mut().changed = Some(Instant::now());
        Ok(())
    }

    /// Takes in what changed, when the last reading is too old; the callers that come meanwhile wait for the same reading.
    async fn refresh_suppressed(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        if self.suppressed.list().is_fresh(asked) {
            return Ok(());
        }
        let _only_one = self.suppressed.reading.lock().await;
        if self.suppressed.list().is_fresh(asked) {
            return Ok(());
        }
        let begun = Instant::now();
        let marks: Vec<(i32, i64)> = self.cql.rows(&MARKS, ()).await?;
        let changed: Vec<(usize, i64)> = {
            let list = self.suppressed.list();
            let known = |bucket: usize| list.buckets.get(bucket).map(|known| known.mark);
            let marks = marks.into_iter().map(|(bucket, mark)| (bucket as usize, mark));
            marks.filter(|(bucket, mark)| known(*bucket).is_some_and(|known| known != Some(*mark))).collect()
        };
        let mut reads = stream::iter(changed)
            .map(|(bucket, mark)| async move {
                let rows: Vec<(i64,)> = self.cql.rows(&READ, (bucket as i32,)).await?;
                let numbers = rows.into_iter().map(|(number,)| number as u64).collect();
                Ok::<_, StoreError>((bucket, Bucket { mark: Some(mark), numbers }))
            })
            .buffer_unordered(BUCKETS_AT_ONCE);
        while let Some((bucket, read)) = reads.try_next().await? {
            self.suppressed.list_mut().buckets[bucket] = read;
        }
        self.suppressed.list_mut().begun = Some(begun);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_later_than_the_one_that_is_there_whatever_the_clock_says() {
        assert_eq!(
            [later_than(None, 10), later_than(Some(3), 10), later_than(Some(10), 10), later_than(Some(99), 10)],
            [10, 10, 11, 100]
        );
    }

    #[test]
    fn numbers_that_follow_each_other_are_spread_over_all_partitions() {
        let mut numbers = vec![0u32; BUCKETS];
        (0..64 * BUCKETS as u64).for_each(|n| numbers[bucket_of(Msisdn(4_915_110_000_000 + n))] += 1);
        // Sixty-four each, give or take what chance gives and takes.
        assert!(numbers.iter().all(|numbers| (24..128).contains(numbers)), "{numbers:?}");
    }
}
