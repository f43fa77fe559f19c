//! Journals: rows by stream, scope, time and id.

use super::Keyed;
use crate::adapters::embedded::engine::{Batch, Op, Order, Table};
use crate::adapters::rows::frame::{corrupt, read_small, small};
use crate::adapters::rows::key::{KeyBuilder, KeyReader, behind as end_of};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::journal::{Direction, Entry, Journal, Place, Stream};

/// Rows deleted in one commit.
const DELETES_PER_COMMIT: usize = 2_048;
/// Time and id behind a scope and its closing NUL.
const TAIL: usize = 16;

fn prefix_of(stream: Stream, within: &str) -> Vec<u8> {
    let mut key = KeyBuilder::new().u8(stream.number()).done();
    key.extend_from_slice(within.as_bytes());
    key
}

fn key_of(stream: Stream, place: &Place) -> Vec<u8> {
    let mut key = prefix_of(stream, &place.scope);
    key.push(0);
    key.extend(KeyBuilder::new().time(place.at).u64(place.id).done());
    key
}

fn place_of(key: &[u8]) -> Result<Place, StoreError> {
    let broken = || corrupt("journal", "its key is damaged");
    let scope_end = key.len().checked_sub(TAIL + 1).filter(|end| *end >= 1 && key[*end] == 0).ok_or_else(broken)?;
    let scope = std::str::from_utf8(&key[1..scope_end]).map_err(|_| broken())?.to_owned();
    let mut tail = KeyReader(&key[scope_end + 1..]);
    Ok(Place { scope, at: tail.time()?, id: tail.u64()? })
}

#[async_trait::async_trait]
impl Journal for Keyed {
    async fn append(&self, stream: Stream, entries: Vec<Entry>) -> Result<Vec<bool>, StoreError> {
        if entries.is_empty() {
            return Ok(vec![]);
        }
        let row = |entry: Entry| Op::Insert(Table::Journal, key_of(stream, &entry.place), small(&(entry.body,)));
        let ops = entries.into_iter().map(row).collect();
        // What was done must be written down even when the disk is nearly full.
        let empty = if stream == Stream::Audit { Batch::control() } else { Batch::data() };
        Ok(self.engine.write(Batch { ops, ..empty }).await?.inserted())
    }

    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError> {
        let first = prefix_of(stream, within);
        let end = end_of(&first);
        let known = behind.map(|place| key_of(stream, place));
        let (from, to, order) = match direction {
            Direction::Forward => {
                let next = known.map(|mut key| {
                    key.push(0);
                    key
                });
                (next.filter(|key| *key > first).unwrap_or(first), end, Order::Up)
            }
            Direction::Backward => {
                let to = match (known, end) {
                    (Some(known), Some(end)) => Some(known.min(end)),
                    (known, end) => known.or(end),
                };
                (first, to, Order::Down)
            }
        };
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.engine.read()?.scan(Table::Journal, &from, to.as_deref(), order, &mut |key, bytes| {
            let (body,) = read_small("journal", bytes)?;
            found.push(Entry { place: place_of(key)?, body });
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError> {
        for some in places.chunks(DELETES_PER_COMMIT) {
            let ops = some.iter().map(|place| Op::Delete(Table::Journal, key_of(stream, place))).collect();
            self.engine.write(Batch { ops, ..Batch::control() }).await?;
        }
        Ok(())
    }

    async fn drop_before(&self, stream: Stream, before: Timestamp) -> Result<(), StoreError> {
        let end = end_of(&prefix_of(stream, ""));
        let mut from = prefix_of(stream, "");
        loop {
            let mut ops = Vec::new();
            // Where the next round begins; within a scope everything behind the first entry to keep is kept.
            let mut next = None;
            self.engine.read()?.scan(Table::Journal, &from, end.as_deref(), Order::Up, &mut |key, _| {
                let place = place_of(key)?;
                if place.at < before {
                    ops.push(Op::Delete(Table::Journal, key.to_vec()));
                    next = (ops.len() >= DELETES_PER_COMMIT).then(|| key.to_vec());
                } else {
                    let mut behind_scope = prefix_of(stream, &place.scope);
                    behind_scope.push(1);
                    next = Some(behind_scope);
                }
                Ok(next.is_none())
            })?;
            if !ops.is_empty() {
                self.engine.write(Batch { ops, ..Batch::control() }).await?;
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
            // A scope each for millions of links: others get their turn.
            tokio::task::yield_now().await;
        }
    }
}
