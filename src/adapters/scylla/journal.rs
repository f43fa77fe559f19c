//! Journals: rows by scope, time and id, a scope in one of a stream's partitions.
//!
//! Streams from which entries are taken as fast as they come in lie in a table of their own, whose deleted rows are let go
//! early: what one of them brings back is told once more.
//!
//! Appending reads first and then writes what was not there. Two writers that meet in one place at the same instant may
//! both be told that it was free; ids are digests of what an entry says, or drawn at random, so they wrote the same.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use xxhash_rust::xxh3::xxh3_64;

use super::merge::{behind_texts, merged, signed, unsigned};
use super::statement::{NAMES_AT_ONCE, Statement};
use super::store::CqlStore;
use crate::adapters::rows::frame::text;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::journal::{Direction, Entry, Journal, Place, Stream};

/// Partitions that one call works on at once.
const PARTITIONS_AT_ONCE: usize = 16;
/// Bytes of a row beside its texts, about.
const KEY_BYTES: usize = 48;
/// Rows that one read of a sweep goes over at most: of a scope it reads these and no more, and of small ones many at once.
const SWEPT_AT_ONCE: usize = 500;
/// Characters of the highest text that is behind every scope: one has at most 200 bytes, four each.
const SCOPE_CHARS_MAX: usize = 51;

/// Where an entry stands within its partition.
type Key = (String, i64, i64);

/// A stream's partitions. Part of the stored form.
fn shards(stream: Stream) -> u16 {
    match stream {
        Stream::Click | Stream::Outbox => 64,
        Stream::Audit | Stream::Inbox | Stream::Dead => 8,
    }
}

fn shard_of(stream: Stream, scope: &str) -> i32 {
    (xxh3_64(scope.as_bytes()) % u64::from(shards(stream))) as i32
}

/// The statements on one of the two tables.
struct Statements {
    known: Statement,
    insert: Statement,
    delete: Statement,
    forward: Statement,
    backward: Statement,
    scopes: Statement,
    sweep: Statement,
}

macro_rules! statements {
    ($table:literal) => {
        Statements {
            known: Statement::read(concat!(
                "SELECT scope, at, id FROM ",
                $table,
                " WHERE stream = ? AND shard = ? AND (scope, at, id) IN ?"
            )),
            insert: Statement::write(concat!(
                "INSERT INTO ",
                $table,
                " (stream, shard, scope, at, id, body) VALUES (?, ?, ?, ?, ?, ?)"
            )),
            delete: Statement::write(concat!(
                "DELETE FROM ",
                $table,
                " WHERE stream = ? AND shard = ? AND scope = ? AND at = ? AND id = ?"
            )),
            forward: Statement::read(concat!(
                "SELECT scope, at, id, body FROM ",
                $table,
                " WHERE stream = ? AND shard = ? AND (scope, at, id) >= (?, ?, ?) AND (scope, at, id) < (?, ?, ?) LIMIT ?"
            )),
            backward: Statement::read(concat!(
                "SELECT scope, at, id, body FROM ",
                $table,
                " WHERE stream = ? AND shard = ? AND (scope, at, id) >= (?, ?, ?) AND (scope, at, id) < (?, ?, ?)",
                " ORDER BY scope DESC, at DESC, id DESC LIMIT ?"
            )),
            scopes: Statement::read(concat!(
                "SELECT scope, at FROM ",
                $table,
                " WHERE stream = ? AND shard = ? AND (scope) > (?) LIMIT ?"
            )),
            sweep: Statement::write(concat!("DELETE FROM ", $table, " WHERE stream = ? AND shard = ? AND scope = ? AND at < ?")),
        }
    };
}

static KEPT: Statements = statements!("journal");
static TAKEN: Statements = statements!("journal_queue");

fn statements(stream: Stream) -> &'static Statements {
    match stream {
        Stream::Audit | Stream::Inbox | Stream::Click => &KEPT,
        Stream::Outbox | Stream::Dead => &TAKEN,
    }
}

fn key_of(place: &Place) -> Key {
    (place.scope.clone(), place.at.0, signed(place.id))
}

