//! Finding and erasing one number: the one exception from the rule that data rows are written once.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::receipts::{ParkedReport, UncertainEntry};
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::pack::{PackKey, SmsDeliveryPack};

/// A message of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMessage {
    /// The pack it is in.
    pub pack: PackKey,
    /// Its place in the pack.
    pub index: u32,
    /// Line in the source.
    pub line: u64,
    /// The short code of its link.
    pub code: Option<String>,
}

/// The messages to a number in a pack.
pub fn messages_to(number: Msisdn, pack: PackKey, content: SmsDeliveryPack) -> impl Iterator<Item = FoundMessage> {
    let mine = content.messages.into_iter().enumerate().filter(move |(_, message)| message.number == number);
    mine.map(move |(index, message)| FoundMessage {
        pack,
        index: index as u32,
        line: message.line,
        code: message.link.map(|link| link.code),
    })
}

/// What is stored of a number outside batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfNumber {
    /// Recipients of it that were never answered.
    pub uncertain: Vec<UncertainEntry>,
    /// Reports about it that match nothing (yet).
    pub parked: Vec<ParkedReport>,
}

/// Erases by number.
///
/// Contract: erasing is durable when it answers, and repeating it is harmless. Places, counts, outcomes, segments, message ids
/// and keys of rows stay as they are: only what names the person goes. Two erasures at once lose neither.
#[async_trait::async_trait]
pub trait Erasure: Send + Sync {
    /// Messages to a number in a lane, in the packs of all attempts. Reads the heads of the lane's packs.
    async fn messages(&self, lane: LaneKey, number: Msisdn) -> Result<Vec<FoundMessage>, StoreError>;

    /// Empties these messages: the number becomes [`Msisdn::ERASED`], the text is empty, the link gone. Answers how many.
    async fn erase_messages(&self, lane: LaneKey, number: Msisdn) -> Result<u64, StoreError>;

    /// Empties the number's cell and detail of records of a batch that never became a message. Answers how many.
    async fn erase_rejects(&self, batch: BatchId, number: Msisdn) -> Result<u64, StoreError>;

    /// Takes number and raw text out of a recipient's reports. Answers how many.
    async fn erase_reports(&self, recipient: RecipientKey) -> Result<u64, StoreError>;

    /// What is stored of a number outside batches.
    async fn of_number(&self, number: Msisdn) -> Result<OfNumber, StoreError>;

    /// Removes what is stored of a number outside batches. Answers how many uncertain entries and parked reports.
    async fn erase_of_number(&self, number: Msisdn) -> Result<(u64, u64), StoreError>;
}
