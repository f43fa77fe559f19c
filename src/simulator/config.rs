//! What the simulator listens on, how it behaves, and how it misbehaves.
//!
//! Every share is a fraction from 0 to 1. With the defaults nothing goes wrong and every receipt says DELIVRD.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::check;
use crate::model::code::Fault;

/// Everything the simulator is told. All keys have defaults; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorConfig {
    /// Where the SMPP server listens; port 0 takes any free one; `"off"` for none.
    #[serde(with = "address")]
    pub smpp_listen: Option<SocketAddr>,
    /// Where the HTTP provider and its control pages listen; port 0 takes any free one; `"off"` for none.
    #[serde(with = "address")]
    pub http_listen: Option<SocketAddr>,
    /// The `system_id` that may bind; empty lets everybody in.
    pub system_id: String,
    /// Its password (SMPP 3.4, 5.2.2: 8 characters at most).
    pub password: String,
    /// Bearer token that HTTP senders must show; empty for none.
    pub http_token: String,
    /// Seed of everything that is left to chance.
    pub seed: u64,
    /// Message ids.
    pub ids: Ids,
    /// SMPP sessions that may be bound at once; 0 for any number. One more is refused with ESME_RALYBND.
    pub sessions_max: u32,
    /// Unanswered submits allowed on one SMPP session; 0 for any number. One more is counted and refused with
    /// ESME_RTHROTTLED.
    pub window: u32,
    /// Milliseconds between the server's own `enquire_link`; 0 for never.
    pub enquire_link_ms: u32,
    /// Whether a part that does not fit into 140 octets with its header is refused with ESME_RINVMSGLEN, as strict centres do.
    pub refuse_oversize: bool,
    /// Whether refusals carry an empty `message_id` although SMPP 3.4, 4.4.2 leaves the body out.
    pub refusal_body: bool,
    /// Whether every number is kept with its count, parts, text hash and times (about 60 bytes a number). Without it only
    /// totals are known, nothing is decoded, and faults follow the order of the submits instead of the number's own.
    pub count_numbers: bool,
    /// Whether every accepted text is kept whole: for tests of some thousand messages.
    pub keep_texts: bool,
    /// How it misbehaves.
    pub faults: Faults,
    /// How its receipts behave.
    pub receipts: Receipts,
    /// How its HTTP side behaves.
    pub http: Http,
}

impl Default for SimulatorConfig {
    fn default() -> SimulatorConfig {
        SimulatorConfig {
            smpp_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 2775))),
            http_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 2780))),
            system_id: "smsfleet".to_owned(),
            password: "password".to_owned(),
            http_token: String::new(),
            seed: 1,
            ids: Ids::default(),
            sessions_max: 0,
            window: 0,
            enquire_link_ms: 30_000,
            refuse_oversize: true,
            refusal_body: false,
            count_numbers: true,
            keep_texts: false,
            faults: Faults::default(),
            receipts: Receipts::default(),
            http: Http::default(),
        }
    }
}

impl SimulatorConfig {
    /// The defaults on any free ports of the loopback interface: for one process and for tests.
    pub fn local() -> SimulatorConfig {
        let any = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        SimulatorConfig { smpp_listen: any, http_listen: any, ..SimulatorConfig::default() }
    }

    /// A provider on an ordinary day, on free ports: answers in 5 to 20 ms, a few refusals of each kind, receipts within a
    /// second of which some say that the message did not arrive. For demonstrations.
    pub fn everyday() -> SimulatorConfig {
        let mut config = SimulatorConfig::local();
        config.ids.style = IdStyle::HexThenDecimal;
        config.faults.latency = Delay::always(5, 20);
        (config.faults.permanent_share, config.faults.transient_share) = (0.01, 0.005);
        config.faults.queue_full_share = 0.001;
        config.receipts.delay = Delay::always(50, 1_000);
        (config.receipts.undelivered_share, config.receipts.expired_share) = (0.015, 0.005);
        config.receipts.twice_share = 0.01;
        config
    }

