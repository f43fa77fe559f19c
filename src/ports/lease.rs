//! The leader's lock.

use std::time::Duration;

use super::StoreError;

/// A lock with a time to live. It keeps two leaders from wasting work; it is never what safety rests on.
#[async_trait::async_trait]
pub trait Lease: Send + Sync {
    /// Takes the lock `name` for `ttl` if nobody holds it, or if `token` holds it already. A lost answer is repeated with
    /// the same token.
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives it up if `token` holds it.
    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError>;
}
