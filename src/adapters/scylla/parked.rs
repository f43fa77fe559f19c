//! Parked reports: a row by name, and a place in the order of due times.
//!
//! A place counts only if its report's row says the same; so a report is parked by writing its new place, then its row, then
//! taking its old place away, and removed by deleting its row, then its place. Whatever is interrupted leaves a place too
//! many, never one too few. Such a place is taken away when it is met again a minute later: before that, it may be the first
//! step of a park that is not done.
//!
//! Places are a queue: those that were taken away lie in front of those that wait, and a read from the beginning would pass
//! over all of them. Each process therefore begins where it last found the first one that waits, some minutes earlier at
//! most than now, and from the beginning only now and then, for what another process parked with an old due time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::merge::{merged, signed, unsigned};
use super::statement::Statement;
use super::store::CqlStore;
use crate::adapters::rows::receipt::{read_parked, write_parked};
use crate::model::id::Msisdn;
use crate::model::lane::mix;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{Parked, ParkedReport};

/// Partitions of each order. Part of the stored form.
const SHARDS: u16 = 16;
/// Rows that one call reads or writes at once.
const ROWS_AT_ONCE: usize = 32;
/// Bytes of a place, about.
const PLACE_BYTES: usize = 48;
/// How long a place may disagree with its row before it is taken away.
const DISAGREES_MAX: Duration = Duration::from_secs(60);
/// A park that took longer than this between its place and its row writes the place again: see [`DISAGREES_MAX`].
const PARK_MAX: Duration = Duration::from_secs(20);
/// Disagreeing places that one process remembers at most; beyond, it begins anew.
const DISAGREEING_MAX: usize = 10_000;
/// How far behind the present reads begin at least: no process parks with a due time that is older, unless it was frozen or
/// its clock is wrong.
const MARGIN_MS: i64 = 5 * 60_000;
/// How often reads begin at the beginning all the same.
const FULL_EVERY: Duration = Duration::from_secs(600);
/// How often that is tried again after it failed.
const TRIED_EVERY: Duration = Duration::from_secs(60);
/// A count that took this long is given again for [`COUNT_SHARE`] times as long, whatever this process changes meanwhile.
const COUNT_SLOW: Duration = Duration::from_secs(5);
/// One part in so many of the time may go into counting.
const COUNT_SHARE: u32 = 20;
/// Reports taken away at once by a sweep.
const SWEEP_AT_ONCE: usize = 5_000;

const PUT: Statement = Statement::write("INSERT INTO parked (id, body) VALUES (?, ?)");
const GET: Statement = Statement::read("SELECT body FROM parked WHERE id = ?");
const ALL: Statement = Statement::read("SELECT body FROM parked");
const ALL_WRITTEN: Statement = Statement::read("SELECT id, body, WRITETIME(body) FROM parked");
const DELETE: Statement = Statement::write("DELETE FROM parked WHERE id = ?");
const PUT_PLACE: Statement = Statement::write("INSERT INTO parked_place (state, shard, due, id) VALUES (?, ?, ?, ?)");
const DELETE_PLACE: Statement = Statement::write("DELETE FROM parked_place WHERE state = ? AND shard = ? AND due = ? AND id = ?");
const PLACES: Statement = Statement::read(
    "SELECT due, id FROM parked_place WHERE state = ? AND shard = ? AND (due, id) > (?, ?) AND (due) <= (?) LIMIT ?",
);
const COUNT: Statement = Statement::read("SELECT count(*) FROM parked_place WHERE state = ? AND shard = ?");

/// Where a report stands: state, due time, name. In the servers' order.
type Place = (i32, i64, i64);
/// A place as it is written: state, shard, due time, name.
type PlaceRow = (i32, i32, i64, i64);

const WAITING: i32 = 0;
const UNMATCHED: i32 = 1;

fn place_of(id: u64, due: Option<Timestamp>) -> Place {
    match due {
        Some(due) => (WAITING, due.0, signed(id)),
        None => (UNMATCHED, 0, signed(id)),
    }
}

fn shard_of(id: i64) -> i32 {
    (mix(unsigned(id)) % u64::from(SHARDS)) as i32
}

/// What a process keeps of parked reports.
#[derive(Default)]
pub(super) struct ParkedKept {
    known: Mutex<Known>,
    /// Held by the one that looks for what is due.
    looking: tokio::sync::Mutex<()>,
}

