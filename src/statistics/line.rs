//! One record as reports show it: where it ended, and what happened to it on the way.

use serde::{Deserialize, Serialize};

use crate::model::code::Code;
use crate::model::id::Msisdn;
use crate::model::outcome::Outcome;
use crate::model::receipt::Delivery;

/// A record with its outcome and history (personal data: for the operator's own reports only).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientLine {
    /// The number in E.164 with its plus sign; what stood in the list when it is no number.
    pub number: String,
    /// Number of the record in the source, from 0.
    pub record: u64,
    /// Line in the source, from 1.
    pub line: u64,
    /// Where it ended.
    pub outcome: Outcome,
    /// Why, when it was rejected or failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<Code>,
    /// What exactly; the provider's own code when it refused.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
    /// What its receipts say, when an account took it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivery: Option<Delivery>,
    /// The account it went through last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub account: Option<String>,
    /// The account's message ids, in the order of the answers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub message_ids: Vec<String>,
    /// Segments of its message as it was prepared; 0 when there is none.
    pub segments: u8,
    /// The text, without signature and link, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// How often a person opened its link.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub clicks: u64,
    /// How often a machine did: previewers, scanners, prefetches.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub machine_clicks: u64,
    /// When a person first opened its link, as RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_click: Option<String>,
    /// What happened, in the order of time.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub history: Vec<Event>,
}

// serde hands the field over by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Something that happened to a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, as RFC 3339 in UTC: for answers the moment their window was declared, which comes before the hand-over.
    pub at: String,
    /// What: `accepted`, `failed`, `throttled`, `queue_full`, `transient`, `session`, `no_answer`, `not_sent`, `suppressed`,
    /// `expired`, `judged`, or `receipt` with a `stat` word in `detail`.
    pub what: String,
    /// Which part, from 1; 0 when a report found its recipient by the number alone.
    pub part: u8,
    /// The account.
    pub account: String,
    /// The account's message id.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message_id: String,
    /// What exactly.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

/// Which records a listing shows. Empty lists allow all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientFilter {
    /// Only these outcomes.
    pub outcomes: Vec<Outcome>,
    /// Only these deliveries.
    pub deliveries: Vec<Delivery>,
    /// Only this number.
    pub number: Option<Msisdn>,
    /// Whether texts are shown.
    pub text: bool,
}

impl RecipientFilter {
    /// Whether a record with this outcome and delivery is shown.
    pub fn allows(&self, outcome: Outcome, delivery: Option<Delivery>) -> bool {
        let outcome_fits = self.outcomes.is_empty() || self.outcomes.contains(&outcome);
        let delivery_fits = self.deliveries.is_empty() || delivery.is_some_and(|said| self.deliveries.contains(&said));
        outcome_fits && delivery_fits
    }

    /// Whether records that never became a message can be shown.
    pub(super) fn wants_rejects(&self) -> bool {
        self.allows(Outcome::Rejected, None) || self.allows(Outcome::Suppressed, None)
    }

    /// Whether records that became a message can be shown.
    pub(super) fn wants_messages(&self) -> bool {
        self.outcomes.is_empty() || self.outcomes.iter().any(|outcome| *outcome != Outcome::Rejected)
    }

    /// Reads words such as `failed`, `uncertain` or `undelivered`: outcomes and deliveries may be mixed. The word that is
    /// neither comes back.
    pub fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<RecipientFilter, String> {
        let mut filter = RecipientFilter::default();
        let deliveries = [Delivery::Delivered, Delivery::Undelivered, Delivery::Pending, Delivery::Unknown];
        for word in words.map(str::trim).filter(|word| !word.is_empty()) {
            let word = word.to_ascii_lowercase();
            if let Some(outcome) = crate::model::outcome::OUTCOMES.iter().find(|outcome| outcome.name() == word) {
                filter.outcomes.push(*outcome);
            } else if let Some(delivery) = deliveries.iter().find(|delivery| delivery.name() == word) {
                filter.deliveries.push(*delivery);
            } else {
                return Err(word);
            }
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_filter() {
        let filter = RecipientFilter::from_words("Failed, uncertain".split(',')).expect("known words");
        assert!(filter.allows(Outcome::Failed, None) && !filter.allows(Outcome::Accepted, Some(Delivery::Pending)));
        assert!(!filter.wants_rejects());
        let filter = RecipientFilter::from_words("undelivered".split(',')).expect("known words");
        assert!(filter.allows(Outcome::Accepted, Some(Delivery::Undelivered)) && !filter.allows(Outcome::Failed, None));
        assert_eq!(RecipientFilter::from_words("fialed".split(',')), Err("fialed".to_owned()));
    }
}
