//! Things that happened, kept in the order of time: who did what, what people wrote back, clicks, events to be told.

use std::collections::BTreeMap;

use super::StoreError;
use crate::model::time::Timestamp;

/// What a journal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Who did what. Nothing of it is ever removed but by retention.
    Audit,
    /// Messages that people sent to us.
    Inbox,
    /// Openings of short links.
    Click,
    /// Events that wait to be told to a webhook.
    Outbox,
    /// Events that were tried too often.
    Dead,
}

/// All streams, in the order of their stored numbers: appended to, never changed.
pub const STREAMS: [Stream; 5] = [Stream::Audit, Stream::Inbox, Stream::Click, Stream::Outbox, Stream::Dead];

impl Stream {
    /// Its stored number.
    pub fn number(self) -> u8 {
        STREAMS.iter().position(|stream| *stream == self).map_or(u8::MAX, |at| at as u8)
    }
}

/// Where an entry stands in its stream: by scope, then time, then id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What it belongs to, such as a day or a batch. Up to 200 bytes, no NUL; one that ends in `/` is no beginning of another.
    pub scope: String,
    /// When.
    pub at: Timestamp,
    /// Tells entries of one instant apart; the same place again replaces.
    pub id: u64,
}

impl Place {
    /// The place behind all entries of a scope.
    pub fn end_of(scope: &str) -> Place {
        Place { scope: scope.to_owned(), at: Timestamp(i64::MAX), id: u64::MAX }
    }
}

/// An entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub place: Place,
    /// Its text; JSON by convention.
    pub body: String,
}

/// Which end of a stream a listing begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The oldest of the first scope first.
    Forward,
    /// The newest of the last scope first.
    Backward,
}

/// Journals: rows that are written once.
///
/// Contract: writes are durable when they answer. Appending at the same place again is harmless.
#[async_trait::async_trait]
pub trait Journal: Send + Sync {
    /// Stores entries. Answers for each whether its place was free; one that was not keeps what it held.
    async fn append(&self, stream: Stream, entries: Vec<Entry>) -> Result<Vec<bool>, StoreError>;

    /// Entries of the scopes that begin with `within`, behind the place of an earlier call, at most `limit`.
    async fn list(
        &self,
        stream: Stream,
        within: &str,
        behind: Option<&Place>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The first place of each scope that begins with `within` and holds entries, in order, at most `limit`. Of the scopes in
    /// `told` what stands up to the place need not be seen: a store may pass over it, where much of it was removed.
    async fn waiting(
        &self,
        stream: Stream,
        within: &str,
        _told: &BTreeMap<String, Place>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let mut found: Vec<Place> = Vec::new();
        while found.len() < limit {
            let behind = found.last().map(|place| Place::end_of(&place.scope));
            let next = self.list(stream, within, behind.as_ref(), 1, Direction::Forward).await?;
            let Some(entry) = next.into_iter().next() else { break };
            found.push(entry.place);
        }
        Ok(found)
    }

    /// Removes entries.
    async fn remove(&self, stream: Stream, places: Vec<Place>) -> Result<(), StoreError>;

    /// Removes all entries from before an instant. Reads past what it keeps, so it is called now and then.
    async fn drop_before(&self, stream: Stream, before: Timestamp) -> Result<(), StoreError>;
}
