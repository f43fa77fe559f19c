//! Trying again: the only user of crate `backoff`, over the project's own seeded schedule.
//!
//! The crate's own exponential schedule draws from the thread's random numbers and reads the real clock, which would make
//! a simulated run depend on more than its seed.

use std::future::Future;
use std::time::Duration;

use backoff::backoff::Backoff;

use crate::model::schedule::backoff_delay;
use crate::ports::{Retry, StoreError};

/// A schedule of delays that doubles up to a limit, with jitter from a seed.
pub struct Schedule {
    attempt: u32,
    first: Duration,
    most: Duration,
    seed: u64,
    attempts_max: Option<u32>,
}

impl Schedule {
    /// Delays from `first`, doubling up to `most`, for ever.
    pub fn new(first: Duration, most: Duration, seed: u64) -> Schedule {
        Schedule { attempt: 0, first, most, seed, attempts_max: None }
    }

    /// Gives up after this many delays.
    pub fn up_to(mut self, attempts: u32) -> Schedule {
        self.attempts_max = Some(attempts);
        self
    }

    /// Goes on where an earlier life stood, after this many delays.
    pub fn from_attempt(mut self, attempt: u32) -> Schedule {
        self.attempt = attempt;
        self
    }

    /// The next delay; `None` when the schedule gives up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        self.next_backoff()
    }

    /// The next delay of whoever never gives up: one that was to end goes on with the longest.
    pub fn delay_for_ever(&mut self) -> Duration {
        self.next_backoff().unwrap_or(self.most)
    }

    /// Begins with the first delay again.
    pub fn begin_again(&mut self) {
        self.reset();
    }
}

impl Backoff for Schedule {
    fn reset(&mut self) {
        self.attempt = 0;
    }

    fn next_backoff(&mut self) -> Option<Duration> {
        if self.attempts_max.is_some_and(|most| self.attempt >= most) {
            return None;
        }
        let delay = backoff_delay(self.attempt, self.first, self.most, self.seed);
        self.attempt = self.attempt.saturating_add(1);
        Some(delay)
    }
}

/// Calls a store until it answers something else than "later", following `schedule`. For data rows only: repeating their
/// writes is harmless. A control row that answers `Unknown` must be read first and never comes here.
pub async fn store<T, F, Fut>(mut schedule: Schedule, mut call: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                let delay = match error.retry() {
                    Retry::Never => return Err(error),
                    Retry::Now => Duration::ZERO,
                    Retry::After(least) => match schedule.next_backoff() {
                        Some(delay) => delay.max(least),
                        None => return Err(error),
                    },
                };
                tokio::time::sleep(delay).await;
            }
        }
    }
}
