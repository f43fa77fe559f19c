//! Batches, their ranges and their ledgers: the control plane.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::control::ControlRows;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey, RangeKey};
use crate::model::ledger::Ledger;
use crate::model::record::RangeRow;

/// Rows of `sms_batch`.
#[doc(alias = "SmsBatchRepository")]
pub trait BatchRows: ControlRows<BatchId, BatchRow> {}
impl<T: ControlRows<BatchId, BatchRow>> BatchRows for T {}

/// Rows of `record_range`.
pub trait RangeRows: ControlRows<RangeKey, RangeRow> {}
impl<T: ControlRows<RangeKey, RangeRow>> RangeRows for T {}

/// Rows of `lane_ledger`.
pub trait Ledgers: ControlRows<LaneKey, Ledger> {}
impl<T: ControlRows<LaneKey, Ledger>> Ledgers for T {}

/// One line of a list of batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The batch.
    pub batch: BatchId,
    /// Its row.
    pub row: BatchRow,
}

/// Lists of batches.
#[async_trait::async_trait]
pub trait BatchIndex: Send + Sync {
    /// Batches whose row says [`BatchRow::is_active`]. May name one that has just ended.
    async fn active(&self) -> Result<Vec<BatchId>, StoreError>;

    /// Batches, newest first, behind the place that an earlier call returned; at most `limit`. The place is the port's own
    /// and means the same in every implementation. A batch whose row cannot be read is left out, said and counted: it must not
    /// stand in front of all others.
    async fn list(&self, behind: Option<String>, limit: usize) -> Result<(Vec<Listed>, Option<String>), StoreError>;
}
