//! Numbers that get nothing.

use super::StoreError;
use crate::model::id::Msisdn;

/// The suppression list.
#[async_trait::async_trait]
pub trait Suppressions: Send + Sync {
    /// Adds numbers, durably. Adding one again is harmless.
    async fn add(&self, numbers: &[Msisdn]) -> Result<(), StoreError>;

    /// Removes numbers, durably.
    async fn remove(&self, numbers: &[Msisdn]) -> Result<(), StoreError>;

    /// For each number whether it is suppressed. Sees what was added at most a second ago.
    async fn check(&self, numbers: &[Msisdn]) -> Result<Vec<bool>, StoreError>;

    /// How many numbers are suppressed.
    async fn count(&self) -> Result<u64, StoreError>;
}