/// What a process remembers.
struct Known {
    /// Nothing waits in front of this due time.
    from: i64,
    /// The earliest due time that this process parked since the last look began.
    parked: i64,
    /// When everything was last looked over.
    full: Option<Instant>,
    /// When that was last tried.
    tried: Option<Instant>,
    /// Places that disagree with their rows, and since when.
    disagreeing: HashMap<Place, Instant>,
    /// The last count, when it was made, how long it took, and whether this process changed something since.
    counted: Option<((u64, u64), Instant, Duration, bool)>,
}

#[async_trait::async_trait]
impl Parked for CqlStore {
    async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError> {
        // The last of one name counts.
        let latest: BTreeMap<u64, ParkedReport> = reports.into_iter().map(|report| (report.id, report)).collect();
        if latest.is_empty() {
            return Ok(());
        }
        let ids: Vec<u64> = latest.keys().copied().collect();
        let old: HashMap<u64, Place> =
            self.parked_rows(&ids).await?.into_iter().flatten().map(|old| (old.id, place_of(old.id, old.due))).collect();
        let places: Vec<Place> = latest.values().map(|report| place_of(report.id, report.due)).collect();
        {
            let mut known = self.parked_known();
            let waiting = places.iter().filter(|place| place.0 == WAITING);
            let earliest = waiting.map(|place| place.1).min().unwrap_or(i64::MAX);
            (known.from, known.parked) = (known.from.min(earliest), known.parked.min(earliest));
        }
        let begun = Instant::now();
        self.write_places(&PUT_PLACE, &places).await?;
        let rows: Vec<(i64, Vec<u8>)> = latest.values().map(|report| (signed(report.id), write_parked(report))).collect();
        stream::iter(rows).map(|row| self.cql.write(&PUT, row)).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
        if begun.elapsed() > PARK_MAX {
            self.write_places(&PUT_PLACE, &places).await?;
        }
        let left: Vec<Place> = latest
            .values()
            .filter_map(|report| old.get(&report.id).filter(|old| **old != place_of(report.id, report.due)).copied())
            .collect();
        self.write_places(&DELETE_PLACE, &left).await?;
        self.parked_changed();
        Ok(())
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        if limit == 0 {
            return Ok(vec![]);
        }
        let _only_one = self.parked.looking.lock().await;
        let begun = Instant::now();
        let mut from = self.parked_known().begin(begun);
        let mut read = self.agreeing_parked(WAITING, (from, i64::MIN), now.0, limit).await;
        let earlier = self.parked_known().from;
        if let Err(error) = &read
            && from < earlier
        {
            // More may have been taken away at the beginning than a server passes over. What waits behind is found all the same.
            tracing::warn!(code = %error.code(), %error, "parked reports cannot be looked over from the beginning now");
            from = earlier;
            read = self.agreeing_parked(WAITING, (from, i64::MIN), now.0, limit).await;
        }
        let (found, first) = read?;
        self.parked_known().end(from, first, now.0, begun);
        Ok(found)
    }

    async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        let there: Vec<ParkedReport> = self.parked_rows(&ids).await?.into_iter().flatten().collect();
        let names: Vec<(i64,)> = there.iter().map(|report| (signed(report.id),)).collect();
        stream::iter(names).map(|name| self.cql.write(&DELETE, name)).buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
        let places: Vec<Place> = there.iter().map(|report| place_of(report.id, report.due)).collect();
        self.write_places(&DELETE_PLACE, &places).await?;
        self.parked_changed();
        Ok(())
    }

    /// Counts places, shard by shard, where they stand: exact but for places that disagree with their rows. See
    /// [`COUNT_SLOW`] for how old an answer may be.
    async fn counts(&self) -> Result<(u64, u64), StoreError> {
        let last = self.parked_known().counted;
        if let Some((counts, at, took, changed)) = last
            && at.elapsed() < took * COUNT_SHARE
            && (!changed || took >= COUNT_SLOW)
        {
            return Ok(counts);
        }
        // Set before counting: what changes meanwhile is counted again.
        if let Some(counted) = &mut self.parked_known().counted {
            counted.3 = false;
        }
        let begun = Instant::now();
        let mut counts = [0u64; 2];
        for (state, count) in counts.iter_mut().enumerate() {
            let shards: Vec<u64> = stream::iter(0..i32::from(SHARDS))
                .map(|shard| async move {
                    let row: Option<(i64,)> = self.cql.first(&COUNT, (state as i32, shard)).await?;
                    Ok::<u64, StoreError>(row.map_or(0, |(count,)| count as u64))
                })
                .buffer_unordered(ROWS_AT_ONCE)
                .try_collect()
                .await?;
            *count = shards.into_iter().sum();
        }
        let counts = (counts[0], counts[1]);
        let mut known = self.parked_known();
        let changed = known.counted.is_some_and(|counted| counted.3);
        known.counted = Some((counts, Instant::now(), begun.elapsed(), changed));
        Ok(counts)
    }

    async fn unmatched(&self, behind: Option<u64>, limit: usize) -> Result<Vec<ParkedReport>, StoreError> {
        let behind = behind.map_or((-1, i64::MIN), |id| (0, signed(id)));
        Ok(self.agreeing_parked(UNMATCHED, behind, 0, limit).await?.0)
    }
}