    /// Refuses shares outside 0 to 1, sums of shares above 1 and delays that end before they begin.
    pub fn check(&self) -> Result<(), Fault> {
        check::check(self)
    }
}

/// The forms of message ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdStyle {
    /// Decimal in answers and receipts.
    #[default]
    Decimal,
    /// Hexadecimal in answers and receipts.
    Hex,
    /// Hexadecimal in the answer, decimal in the receipt.
    HexThenDecimal,
    /// Decimal in the answer, hexadecimal in the receipt.
    DecimalThenHex,
    /// Like a UUID, in answers and receipts.
    Uuid,
}

/// Message ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ids {
    /// Their form.
    pub style: IdStyle,
    /// Digits to pad to with zeros in the answer; 0 for none.
    pub pad_answer: u8,
    /// Digits to pad to with zeros in the receipt; 0 for none.
    pub pad_receipt: u8,
    /// Whether hexadecimal digits are upper case.
    pub upper_case: bool,
    /// Whether ids begin at 1 again after every start, as small centres do; else they go on from the clock.
    pub repeat_after_restart: bool,
}

impl Default for Ids {
    fn default() -> Ids {
        Ids { style: IdStyle::Decimal, pad_answer: 0, pad_receipt: 0, upper_case: false, repeat_after_restart: false }
    }
}

/// One piece of a delay mix: this share of the messages waits between `min_ms` and `max_ms`. What the shares leave of 1
/// does not wait at all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// Share of the messages.
    pub share: f64,
    /// Shortest wait in milliseconds.
    pub min_ms: u32,
    /// Longest wait in milliseconds.
    pub max_ms: u32,
}

impl Delay {
    /// Every message waits this long.
    pub fn always(min_ms: u32, max_ms: u32) -> Vec<Delay> {
        vec![Delay { share: 1.0, min_ms, max_ms }]
    }
}

/// What goes wrong with submits. Can be changed while the simulator runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// How long answers take.
    pub latency: Vec<Delay>,
    /// Segments a second taken before ESME_RTHROTTLED (HTTP: 429); 0 for no limit.
    pub rate: u32,
    /// Milliseconds of the rate that may come at once.
    pub burst_ms: u32,
    /// Share of handsets whose queue is full (ESME_RMSGQFUL; HTTP: 429) from their first submit on.
    pub queue_full_share: f64,
    /// How long such a handset stays full, in milliseconds.
    pub queue_full_ms: u32,
    /// Share of submits refused for now (HTTP: 503).
    pub transient_share: f64,
    /// The codes to choose from.
    pub transient_codes: Vec<u32>,
    /// Share of numbers refused for good, at every submit (HTTP: 400).
    pub permanent_share: f64,
    /// The codes to choose from.
    pub permanent_codes: Vec<u32>,
    /// Share of submits accepted but never answered.
    pub no_answer_share: f64,
    /// Share of submits accepted whose session is dropped before the answer (HTTP: 500 after acceptance).
    pub lost_answer_share: f64,
    /// The session is dropped after every so many submits, all answered; 0 for never.
    pub drop_session_every: u64,
    /// Whether those drops cut the last answer half-way.
    pub drop_mid_answer: bool,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            latency: Vec::new(),
            rate: 0,
            burst_ms: 100,
            queue_full_share: 0.0,
            queue_full_ms: 3_000,
            transient_share: 0.0,
            transient_codes: vec![0x08, 0x64],
            permanent_share: 0.0,
            permanent_codes: vec![0x0B, 0x0A],
            no_answer_share: 0.0,
            lost_answer_share: 0.0,
            drop_session_every: 0,
            drop_mid_answer: false,
        }
    }
}

/// Where a receipt's facts stand (SMPP 3.4, 5.3 and appendix B).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptForm {
    /// In `receipted_message_id`, `message_state` and `network_error_code` only.
    Tlv,
    /// In the text only.
    Text,
    /// In both.
    #[default]
    Both,
}

