//! What this stage asks of whoever can tell what became of each recipient.

use crate::model::batch::BatchRow;
use crate::model::id::LaneKey;
use crate::model::order::{Named, RetryWhat};
use crate::ports::StoreError;

/// Names the recipients of an order to send again. Stages do not use one another: the composer hands in the one that knows.
#[async_trait::async_trait]
pub trait Select: Send + Sync {
    /// The recipients of a lane whom `what` names, ascending, under this round. Nobody whom an account took, or may have
    /// taken, is among them. The answer depends on nothing but the store's rows.
    async fn select(&self, row: &BatchRow, lane: LaneKey, what: &RetryWhat, round: u8) -> Result<Vec<Named>, StoreError>;
}