impl Default for Known {
    fn default() -> Known {
        let disagreeing = HashMap::new();
        Known { from: i64::MIN, parked: i64::MAX, full: None, tried: None, disagreeing, counted: None }
    }
}

impl Known {
    /// Where a look for what is due begins. Where it may begin is not forgotten before the look is over: a look from the
    /// beginning that fails must not make all later ones begin there.
    fn begin(&mut self, now: Instant) -> i64 {
        self.parked = i64::MAX;
        let is_past = |at: Option<Instant>, by: Duration| at.is_none_or(|at| now.duration_since(at) > by);
        if !is_past(self.full, FULL_EVERY) || !is_past(self.tried, TRIED_EVERY) {
            return self.from;
        }
        self.tried = Some(now);
        i64::MIN
    }

    /// A look that began at `from`, at the instant `begun`, found its first place at `first`.
    fn end(&mut self, from: i64, first: i64, now: i64, begun: Instant) {
        if from == i64::MIN {
            self.full = Some(begun);
        }
        let reached = first.min(now.saturating_sub(MARGIN_MS)).max(from);
        self.from = reached.min(self.parked);
    }
}

impl CqlStore {
    fn parked_known(&self) -> MutexGuard<'_, Known> {
        self.parked.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parked_changed(&self) {
        if let Some(counted) = &mut self.parked_known().counted {
            counted.3 = true;
        }
    }

    /// Reports in the order of their places, behind a place and up to a due time, whose rows agree; and the due time of
    /// the first place that is there, agreeing or not.
    async fn agreeing_parked(
        &self,
        state: i32,
        behind: (i64, i64),
        until: i64,
        limit: usize,
    ) -> Result<(Vec<ParkedReport>, i64), StoreError> {
        let (mut found, mut behind, mut first) = (Vec::new(), behind, i64::MAX);
        while found.len() < limit {
            let asked = limit - found.len();
            let page = |shard: u16, last: Option<(i64, i64)>, limit: usize| {
                let (due, id) = last.unwrap_or(behind);
                let values = (state, i32::from(shard), due, id, until, limit.min(i32::MAX as usize) as i32);
                async move { self.cql.rows::<(i64, i64), _>(&PLACES, values).await }.boxed()
            };
            let places = merged(SHARDS, asked, |a: &(i64, i64), b: &(i64, i64)| a.cmp(b), page).await?;
            first = places.first().map_or(first, |place| place.0.min(first));
            let is_last = places.len() < asked;
            behind = places.last().copied().unwrap_or(behind);
            let ids: Vec<u64> = places.iter().map(|(_, id)| unsigned(*id)).collect();
            let (mut agreeing, mut disagreeing) = (Vec::new(), Vec::new());
            for ((due, id), report) in places.into_iter().zip(self.parked_rows(&ids).await?) {
                let place = (state, due, id);
                match report.filter(|report| place_of(report.id, report.due) == place) {
                    Some(report) => {
                        found.push(report);
                        agreeing.push(place);
                    }
                    None => disagreeing.push(place),
                }
            }
            self.tidy_places(&agreeing, disagreeing).await?;
            if is_last {
                break;
            }
        }
        Ok((found, first))
    }

    /// Takes places away that have disagreed with their rows for long enough.
    async fn tidy_places(&self, agreeing: &[Place], disagreeing: Vec<Place>) -> Result<(), StoreError> {
        let old: Vec<Place> = {
            let mut known = self.parked_known();
            if !known.disagreeing.is_empty() {
                agreeing.iter().for_each(|place| {
                    known.disagreeing.remove(place);
                });
            }
            if known.disagreeing.len() > DISAGREEING_MAX {
                known.disagreeing.clear();
            }
            let now = Instant::now();
            let old = |place: &Place| now.duration_since(*known.disagreeing.entry(*place).or_insert(now)) > DISAGREES_MAX;
            disagreeing.into_iter().filter(old).collect()
        };
        if old.is_empty() {
            return Ok(());
        }
        self.write_places(&DELETE_PLACE, &old).await?;
        let mut known = self.parked_known();
        old.iter().for_each(|place| {
            known.disagreeing.remove(place);
        });
        Ok(())
    }