/// How receipts behave. Can be changed while the simulator runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Receipts {
    /// Where their facts stand.
    pub form: ReceiptForm,
    /// How long they take.
    pub delay: Vec<Delay>,
    /// Share that says UNDELIV.
    pub undelivered_share: f64,
    /// Share that says EXPIRED.
    pub expired_share: f64,
    /// Share that says DELETED.
    pub deleted_share: f64,
    /// Share that says REJECTD.
    pub rejected_share: f64,
    /// Share that says UNKNOWN.
    pub unknown_share: f64,
    /// Share of messages with an intermediate ACCEPTD before the final one.
    pub accepted_first_share: f64,
    /// Share of messages with an ENROUTE that comes after the final one.
    pub out_of_order_share: f64,
    /// Share of messages whose receipt never comes.
    pub never_share: f64,
    /// Share of messages whose receipt comes twice.
    pub twice_share: f64,
    /// Share of messages whose receipt comes before their answer.
    pub early_share: f64,
    /// Whether one receipt, with the id of part 1, stands for all parts.
    pub one_per_message: bool,
    /// Whether dates in the text have seconds.
    pub seconds: bool,
    /// Receipts that may be unacknowledged on one session.
    pub window: u32,
    /// An unacknowledged receipt is sent again after this many milliseconds, or on the next session after its own has ended.
    pub resend_ms: u32,
    /// Share of accepted messages that a person answers with a text of their own; over HTTP only with `http.inbound_url`.
    pub inbound_share: f64,
    /// Milliseconds from the answer to a submit until the person's text.
    pub inbound_delay_ms: u32,
    /// What they write.
    pub inbound_texts: Vec<String>,
}

impl Default for Receipts {
    fn default() -> Receipts {
        Receipts {
            form: ReceiptForm::Both,
            delay: Vec::new(),
            undelivered_share: 0.0,
            expired_share: 0.0,
            deleted_share: 0.0,
            rejected_share: 0.0,
            unknown_share: 0.0,
            accepted_first_share: 0.0,
            out_of_order_share: 0.0,
            never_share: 0.0,
            twice_share: 0.0,
            early_share: 0.0,
            one_per_message: false,
            seconds: false,
            window: 1_000,
            resend_ms: 30_000,
            inbound_share: 0.0,
            inbound_delay_ms: 50,
            inbound_texts: vec!["STOP".to_owned(), "Yes please".to_owned()],
        }
    }
}

/// The HTTP provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where receipts are pushed to (plain `http://`); empty for nowhere.
    pub callback_url: String,
    /// Bearer token sent with them; empty for none.
    pub callback_token: String,
    /// Where people's own texts are pushed to, one by one (plain `http://`); empty for nowhere.
    pub inbound_url: String,
    /// Bearer token sent with them; empty for none.
    pub inbound_token: String,
    /// Receipts in one callback: 1 sends an object, more an array.
    pub callback_batch: u32,
    /// Callbacks under way at once.
    pub callback_connections: u32,
    /// Milliseconds before a callback that did not get a 2xx is tried again; doubles up to 32 times that.
    pub callback_retry_ms: u32,
    /// Seconds that idempotency keys are remembered.
    pub key_lifetime_s: u32,
    /// Status of throttled requests: 429 or 503.
    pub throttle_status: u16,
    /// Seconds in `Retry-After`.
    pub retry_after_s: u32,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            callback_url: String::new(),
            callback_token: String::new(),
            inbound_url: String::new(),
            inbound_token: String::new(),
            callback_batch: 1,
            callback_connections: 4,
            callback_retry_ms: 200,
            key_lifetime_s: 86_400,
            throttle_status: 429,
            retry_after_s: 1,
        }
    }
}

/// Addresses in configuration: `"off"` stands for none, because TOML has no null.
mod address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str("off"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| D::Error::custom(format!("`{text}` is no address like 127.0.0.1:2775, nor `off`")))
    }
}
