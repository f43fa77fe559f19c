//! What the simulator says of a run, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything the simulator counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SimulatorReport {
    /// Seconds since the start.
    pub seconds: f64,
    /// Submits that came in (SMPP parts, HTTP messages), throttled ones included.
    pub submits: u64,
    /// Segments accepted, whether or not anybody was told.
    pub accepted_segments: u64,
    /// Complete messages accepted: all their parts.
    pub complete_messages: u64,
    /// Different numbers with a complete message; 0 when numbers are not counted, like the next two.
    pub numbers: u64,
    /// Numbers with more than one complete message.
    pub repeated_numbers: u64,
    /// Complete messages of the number that had most.
    pub complete_per_number_max: u16,
    /// Messages of which only some parts were accepted.
    pub incomplete_messages: u64,
    /// Parts accepted a second time while their message was incomplete.
    pub repeated_parts: u64,
    /// Texts with something that no handset can show.
    pub malformed_texts: u64,
    /// Parts longer than 140 octets, refused or not.
    pub oversize_parts: u64,
    /// PDUs and requests that could not be read.
    pub malformed_requests: u64,
    /// Refusals by SMPP status (`0x00000058`).
    pub statuses: BTreeMap<String, u64>,
    /// Submits answered with "accepted". Together with the unanswered and the lost ones: all that were accepted.
    pub answered_accepted: u64,
    /// Submits refused because of the rate.
    pub throttled: u64,
    /// Submits refused because the session's window was full.
    pub out_of_window: u64,
    /// Submits accepted and never answered.
    pub unanswered: u64,
    /// Submits accepted whose answer was never given because the session ended first, or was an HTTP 500.
    pub lost_answers: u64,
    /// Most segments that came in within one second of the clock.
    pub received_per_second_max: u32,
    /// Most segments accepted within one second of the clock.
    pub accepted_per_second_max: u32,
    /// Segments accepted in each second since the start, up to a day.
    pub accepted_per_second: Vec<u32>,
    /// SMPP sessions.
    pub sessions: SessionTotals,
    /// Receipts.
    pub receipts: ReceiptTotals,
    /// The HTTP side.
    pub http: HttpTotals,
}

/// SMPP sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionTotals {
    /// Connections taken.
    pub connections: u64,
    /// Binds accepted.
    pub binds: u64,
    /// Binds refused.
    pub binds_refused: u64,
    /// Bound now.
    pub bound: u32,
    /// Bound at once at most.
    pub bound_max: u32,
    /// Ended by the client's unbind.
    pub unbound: u64,
    /// Dropped on purpose.
    pub dropped: u64,
    /// Ended without unbind by the client or the network.
    pub lost: u64,
    /// The client's `enquire_link`s.
    pub enquire_links: u64,
}

/// Receipts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceiptTotals {
    /// Receipts made, whether or not their time has come; a message that gets two counts twice.
    pub made: u64,
    /// Asked for, but never to come.
    pub never: u64,
    /// Sent, repeats included.
    pub sent: u64,
    /// Sent again because they were not acknowledged.
    pub resent: u64,
    /// Acknowledged; inbound messages are not counted here.
    pub acknowledged: u64,
    /// Final receipts acknowledged that say DELIVRD.
    pub acknowledged_delivered: u64,
    /// Answered with an error; they come again.
    pub refused: u64,
    /// Sent and not acknowledged yet.
    pub unacknowledged: u64,
    /// Not sent yet.
    pub waiting: u64,
    /// People's own texts made.
    pub inbound_made: u64,
    /// People's own texts acknowledged.
    pub inbound_acknowledged: u64,
}

/// The HTTP side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpTotals {
    /// Requests to send.
    pub requests: u64,
    /// Requests and messages answered from their idempotency key.
    pub replayed: u64,
    /// Requests without the right token.
    pub unauthorized: u64,
    /// Callbacks made, repeats included.
    pub callbacks: u64,
    /// Callbacks that did not get a 2xx.
    pub callbacks_failed: u64,
}

/// What is known of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRecord {
    /// Digits of E.164.
    pub number: u64,
    /// Submits for it, throttled ones not counted.
    pub submits: u16,
    /// Segments accepted.
    pub accepted_parts: u16,
    /// Submits refused for good.
    #[serde(default)]
    pub refused: u16,
    /// Complete messages accepted.
    pub complete: u16,
    /// Parts of the last complete message.
    pub parts: u16,
    /// [`text_hash`](super::text_hash) of the last complete message.
    pub text_hash: u64,
    /// Milliseconds from the start to its first submit.
    pub first_ms: u32,
    /// Milliseconds from the start to its last submit.
    pub last_ms: u32,
}

impl NumberRecord {
    /// Submits that were told "not now", at least: one that is accepted brings one segment or more.
    pub fn not_now(&self) -> u16 {
        self.submits.saturating_sub(self.accepted_parts).saturating_sub(self.refused)
    }
}
