//! The one rule for all control rows: every change is `IF version = v`, sets `v + 1` and the writer's nonce.

use super::StoreError;

/// A control row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Grows by one at each change; a row begins with 1.
    pub version: u64,
    /// Random bits of whoever made the last change: after a time-out they tell whether it was me.
    pub nonce: u64,
    /// The row.
    pub row: T,
}

/// What a compare-and-set came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cas {
    /// It is stored, durably.
    Applied,
    /// The version was another one; nothing changed. Or, for an insert, the row was there.
    Refused,
}

/// Rows that change only by compare-and-set.
///
/// Contract: [`replace`](ControlRows::replace) is atomic and durable before it answers `Applied`. An answer of
/// `Err(StoreError::Unknown)` leaves open whether it was, or will be, applied; it can only ever be applied on the version
/// it expected. No implementation repeats a conditional write by itself. [`load`](ControlRows::load) is linearisable with
/// them (CQL: SERIAL).
#[async_trait::async_trait]
pub trait ControlRows<K, T>: Send + Sync
where
    K: Send + Sync + Copy + 'static,
    T: Send + Sync + Clone + 'static,
{
    /// The row, or `None`.
    async fn load(&self, key: K) -> Result<Option<Versioned<T>>, StoreError>;

    /// Creates the row with version 1 if there is none.
    async fn insert(&self, key: K, row: &T, nonce: u64) -> Result<Cas, StoreError>;

    /// Replaces the row if its version is `expected`; its version is then `expected + 1`.
    async fn replace(&self, key: K, expected: u64, row: &T, nonce: u64) -> Result<Cas, StoreError>;

    /// All rows of one batch, by key. (For batch rows: the batch's own.)
    async fn list(&self, batch: crate::model::id::BatchId) -> Result<Vec<(K, Versioned<T>)>, StoreError>;
}

/// What a read after an unknown answer says of a change that expected `expected` and carried `nonce`.
pub fn after_unknown<T>(read: Option<&Versioned<T>>, expected: u64, nonce: u64) -> AfterUnknown {
    match read {
        Some(row) if row.version == expected + 1 && row.nonce == nonce => AfterUnknown::Applied,
        Some(row) if row.version == expected => AfterUnknown::SendAgain,
        None if expected == 0 => AfterUnknown::SendAgain,
        _ => AfterUnknown::Lost,
    }
}

/// See [`after_unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterUnknown {
    /// My change is the row's last.
    Applied,
    /// The row is as it was: the same change, with the same nonce, may be sent again.
    SendAgain,
    /// Somebody else changed the row; whether mine came before theirs cannot be seen, and I hold nothing any more.
    Lost,
}
