//! The edges of the system as traits: each is the smallest set of calls one kind of consumer needs, with its contract.
//!
//! Control rows (batch, range, ledger) change by compare-and-set and may answer "unknown"; data rows (packs, windows,
//! receipts) have one writer or cells that may be written twice in any order, so that writing twice is writing once.
//!
//! Architecture invariant: no technology is named here, and every implementation passes the same suite in
//! `tests/conformance`.

pub mod batches;
pub mod budget;
pub mod caller;
pub mod clock;
pub mod control;
pub mod documents;
pub mod erasure;
pub mod journal;
pub mod lease;
pub mod links;
pub mod meta;
pub mod packs;
pub mod provider;
pub mod queue;
pub mod rates;
pub mod receipts;
pub mod retention;
pub mod source;
pub mod suppressions;
pub mod tallies;
pub mod uploads;
pub mod windows;

use std::sync::Arc;
use std::time::Duration;

use crate::model::code::{Code, Fault};

/// What the caller of a failed call can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Calling again cannot help.
    Never,
    /// Call again at once.
    Now,
    /// Call again after this long.
    After(Duration),
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It did not happen, and may work later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It may or may not have happened: read before anything else.
    #[error("the store did not say whether it happened: {0}")]
    Unknown(String),
    /// There is no room. It did not happen.
    #[error("the disk is full: {0}")]
    Full(String),
    /// A row cannot be read.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// What the caller can do.
    pub fn retry(&self) -> Retry {
        match self {
            StoreError::Unavailable(_) | StoreError::Unknown(_) => Retry::After(Duration::from_millis(50)),
            StoreError::Full(_) => Retry::After(Duration::from_secs(1)),
            StoreError::Corrupt(_) => Retry::Never,
        }
    }

    /// What a read found, for readers that go on without a row that is damaged: such a one is none.
    ///
    /// # Errors
    /// All others: a store that does not answer has not said that there is nothing.
    pub fn unless_damaged<T: Default>(read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt(_)) = read { Ok(T::default()) } else { read }
    }

    /// The system-wide code.
    pub fn code(&self) -> Code {
        match self {
            StoreError::Unavailable(_) => Code::StoreUnavailable,
            StoreError::Unknown(_) => Code::StoreUnknown,
            StoreError::Full(_) => Code::StoreFull,
            StoreError::Corrupt(_) => Code::StoreCorrupt,
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}

/// The store's ports together, as the roles hand them to the stages.
#[derive(Clone)]
pub struct Stores {
    /// Batch rows.
    pub batches: Arc<dyn batches::BatchRows>,
    /// Lists of batches.
    pub batch_index: Arc<dyn batches::BatchIndex>,
    /// Range rows.
    pub ranges: Arc<dyn batches::RangeRows>,
    /// Lane ledgers.
    pub ledgers: Arc<dyn batches::Ledgers>,
    /// Packs.
    pub packs: Arc<dyn packs::Packs>,
    /// Records that never became a message.
    pub rejects: Arc<dyn packs::Rejects>,
    /// Manifests.
    pub manifests: Arc<dyn packs::Manifests>,
    /// Windows' answers, judgements and retry packs.
    pub windows: Arc<dyn windows::Windows>,
    /// Receipts of recipients.
    pub receipts: Arc<dyn receipts::Receipts>,
    /// From message ids to recipients.
    pub receipt_index: Arc<dyn receipts::ReceiptIndex>,
    /// Receipts that match nothing yet.
    pub parked: Arc<dyn receipts::Parked>,
    /// Numbers that get nothing.
    pub suppressions: Arc<dyn suppressions::Suppressions>,
    /// Numbers for short links.
    pub links: Arc<dyn links::Links>,
    /// Letting go of old data.
    pub retention: Arc<dyn retention::Retention>,
    /// Small documents.
    pub documents: Arc<dyn documents::Documents>,
    /// What happened.
    pub journal: Arc<dyn journal::Journal>,
    /// Erasing one number.
    pub erasure: Arc<dyn erasure::Erasure>,
    /// Facts about the store itself.
    pub meta: Arc<dyn meta::Meta>,
}

impl Stores {
    /// All ports of one thing that has them all.
    pub fn of<S>(all: &Arc<S>) -> Stores
    where
        S: batches::BatchRows
            + batches::BatchIndex
            + batches::RangeRows
            + batches::Ledgers
            + packs::Packs
            + packs::Rejects
            + packs::Manifests
            + windows::Windows
            + receipts::Receipts
            + receipts::ReceiptIndex
            + receipts::Parked
            + suppressions::Suppressions
            + links::Links
            + retention::Retention
            + documents::Documents
            + journal::Journal
            + erasure::Erasure
            + meta::Meta
            + 'static,
    {
        Stores {
            batches: all.clone(),
            batch_index: all.clone(),
            ranges: all.clone(),
            ledgers: all.clone(),
            packs: all.clone(),
            rejects: all.clone(),
            manifests: all.clone(),
            windows: all.clone(),
            receipts: all.clone(),
            receipt_index: all.clone(),
            parked: all.clone(),
            suppressions: all.clone(),
            links: all.clone(),
            retention: all.clone(),
            documents: all.clone(),
            journal: all.clone(),
            erasure: all.clone(),
            meta: all.clone(),
        }
    }
}

/// The world apart from the store, as the roles hand it to the stages.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn clock::Clock>,
    /// Chance.
    pub chance: Arc<dyn clock::Chance>,
}