    /// The rows of these names, in their order. One that is damaged is none: its place is taken away like any other that
    /// disagrees, and retention takes the row.
    async fn parked_rows(&self, ids: &[u64]) -> Result<Vec<Option<ParkedReport>>, StoreError> {
        stream::iter(ids.to_vec())
            .map(|id| async move {
                let row: Option<(Vec<u8>,)> = self.cql.first(&GET, (signed(id),)).await?;
                let Some((body,)) = row else { return Ok(None) };
                self.unread_parked.read(read_parked(&body))
            })
            .buffered(ROWS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn write_places(&self, statement: &'static Statement, places: &[Place]) -> Result<(), StoreError> {
        let mut partitions: BTreeMap<(i32, i32), Vec<PlaceRow>> = BTreeMap::new();
        for &(state, due, id) in places {
            partitions.entry((state, shard_of(id))).or_default().push((state, shard_of(id), due, id));
        }
        stream::iter(partitions.into_values())
            .map(|rows| self.cql.write_rows(statement, rows, |_| PLACE_BYTES))
            .buffer_unordered(ROWS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Reports that are about a number or name it. Reads all of them, a page at a time.
    pub(super) async fn parked_of_number(&self, number: Msisdn) -> Result<Vec<ParkedReport>, StoreError> {
        let digits = number.digits();
        let mut found =
            self.parked_such_as(|parked| parked.report.number == Some(number) || parked.report.raw.contains(&digits)).await?;
        found.sort_by_key(|parked| parked.id);
        Ok(found)
    }

    /// Removes reports that came in before an instant; damaged ones, which do not tell, that were written before it. Reads all
    /// of them, a page at a time.
    pub(super) async fn drop_parked_before(&self, before: Timestamp) -> Result<(), StoreError> {
        loop {
            let (mut old, mut damaged) = (Vec::new(), Vec::new());
            self.cql
                .scan(&ALL_WRITTEN, (), |(id, body, written): (i64, Vec<u8>, i64)| {
                    match self.unread_parked.read(read_parked(&body))? {
                        Some(parked) if parked.report.received < before => old.push(parked.id),
                        None if written / 1_000 < before.0 => damaged.push((id,)),
                        _ => {}
                    }
                    Ok(old.len() + damaged.len() < SWEEP_AT_ONCE)
                })
                .await?;
            let is_last = old.len() + damaged.len() < SWEEP_AT_ONCE;
            Parked::remove(self, old).await?;
            let deletes = stream::iter(damaged).map(|name| self.cql.write(&DELETE, name));
            deletes.buffer_unordered(ROWS_AT_ONCE).try_collect::<()>().await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn parked_such_as(
        &self,
        is_wanted: impl Fn(&ParkedReport) -> bool + Send + Sync,
    ) -> Result<Vec<ParkedReport>, StoreError> {
        let mut found = Vec::new();
        self.cql
            .scan(&ALL, (), |(body,): (Vec<u8>,)| {
                found.extend(self.unread_parked.read(read_parked(&body))?.filter(&is_wanted));
                Ok(true)
            })
            .await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[tokio::test(start_paused = true)]
    async fn a_look_from_the_beginning_that_fails_does_not_make_the_next_ones_begin_there() {
        let mut known = Known::default();
        let begun = Instant::now();
        assert_eq!(known.begin(begun), i64::MIN);
        known.end(i64::MIN, NOW - 7, NOW, begun);
        let from = NOW - MARGIN_MS;
        assert_eq!(known.begin(Instant::now()), from);
        tokio::time::advance(FULL_EVERY + Duration::from_secs(1)).await;
        // It fails now, and each time that it is tried.
        for _ in 0..3 {
            assert_eq!((known.begin(Instant::now()), known.from), (i64::MIN, from), "now and then it is tried");
            for _ in 0..9 {
                tokio::time::advance(Duration::from_secs(5)).await;
                assert_eq!(known.begin(Instant::now()), from);
                known.end(from, i64::MAX, NOW, Instant::now());
            }
            tokio::time::advance(TRIED_EVERY).await;
        }
        let begun = Instant::now();
        assert_eq!(known.begin(begun), i64::MIN);
        known.end(i64::MIN, 5, NOW, begun);
        assert_eq!(known.begin(Instant::now()), 5, "what was found there is looked at again, and nothing before it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_parked_while_a_look_goes_on_is_in_the_next() {
        let mut known = Known::default();
        let begun = Instant::now();
        known.begin(begun);
        (known.from, known.parked) = (known.from.min(9), known.parked.min(9));
        known.end(i64::MIN, i64::MAX, NOW, begun);
        assert_eq!(known.begin(Instant::now()), 9);
    }
}
