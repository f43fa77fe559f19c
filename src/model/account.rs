//! Accounts as the stages see them: what they can do, how fast, and how their receipts look. How they are reached is the
//! adapters' business.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::idform::IdForm;
use super::inbound::OptOutRules;

/// How a long message travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongMessage {
    /// Concatenation header with an 8-bit reference (3GPP TS 23.040, 9.2.3.24.1): 153 septets or 67 units a part.
    #[default]
    Udh8,
    /// Concatenation header with a 16-bit reference (9.2.3.24.8): 152 septets or 66 units a part.
    Udh16,
    /// SMPP's `sar_*` parameters (SMPP 3.4, 5.3.2.22 to 24): the header is made by the SMSC, 153 or 67 a part.
    Sar,
    /// SMPP's `message_payload` (5.3.2.32), or an HTTP provider: one submit, the provider splits.
    Payload,
}

/// What an account can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// How long messages travel.
    pub long_message: LongMessage,
    /// Whether we put the signature 【…】 before the text; else the provider does.
    pub add_signature: bool,
    /// Whether texts may carry a link of their own for each recipient.
    pub links: bool,
    /// Digits of `ext_code` the account takes after its sender number.
    pub ext_code_max: u8,
    /// The most parts one message may have.
    pub parts_max: u8,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities { long_message: LongMessage::default(), add_signature: true, links: true, ext_code_max: 20, parts_max: 10 }
    }
}

/// How an account's receipts are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiptRules {
    /// Whether receipts are asked for at all.
    pub wanted: bool,
    /// How long a receipt is waited for after the last submit; then the recipient's delivery is unknown.
    #[serde(with = "super::schedule::seconds")]
    pub wait: Duration,
    /// How message ids in answers and in receipts relate.
    pub id_form: IdForm,
    /// Whether one receipt stands for the whole message, or each part has its own.
    pub one_per_message: bool,
    /// Whether ACCEPTD is final (SMPP 3.4, 5.2.28 says so; CMPP and most gateways do not).
    pub acceptd_is_final: bool,
}

impl Default for ReceiptRules {
    fn default() -> ReceiptRules {
        ReceiptRules {
            wanted: true,
            wait: Duration::from_secs(72 * 3600),
            id_form: IdForm::Learn,
            one_per_message: false,
            acceptd_is_final: false,
        }
    }
}

/// An account of a provider type, as the stages see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Its name: a metrics label, so operators choose few.
    pub name: String,
    /// The provider type it belongs to.
    pub provider_type: String,
    /// Segments a second it allows; `None` when nobody knows, then the rate is learned.
    pub rate: Option<u32>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Its receipts.
    pub receipts: ReceiptRules,
    /// Price of a segment, in the currency's own unit.
    pub price: Option<f64>,
    /// Currency of the price.
    pub currency: String,
    /// When sending is allowed.
    pub hours: Option<super::schedule::SendingHours>,
    /// How long an answer is waited for before a message counts as unanswered.
    pub answer_timeout: Duration,
    /// Its own sender number, without any `ext_code`; empty when it has none.
    #[serde(default)]
    pub sender: String,
    /// How messages of people are understood.
    #[serde(default)]
    pub opt_out: OptOutRules,
}
