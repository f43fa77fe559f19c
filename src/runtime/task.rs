//! Named tasks: every task has a span and an owner.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{AbortHandle, JoinHandle};
use tracing::Instrument;

use super::freezer::Freezer;

/// Spawns a task under a name that appears in its log lines.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let future = future.instrument(tracing::info_span!("task", name));
    match Freezer::current() {
        None => tokio::spawn(future),
        Some(freezer) => tokio::spawn(freezer.hold(Box::pin(future))),
    }
}

/// The tasks of one role: they end with it. Dropping it leaves them running; [`Tasks::abort_all`] is what a crash does.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl Tasks {
    /// Spawns a task of this owner.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let handle = spawn(name, future);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= 64 && all.len().is_power_of_two() {
            all.retain(|task| !task.is_finished());
        }
        all.push(handle.abort_handle());
        handle
    }

    /// Ends all of them where they stand.
    pub fn abort_all(&self) {
        for task in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}
