//! Delivery reports: kept with their recipient, found by message id, parked while they match nothing.

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::inbound::{Inbound, Intent};
use crate::model::receipt::Report;
use crate::model::time::Timestamp;

/// One part of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartKey {
    /// The recipient.
    pub recipient: RecipientKey,
    /// Which part, from 0.
    pub part: u8,
}

/// The part of a report that found its recipient by the number alone: it does not say which part it is about.
pub const UNKNOWN_PART: u8 = u8::MAX;

/// A report that has found its recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedReport {
    /// Whose.
    pub part: PartKey,
    /// The account it came from.
    pub account: String,
    /// What it says.
    pub report: Report,
}

/// Reports of recipients. Each rung and each different raw report is a cell of its own, so a report may come twice, in any
/// order, on any worker, and counts once.
#[async_trait::async_trait]
pub trait Receipts: Send + Sync {
    /// Stores reports, durably. Answers for each whether it is new: the same part, rung and raw text were not there.
    async fn record(&self, reports: Vec<MatchedReport>) -> Result<Vec<bool>, StoreError>;

    /// Reports of a lane's recipients, by place, part and rung, for places from `from_seq` on; whole recipients only, at
    /// least one when there is one, about `limit` reports.
    async fn list(&self, lane: LaneKey, from_seq: u32, limit: usize) -> Result<Vec<MatchedReport>, StoreError>;
}

/// Hears of reports before they are recorded and acknowledged.
#[async_trait::async_trait]
pub trait ReportListener: Send + Sync {
    /// Whether it wants to hear of any.
    async fn wanted(&self) -> Result<bool, StoreError>;

    /// Takes in reports that were not recorded before, durably. The same report may come again when the process died between
    /// this call and the record.
    async fn reports(&self, reports: &[MatchedReport]) -> Result<(), StoreError>;

    /// Takes in messages of people, durably, before they are acknowledged. The same may come again.
    async fn inbound(&self, heard: &[Heard]) -> Result<(), StoreError>;
}

/// A message of a person, with what it answers and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The account it came through.
    pub account: String,
    /// The message.
    pub message: Inbound,
    /// The batch it answers, whose it is, and its campaign.
    pub answers: Option<(BatchId, String, String)>,
    /// What it asks for.
    pub intent: Intent,
}

/// One message id of an account, to be found when its receipt comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The account.
    pub account: String,
    /// The id in its canonical form ([`crate::model::idform::canonical`]).
    pub message_id: String,
    /// The number it was sent to.
    pub number: Msisdn,
    /// Whose it is.
    pub part: PartKey,
}

/// A recipient that was handed over and never answered, findable by number: a late receipt settles it if it fits exactly
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncertainEntry {
    /// The account it was handed to.
    pub account: String,
    /// Its number.
    pub number: Msisdn,
    /// Whose it is.
    pub part: PartKey,
    /// When its window was declared.
    pub declared_at: Timestamp,
}

/// From message ids to recipients.
#[async_trait::async_trait]
pub trait ReceiptIndex: Send + Sync {
    /// The recipients of message ids at an account, newest first for each, since accounts use ids again. `ids` are in the
    /// index's form; a number narrows the answer to its own entries. Of an id that very many share the newest
    /// [`CANDIDATES_MAX`](crate::model::limits::CANDIDATES_MAX) that its number leaves; what is asked for twice is looked up once.
    async fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError>;

    /// Stores uncertain recipients, so that a receipt without a known id can find them.
    async fn put_uncertain(&self, entries: Vec<UncertainEntry>) -> Result<(), StoreError>;

    /// Uncertain recipients of a number at an account.
    async fn uncertain(&self, account: &str, number: Msisdn) -> Result<Vec<UncertainEntry>, StoreError>;
}

/// A report that matches nothing yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedReport {
    /// Its name: derived from account and content, so that parking twice is parking once.
    pub id: u64,
    /// The account it came from.
    pub account: String,
    /// The report.
    pub report: Report,
    /// When to look again; `None` once it was looked for long enough: it stays visible as unmatched.
    pub due: Option<Timestamp>,
    /// How often it was looked for.
    pub looks: u32,
}

/// Reports that match nothing yet: rows with a due time, never a waiting consumer.
#[async_trait::async_trait]
pub trait Parked: Send + Sync {
    /// Stores reports under their names, durably; the same name again replaces.
    async fn park(&self, reports: Vec<ParkedReport>) -> Result<(), StoreError>;

    /// Reports that are due at `now`, the earliest first, at most `limit`.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<ParkedReport>, StoreError>;

    /// Removes reports that found their recipient.
    async fn remove(&self, ids: Vec<u64>) -> Result<(), StoreError>;

    /// How many wait for another look, and how many stayed unmatched.
    async fn counts(&self) -> Result<(u64, u64), StoreError>;

    /// Reports that stayed unmatched, behind a name, at most `limit`.
    async fn unmatched(&self, behind: Option<u64>, limit: usize) -> Result<Vec<ParkedReport>, StoreError>;
}
