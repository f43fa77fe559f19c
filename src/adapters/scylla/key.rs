//! Keys as CQL values. Unsigned numbers of 32 bits become wider ones, so that their order stays; names of 64 random bits
//! keep their bits.

use crate::adapters::rows::frame::corrupt;
use crate::model::id::{BatchId, LaneKey};
use crate::ports::StoreError;

/// All lanes that a batch can have.
pub(super) const LANES: std::ops::Range<u8> = 0..128;

/// A batch, as everywhere else: sixteen bytes.
pub(super) fn batch(batch: BatchId) -> [u8; 16] {
    batch.0.to_be_bytes()
}

/// Reads a batch.
pub(super) fn read_batch(bytes: &[u8]) -> Result<BatchId, StoreError> {
    let bytes = bytes.try_into().map_err(|_| corrupt("key", "a batch id has sixteen bytes"))?;
    Ok(BatchId(u128::from_be_bytes(bytes)))
}

/// A lane's number.
pub(super) fn lane(lane: LaneKey) -> i32 {
    i32::from(lane.lane)
}

/// Reads a number that was stored wider, or with another sign, than it is.
pub(super) fn read<T: TryFrom<i64>>(value: impl Into<i64>) -> Result<T, StoreError> {
    T::try_from(value.into()).map_err(|_| corrupt("key", "a number is out of range"))
}
