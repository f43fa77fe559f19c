//! A clock for tests: runs on tokio's timers, so that paused time is paused everywhere.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::adapters::system::minute_of_day;
use crate::model::time::Timestamp;
use crate::ports::clock::Clock;

/// The wall clock is a start and what tokio's clock has run since; the boot clock is the latter alone.
#[derive(Debug)]
pub struct SimClock {
    start: Timestamp,
    since: Instant,
    skew_ms: AtomicI64,
}

impl SimClock {
    /// A clock that shows `start` now. Must be made within a tokio runtime.
    pub fn new(start: Timestamp) -> SimClock {
        SimClock { start, since: Instant::now(), skew_ms: AtomicI64::new(0) }
    }

    /// Sets the wall clock this much ahead (or back): the boot clock never jumps.
    pub fn skew(&self, by_ms: i64) {
        self.skew_ms.store(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let at = self.start.plus(self.since.elapsed());
        Timestamp(at.0.saturating_add(self.skew_ms.load(Ordering::Relaxed)))
    }

    fn boot(&self) -> Duration {
        self.since.elapsed()
    }

    fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16> {
        minute_of_day(zone, at)
    }
}
