//! Packs, rejects and manifests: what preparation writes and delivery reads.

use std::sync::Arc;

use super::StoreError;
use super::control::Cas;
use crate::model::id::{LaneKey, RangeKey};
use crate::model::pack::{Manifest, PackHead, PackKey, SmsDeliveryPack};
use crate::model::record::Reject;

/// Data rows of preparation.
///
/// Contract: a pack and a range's rejects are written once under a key that holds the attempt, so repeating a write that
/// timed out is harmless. All writes are durable when they answer.
#[async_trait::async_trait]
#[doc(alias = "SmsDeliveryPackBatchRepository")]
pub trait Packs: Send + Sync {
    /// Stores packs, all of one range and attempt.
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError>;

    /// The small columns of a pack; `None` when there is none.
    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError>;

    /// A whole pack; `None` when there is none. A pack that cannot be read is [`StoreError::Corrupt`].
    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError>;
}

/// Records that never became a message. Same contract as [`Packs`].
#[async_trait::async_trait]
pub trait Rejects: Send + Sync {
    /// Stores the rejects of an attempt, piece `n`; reads them back with [`get`](Rejects::get).
    async fn put(&self, range: RangeKey, attempt: u32, n: u32, rejects: Vec<Reject>) -> Result<(), StoreError>;

    /// One piece of an attempt's rejects, empty when there is none: pieces are numbered from 0 without gaps.
    async fn get(&self, range: RangeKey, attempt: u32, n: u32) -> Result<Vec<Reject>, StoreError>;
}

/// Manifests: written once, never changed.
#[async_trait::async_trait]
pub trait Manifests: Send + Sync {
    /// Stores a lane's manifest if it has none.
    async fn put(&self, lane: LaneKey, manifest: &Manifest) -> Result<Cas, StoreError>;

    /// A lane's manifest.
    async fn get(&self, lane: LaneKey) -> Result<Option<Arc<Manifest>>, StoreError>;
}
