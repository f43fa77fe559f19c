//! Letting go of what is no longer needed.

use super::StoreError;
use crate::model::id::BatchId;
use crate::model::time::Timestamp;

/// Kinds of stored data, each with a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Packs, rejects, manifests: numbers and texts.
    Texts,
    /// Windows, judgements, retry packs, receipts: what happened to each recipient.
    History,
    /// The batch's own row, its ranges and ledgers.
    Batch,
}

/// Deletes by kind.
#[async_trait::async_trait]
pub trait Retention: Send + Sync {
    /// Deletes one kind of a batch's data, durably. Repeating it is harmless.
    async fn drop_batch(&self, batch: BatchId, kind: Kind) -> Result<(), StoreError>;

    /// Deletes message-id index entries, uncertain entries and parked reports that were written before `before`.
    async fn drop_index_before(&self, before: Timestamp) -> Result<(), StoreError>;
}
