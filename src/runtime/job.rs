//! Leader-only jobs: each is a `run_once` that knows nothing of its loop.

use crate::ports::StoreError;

/// One job of the leader.
#[async_trait::async_trait]
pub trait Job: Send + Sync {
    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// Does what is due now. Returns whether anything changed, so that the next round comes at once.
    async fn run_once(&self) -> Result<bool, StoreError>;

    /// Called when this process becomes the leader: what the job remembers of an earlier term is void.
    fn new_term(&self) {}
}