/// The first place behind another.
fn next((scope, at, id): Key) -> Key {
    match (at.checked_add(1), id.checked_add(1)) {
        (_, Some(id)) => (scope, at, id),
        (Some(at), None) => (scope, at, i64::MIN),
        // The smallest scope behind another is the scope and a NUL, which no scope has.
        (None, None) => (scope + "\0", i64::MIN, i64::MIN),
    }
}

/// The places that a listing goes over: from the first up to, but not with, the second.
fn bounds(within: &str, behind: Option<&Place>, direction: Direction) -> (Key, Key) {
    let at_start = |scope: String| (scope, i64::MIN, i64::MIN);
    let first = at_start(within.to_owned());
    let end = at_start(behind_texts(within).unwrap_or_else(|| "\u{10ffff}".repeat(SCOPE_CHARS_MAX)));
    match (behind.map(key_of), direction) {
        (None, _) => (first, end),
        (Some(known), Direction::Forward) => (next(known).max(first), end),
        (Some(known), Direction::Backward) => (first, known.min(end)),
    }
}

/// What there is to look at in one partition: all scopes that begin with `within`, but of those in `told` only what stands behind
/// the place.
fn stretches(stream: Stream, shard: i32, within: &str, told: &BTreeMap<String, Place>) -> Vec<(Key, Key)> {
    let (mut from, end) = bounds(within, None, Direction::Forward);
    let here = told.values().filter(|place| place.scope.starts_with(within) && shard_of(stream, &place.scope) == shard);
    let mut stretches = Vec::new();
    for place in here {
        stretches.push((from, (place.scope.clone(), i64::MIN, i64::MIN)));
        from = next(key_of(place));
    }
    stretches.push((from, end));
    stretches.retain(|(from, to)| from < to);
    stretches
}

#[async_trait::async_trait]
impl Journal for CqlStore {
    async fn append(&self, stream: Stream, mut entries: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        for entry in &mut entries {
            entry.body = text(std::mem::take(&mut entry.body));
        }
        let mut free = vec![false; entries.len()];
        // The first of one place counts.
        let mut by_shard: BTreeMap<i32, BTreeMap<Key, usize>> = BTreeMap::new();
        for (at, Entry { place, .. }) in entries.iter().enumerate() {
            by_shard.entry(shard_of(stream, &place.scope)).or_default().entry(key_of(place)).or_insert(at);
        }
        let entries = &entries;
        let mut appended = stream::iter(by_shard)
            .map(|(shard, places)| self.append_to_shard(stream, shard, places, entries))
            .buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some(stored) = appended.try_next().await? {
            stored.into_iter().for_each(|at| free[at] = true);
        }
        Ok(free)
    }

    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = bounds(within, behind, direction);
        if from >= to {
            return Ok(vec![]);
        }
        let order = |a: &Entry, b: &Entry| -> Ordering {
            match direction {
                Direction::Forward => a.place.cmp(&b.place),
                Direction::Backward => b.place.cmp(&a.place),
            }
        };
        let page = |shard: u16, last: Option<Entry>, limit: usize| {
            let (mut from, mut to) = (from.clone(), to.clone());
            match (last, direction) {
                (None, _) => {}
                (Some(last), Direction::Forward) => from = next(key_of(&last.place)),
                (Some(last), Direction::Backward) => to = key_of(&last.place),
            }
            let statement = match direction {
                Direction::Forward => &statements(stream).forward,
                Direction::Backward => &statements(stream).backward,
            };
            async move {
                let (stream, limit) = (i32::from(stream.number()), limit.min(i32::MAX as usize) as i32);
                let values = (stream, shard as i32, from.0, from.1, from.2, to.0, to.1, to.2, limit);
                let rows: Vec<(String, i64, i64, String)> = self.cql.rows(statement, values).await?;
                let entry = |(scope, at, id, body)| Entry { place: Place { scope, at: Timestamp(at), id: unsigned(id) }, body };
                Ok(rows.into_iter().map(entry).collect())
            }
            .boxed()
        };
        merged(shards(stream), limit, order, page).await
    }

    /// Each partition for itself: how many reads there are follows how many scopes wait, and how many are passed over.
    async fn waiting(
        &self,
        stream: Stream,
        within: &str,
        told: &BTreeMap<String, Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let mut shards = stream::iter(0..shards(stream) as i32)
            .map(|shard| self.waiting_in_shard(stream, shard, stretches(stream, shard, within, told), limit))
            .buffer_unordered(PARTITIONS_AT_ONCE);
        let mut found = Vec::new();
        while let Some(places) = shards.try_next().await? {
            found.extend(places);
        }
        found.sort_unstable();
        found.truncate(limit);
        Ok(found)
    }

    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError> {
        let mut by_shard: BTreeMap<i32, Vec<Key>> = BTreeMap::new();
        for place in &places {
            by_shard.entry(shard_of(stream, &place.scope)).or_default().push(key_of(place));
        }
        stream::iter(by_shard)
            .map(|(shard, keys)| async move {
                let number = i32::from(stream.number());
                let rows = keys.into_iter().map(|(scope, at, id)| (number, shard, scope, at, id)).collect();
                self.cql
                    .write_rows(&statements(stream).delete, rows, |row: &(i32, i32, String, i64, i64)| KEY_BYTES + row.2.len())
                    .await
            })
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn drop_before(&self, stream: Stream, before: Timestamp) -> Result<(), StoreError> {
        // A partition that cannot be read keeps no other from being swept.
        let mut done = Ok(());
        for shard in 0..shards(stream) as i32 {
            done = done.and(self.drop_in_shard(stream, shard, before).await);
        }
        done
    }
}

