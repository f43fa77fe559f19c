//! Numbers for short links.

use super::StoreError;
use crate::model::id::BatchId;

/// Which batch a block of link numbers was handed to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkBlock {
    /// The first number.
    pub first: u64,
    /// How many.
    pub len: u64,
    /// The batch.
    pub batch: BatchId,
}

/// Hands out numbers in blocks: a short code is unique because its number is.
#[async_trait::async_trait]
pub trait Links: Send + Sync {
    /// Reserves `len` numbers that nobody else has or had, durably, for a batch. Reserving again after a lost answer only
    /// wastes a block.
    async fn reserve(&self, batch: BatchId, len: u64) -> Result<LinkBlock, StoreError>;

    /// Every number handed out so far is below this; it only grows. Cheap, and asked for at most once a second.
    async fn end(&self) -> Result<u64, StoreError>;

    /// The block a number was handed out in.
    async fn block_of(&self, number: u64) -> Result<Option<LinkBlock>, StoreError>;

    /// The key of the permutation that makes codes unguessable: made once for the store, never changed.
    async fn key(&self) -> Result<[u8; 16], StoreError>;
}
