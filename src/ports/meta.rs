//! Facts about the store itself.

use serde::{Deserialize, Serialize};

use super::StoreError;

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

    /// Accepts the store as it is after a recovery: the mark outside becomes the store's.
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