impl CqlStore {
    /// Stores what is not there in one partition; answers which.
    async fn append_to_shard(
        &self,
        stream: Stream,
        shard: i32,
        places: BTreeMap<Key, usize>,
        entries: &[Entry],
    ) -> Result<Vec<usize>, StoreError> {
        let number = i32::from(stream.number());
        let statements = statements(stream);
        let names: Vec<&Key> = places.keys().collect();
        let mut known: BTreeSet<Key> = BTreeSet::new();
        for some in names.chunks(NAMES_AT_ONCE) {
            known.extend(self.cql.rows::<Key, _>(&statements.known, (number, shard, some)).await?);
        }
        let free: Vec<(Key, usize)> = places.into_iter().filter(|(key, _)| !known.contains(key)).collect();
        let stored = free.iter().map(|(_, at)| *at).collect();
        let rows =
            free.into_iter().map(|((scope, at, id), n)| (number, shard, scope, at, id, entries[n].body.as_str())).collect();
        let bytes = |row: &(i32, i32, String, i64, i64, &str)| KEY_BYTES + row.2.len() + row.5.len();
        self.cql.write_rows(&statements.insert, rows, bytes).await?;
        Ok(stored)
    }

    /// The first places of the scopes in stretches of one partition: one read for each, and one that finds no more.
    async fn waiting_in_shard(
        &self,
        stream: Stream,
        shard: i32,
        stretches: Vec<(Key, Key)>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let (number, statement) = (i32::from(stream.number()), &statements(stream).forward);
        let mut found = Vec::new();
        for (mut from, to) in stretches {
            while from < to && found.len() < limit {
                let values = (number, shard, from.0, from.1, from.2, to.0.as_str(), to.1, to.2, 1);
                let row: Option<(String, i64, i64, String)> = self.cql.first(statement, values).await?;
                let Some((scope, at, id, _)) = row else { break };
                from = next(key_of(&Place::end_of(&scope)));
                found.push(Place { scope, at: Timestamp(at), id: unsigned(id) });
            }
        }
        Ok(found)
    }

