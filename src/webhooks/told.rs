//! How far each stream was told in this term.
//!
//! Told events are removed one by one, and a store on servers passes over what was removed until it forgets it, an hour later: a
//! read from the beginning of a stream that told a hundred thousand events within that hour is refused. So a stream is read
//! behind the last event that was removed, and from its beginning only when nothing waits there: an event whose time is earlier
//! may have come late.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::journal::Place;

/// How often a stream, or a webhook's streams, are looked over from the beginning.
pub(super) const LOOK_BACK: Duration = Duration::from_secs(300);
/// A stream that told as many is passed over up to its last told event when streams that wait are looked for.
const LONG: usize = 1_000;
/// How long after its last event a stream is remembered: longer than removed events are passed over.
const KEPT: Duration = Duration::from_secs(2 * 3_600);

/// The streams.
#[derive(Default)]
pub(super) struct Told(BTreeMap<String, Cursor>);

struct Cursor {
    /// The last place that was removed.
    last: Place,
    events: usize,
    at: Instant,
    /// When it was last read from its beginning; `None` when it is to be.
    looked: Option<Instant>,
}

impl Told {
    /// Behind which place a stream goes on; `None` from its beginning.
    pub fn behind(&self, scope: &str) -> Option<Place> {
        self.0.get(scope).map(|cursor| cursor.last.clone())
    }

    /// Notes that events of a stream were removed.
    pub fn removed(&mut self, places: &[Place], now: Instant) {
        let Some(last) = places.iter().max() else { return };
        let new = || Cursor { last: last.clone(), events: 0, at: now, looked: Some(now) };
        let cursor = self.0.entry(last.scope.clone()).or_insert_with(new);
        if cursor.last < *last {
            cursor.last = last.clone();
        }
        cursor.events += places.len();
        cursor.at = now;
    }

    /// Whether a stream of which nothing waits behind its cursor is read from its beginning now; then it counts as done, also when
    /// the read fails.
    pub fn looks_back(&mut self, scope: &str, now: Instant) -> bool {
        let Some(cursor) = self.0.get_mut(scope) else { return false };
        let is_due = cursor.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_BACK);
        if is_due {
            cursor.looked = Some(now);
        }
        is_due
    }

    /// Notes the first event of a stream that waits.
    pub fn waits(&mut self, first: &Place) {
        if let Some(cursor) = self.0.get_mut(&first.scope).filter(|cursor| *first <= cursor.last) {
            cursor.looked = None;
        }
    }

    /// The long streams whose scopes begin with `within`, with the last event each told.
    pub fn long(&self, within: &str) -> BTreeMap<String, Place> {
        let of_webhook = self.0.range(within.to_owned()..).take_while(|(scope, _)| scope.starts_with(within));
        of_webhook
            .filter(|(_, cursor)| cursor.events >= LONG)
            .map(|(scope, cursor)| (scope.clone(), cursor.last.clone()))
            .collect()
    }

    /// Forgets streams that told nothing for long.
    pub fn tidy(&mut self, now: Instant) {
        self.0.retain(|_, cursor| now.duration_since(cursor.at) < KEPT);
    }
}
