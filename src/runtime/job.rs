//! Leader-only jobs: each is a `run_once` that knows nothing of its loop.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::calm::Calm;
use super::metrics;
use crate::model::batch::BatchRow;
use crate::model::id::BatchId;
use crate::ports::clock::Clock;
use crate::ports::{StoreError, Stores};

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

/// The batches that a job passes over: a row that cannot be read must not end the job's round for everybody else.
#[derive(Debug, Default)]
pub struct Unreadable(Mutex<BTreeMap<BatchId, Calm>>);

impl Unreadable {
    /// A batch's row; `None` for one that is gone, or that is passed over.
    ///
    /// # Errors
    /// As for [`Unreadable::pass_over`].
    pub async fn row(&self, job: &'static str, stores: &Stores, batch: BatchId) -> Result<Option<BatchRow>, StoreError> {
        let read = self.pass_over(job, batch, stores.batches.load(batch).await)?;
        Ok(read.flatten().map(|read| read.row))
    }

    /// What a job did for one batch; `None` when a row of the batch cannot be read, which is said and counts as a failure of
    /// the job.
    ///
    /// # Errors
    /// Those that are about the store and not about this batch: they end the round.
    pub fn pass_over<T>(&self, job: &'static str, batch: BatchId, done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let error = match done {
            Err(error @ StoreError::Corrupt(_)) => error,
            done => return done.map(Some),
        };
        metrics::count(&metrics::COORDINATE_TASK_FAILURES, &[job], 1);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(batch).or_default().speaks() {
            tracing::error!(job, %batch, code = %error.code(), %error, "a batch is passed over: a row of it cannot be read");
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_one_batch_is_passed_over() {
        let unreadable = Unreadable::default();
        let text = String::new;
        let pass = |done| unreadable.pass_over("of_a_test", BatchId(1), done);
        assert_eq!((pass(Ok(5)), pass(Err(StoreError::Corrupt(text())))), (Ok(Some(5)), Ok(None)));
        for error in [StoreError::Unavailable(text()), StoreError::Unknown(text()), StoreError::Full(text())] {
            assert_eq!(pass(Err(error.clone())), Err(error));
        }
    }
}