    /// Lets old entries of one partition go, scope by scope. Only the oldest entry of a scope says whether it has any: the next
    /// read begins behind the last scope of the one before, however much of that one there is.
    async fn drop_in_shard(&self, stream: Stream, shard: i32, before: Timestamp) -> Result<(), StoreError> {
        let (number, statements) = (i32::from(stream.number()), statements(stream));
        // No scope is empty.
        let mut behind = String::new();
        loop {
            let values = (number, shard, behind.as_str(), SWEPT_AT_ONCE as i32);
            let page: Vec<(String, i64)> = self.cql.rows(&statements.scopes, values).await?;
            let is_last = page.len() < SWEPT_AT_ONCE;
            let oldest = oldest_of_each(page);
            if let Some((last, _)) = oldest.last() {
                behind.clone_from(last);
            }
            let old = oldest.into_iter().filter(|(_, oldest)| *oldest < before.0);
            let rows = old.map(|(scope, _)| (number, shard, scope, before.0)).collect();
            self.cql.write_rows(&statements.sweep, rows, |row: &(i32, i32, String, i64)| KEY_BYTES + row.2.len()).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The first entry of each scope, of entries in order.
fn oldest_of_each(mut entries: Vec<(String, i64)>) -> Vec<(String, i64)> {
    entries.dedup_by(|later, first| later.0 == first.0);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(scope: &str, at: i64, id: u64) -> Place {
        Place { scope: scope.into(), at: Timestamp(at), id }
    }

    #[test]
    fn scopes_lie_where_they_are_stored() {
        let scopes = ["2026-11-25/", "a/", "字/"];
        assert_eq!(scopes.map(|scope| shard_of(Stream::Click, scope)), [56, 63, 59]);
        assert_eq!(scopes.map(|scope| shard_of(Stream::Audit, scope)), [0, 7, 3]);
    }

    #[test]
    fn what_was_told_is_passed_over_and_everything_around_it_is_not() {
        let told = [place("a/1/", 5, 7), place("a/2/", 6, u64::MAX), place("b/1/", 9, 9)];
        let told: BTreeMap<String, Place> = told.into_iter().map(|place| (place.scope.clone(), place)).collect();
        let start = |scope: &str| (scope.to_owned(), i64::MIN, i64::MIN);
        let mut passed_over = vec![];
        for shard in 0..64 {
            let stretches = stretches(Stream::Outbox, shard, "a/", &told);
            assert_eq!((&stretches[0].0, &stretches[stretches.len() - 1].1), (&start("a/"), &start("a0")), "from end to end");
            for pair in stretches.windows(2) {
                assert_eq!(shard_of(Stream::Outbox, &pair[0].1.0), shard);
                passed_over.push((pair[0].1.clone(), pair[1].0.clone()));
            }
        }
        passed_over.sort();
        let key = |scope: &str, at, id| (scope.to_owned(), at, id);
        assert_eq!(passed_over, [(start("a/1/"), key("a/1/", 5, signed(8))), (start("a/2/"), key("a/2/", 7, i64::MIN))]);
    }

    #[test]
    fn a_page_of_a_sweep_tells_the_oldest_of_each_of_its_scopes() {
        let page = [("a/", 1), ("a/", 5), ("b/", 0), ("c/", 7), ("c/", 7)].map(|(scope, at)| (scope.to_owned(), at));
        assert_eq!(oldest_of_each(page.into()), [("a/", 1), ("b/", 0), ("c/", 7)].map(|(scope, at)| (scope.to_owned(), at)));
    }

    #[test]
    fn a_listing_goes_over_the_scopes_that_begin_so_and_no_others() {
        let keys = |scope: &str, at, id| (scope.to_owned(), at, id);
        let (first, end) = (keys("a/", i64::MIN, i64::MIN), keys("a0", i64::MIN, i64::MIN));
        assert_eq!(bounds("a/", None, Direction::Forward), (first.clone(), end.clone()));
        assert_eq!(bounds("a/", Some(&place("a/", 5, 0)), Direction::Forward), (keys("a/", 5, i64::MIN + 1), end.clone()));
        assert_eq!(bounds("a/", Some(&place("a/", 5, u64::MAX)), Direction::Forward).0, keys("a/", 6, i64::MIN));
        let last = place("a/", i64::MAX, u64::MAX);
        assert_eq!(bounds("a/", Some(&last), Direction::Forward).0, keys("a/\0", i64::MIN, i64::MIN));
        assert_eq!(bounds("a/", Some(&place("a", 5, 0)), Direction::Forward), (first.clone(), end.clone()));
        assert_eq!(bounds("a/", Some(&place("b", 5, 0)), Direction::Backward), (first.clone(), end));
        assert_eq!(bounds("a/", Some(&place("a/", 5, 1)), Direction::Backward), (first, keys("a/", 5, i64::MIN + 1)));
        let (_, end) = bounds("", None, Direction::Backward);
        assert!("\u{10ffff}".repeat(50) < end.0);
    }
}
