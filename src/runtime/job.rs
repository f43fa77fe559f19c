//! Leader-only jobs: each is a `run_once` that knows nothing of its loop.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ports::StoreError;
use crate::ports::clock::Clock;

/// One job of the leader.
#[async_trait::async_trait]
pub trait Job: Send + Sync {
    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// Does what is due now. Returns whether anything changed, so that the next round comes at once. It is dropped where it
    /// stands when the term ends, and another leader may run it at the same time: it leaves nothing half-done behind that the
    /// next run, here or there, does not finish.
    async fn run_once(&self) -> Result<bool, StoreError>;

    /// Called when this process becomes the leader: what the job remembers of an earlier term is void.
    fn new_term(&self) {}

    /// Called when the term is over, also when it is dropped: what the job has begun beside its rounds ends with it.
    fn end_term(&self) {}
}

/// For jobs that have something to do less often than every round.
#[derive(Debug)]
pub struct Every {
    every: Duration,
    last: Mutex<Option<Duration>>,
}

impl Every {
    /// Due at once, and then after this long each time.
    pub fn new(every: Duration) -> Every {
        Every { every, last: Mutex::default() }
    }

    /// Whether it is due now; then it counts as done.
    pub fn is_due(&self, clock: &dyn Clock) -> bool {
        let now = clock.boot();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_sub(last) >= self.every);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}
