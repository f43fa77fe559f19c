//! Facts about the store itself.

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::growing::Grows;

/// The growing mark that tells a restored store from the one that was last used (rule 9).
///
/// A mark is written into the store first, then outside it. A store whose mark is behind the one outside was restored, or
/// its folder was copied.
#[async_trait::async_trait]
pub trait Meta: Send + Sync {
    /// Raises the mark in the store by one, then leaves it outside.
    async fn raise_mark(&self) -> Result<u64, StoreError>;

    /// Whether the store is at least as new as what was left outside. The text says what differs.
    async fn check_mark(&self) -> Result<Result<(), String>, StoreError>;

    /// Accepts the store as it is after a recovery: its mark goes on behind the one outside, and is left there.
    ///
    /// The mark outside never falls: one that was set back to the store's would let a later backup of the lost time, put back
    /// next, pass for new.
    async fn accept(&self) -> Result<(), StoreError>;

    /// A small fact under a name, such as an account's learned id form.
    async fn get(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Stores a small fact, durably.
    async fn put(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Whether there is room for data now; [`StoreError::Full`] when there is not. Control rows may be written even then.
    async fn room(&self) -> Result<(), StoreError>;
}

/// What was left outside the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The mark.
    pub mark: u64,
    /// Which store it was left for, such as a file or a keyspace: a copy is another one.
    pub identity: String,
}

/// The mark outside as [`Meta::accept`] takes it: 0 for none, and for one that nobody can have left.
///
/// # Errors
/// What reading it met, except that it is damaged: a recovery is the way out of that.
pub fn left_mark(read: Result<Option<Left>, StoreError>) -> Result<u64, StoreError> {
    let left = StoreError::unless_damaged(read)?;
    Ok(left.map(|left| left.mark).filter(|mark| *mark <= u64::MOST).unwrap_or(0))
}

/// The place outside the store where its mark is left.
#[async_trait::async_trait]
pub trait Outside: Send + Sync {
    /// What was left; `None` when nothing ever was.
    async fn read(&self) -> Result<Option<Left>, StoreError>;

    /// Leaves it, durably.
    async fn write(&self, left: Left) -> Result<(), StoreError>;

    /// Which store there is now.
    fn identity(&self) -> String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_nobody_can_have_left_does_not_stand_in_the_way_of_a_recovery() {
        let left = |mark: u64| Ok(Some(Left { mark, identity: "it".into() }));
        assert_eq!((left_mark(Ok(None)), left_mark(left(7)), left_mark(left(u64::MAX))), (Ok(0), Ok(7), Ok(0)));
        assert_eq!(left_mark(Err(StoreError::Corrupt("half".into()))), Ok(0));
        assert!(matches!(left_mark(Err(StoreError::Unavailable("away".into()))), Err(StoreError::Unavailable(_))));
    }
}
