//! Data rows of delivery: answers, judgements, retry packs.

use super::StoreError;
use super::receipts::IndexEntry;
use crate::model::id::{LaneKey, WindowKey};
use crate::model::window::{Judgement, RetryPack, WindowRow};

/// A window as it reads back: what its declarer wrote, and what a judge wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWindow {
    /// The window.
    pub key: WindowKey,
    /// The declarer's answers, if it wrote any.
    pub row: Option<WindowRow>,
    /// The judgement, if there is one.
    pub judgement: Option<Judgement>,
}

/// Answers of windows, without conditions: one writer a row.
///
/// Contract: all writes are durable when they answer. Writing a window's row again replaces it; only its declarer does so,
/// and a later row holds all answers of an earlier one.
#[async_trait::async_trait]
pub trait Windows: Send + Sync {
    /// Stores a window's row, together with the index entries of the message ids that are new since the last write: the
    /// index is durable before a window closes.
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError>;

    /// Stores a judgement.
    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError>;

    /// One window.
    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError>;

    /// Windows of a lane in the order of their names, from `from` on, at most `limit`.
    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError>;

    /// Stores a retry pack under a name that nobody else uses.
    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError>;

    /// A retry pack.
    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError>;
}
