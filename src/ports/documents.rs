//! Small documents under a name: API keys, webhooks, answers that may be asked for again, live rates.

use super::StoreError;
use super::control::Cas;

/// What a document is about. Each kind is a shelf of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// API keys, by key id.
    ApiKey,
    /// Answers to commands, by tenant and idempotency key.
    Answer,
    /// Ceilings of accounts that were changed live, by account.
    Rate,
    /// Where users want events sent, by webhook id.
    Webhook,
    /// How far a webhook's stream has come, by webhook and batch.
    WebhookStream,
    /// Why and since when a number is suppressed, by number; only for those that said so themselves or were added one by one.
    OptOut,
    /// What was uploaded, by upload id.
    Upload,
    /// Recipients whose number was erased, by `batch-lane-place`: what still comes in about them is kept without it.
    Erased,
    /// What each process of the fleet says of itself, by worker.
    Worker,
    /// Who may hold sessions of an account that allows only a few, by account.
    Slots,
}

/// All shelves, in the order of their stored numbers: appended to, never changed.
pub const SHELVES: [Shelf; 10] = [
    Shelf::ApiKey,
    Shelf::Answer,
    Shelf::Rate,
    Shelf::Webhook,
    Shelf::WebhookStream,
    Shelf::OptOut,
    Shelf::Upload,
    Shelf::Erased,
    Shelf::Worker,
    Shelf::Slots,
];

impl Shelf {
    /// Its stored number.
    pub fn number(self) -> u8 {
        SHELVES.iter().position(|shelf| *shelf == self).map_or(u8::MAX, |at| at as u8)
    }
}

/// A document as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// Its text; JSON by convention.
    pub body: String,
}

/// Documents: few and small. Names have up to 200 bytes and no NUL.
///
/// Contract: writes are durable when they answer, and seen by every later read in any process.
#[async_trait::async_trait]
pub trait Documents: Send + Sync {
    /// A document's text.
    async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError>;

    /// Stores a document if there is none of this name. After [`StoreError::Unknown`] read before anything else.
    async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError>;

    /// Replaces a document whose text is `expected`. After [`StoreError::Unknown`] read before anything else.
    async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError>;

    /// Stores a document, whatever was there.
    async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError>;

    /// Removes a document, if it is there.
    async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError>;

    /// Documents whose names begin with `prefix`, by name, behind the name of an earlier call, at most `limit`.
    async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError>;
}
