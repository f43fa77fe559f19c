//! Receipts and people's own texts: when they are due, and how they look as `deliver_sm`.

use std::collections::{BTreeMap, VecDeque};

use super::config::{Ids, ReceiptForm, Receipts};
use super::fate::State;
use super::ids;
use super::pdu::{Deliver, write_deliver};

/// Microseconds that share one bucket: receipts are moved by the bucket, so that tens of thousands a second cost little.
pub(super) const TICK_US: u64 = 4_000;

/// What a `deliver_sm` or callback says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The final receipt.
    Final(State),
    /// An intermediate one.
    Intermediate(State),
    /// A person's own text, by its place in `inbound_texts`.
    Inbound(u16),
}

/// Something to be sent to the client when its time comes.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub number: u64,
    pub id: u64,
    /// The address the message was sent from, by its place in the simulator's list.
    pub sender: u32,
    pub kind: Kind,
    /// When the message was submitted, in Unix seconds.
    pub submitted_s: u32,
    /// When the network was done with it.
    pub done_s: u32,
    /// Whether it was sent before and not acknowledged.
    pub is_repeat: bool,
    /// Set when the message came over HTTP: the receipt goes to the callback.
    pub http: Option<Box<HttpOrigin>>,
}

/// What a callback repeats of its message.
#[derive(Clone, Debug)]
pub(super) struct HttpOrigin {
    pub to: String,
    pub key: Option<String>,
}

/// What waits: for its time, for a session with room, for a callback.
#[derive(Default)]
pub(super) struct ReceiptQueue {
    later: BTreeMap<u64, Vec<Due>>,
    later_count: u64,
    /// To be sent by any session that takes receipts, the first first.
    pub ready: VecDeque<Due>,
    /// To be pushed to the callback.
    pub ready_http: VecDeque<Due>,
}

impl ReceiptQueue {
    /// Puts `due` off to `at_us`, at least to the next tick. Answers whether nothing waited before, so that the timer sleeps.
    pub fn put(&mut self, at_us: u64, due: Due) -> bool {
        let was_idle = self.later.is_empty();
        self.later.entry(at_us / TICK_US + 1).or_default().push(due);
        self.later_count += 1;
        was_idle
    }

    /// Moves everything that is due at `now_us`. Answers whether there was any for sessions, and for callbacks.
    pub fn advance(&mut self, now_us: u64) -> (bool, bool) {
        let before = (self.ready.len(), self.ready_http.len());
        while let Some(bucket) = self.later.first_entry().filter(|bucket| *bucket.key() <= now_us / TICK_US) {
            let bucket = bucket.remove();
            self.later_count -= bucket.len() as u64;
            for due in bucket {
                self.put_ready(due);
            }
        }
        (self.ready.len() > before.0, self.ready_http.len() > before.1)
    }

    /// Makes `due` ready now.
    pub fn put_ready(&mut self, due: Due) {
        if due.http.is_some() { self.ready_http.push_back(due) } else { self.ready.push_back(due) }
    }

    /// Takes back what a session or callback did not get acknowledged, before everything else.
    pub fn take_back(&mut self, unacknowledged: impl DoubleEndedIterator<Item = Due>) {
        for due in unacknowledged.rev() {
            let due = Due { is_repeat: true, ..due };
            if due.http.is_some() { self.ready_http.push_front(due) } else { self.ready.push_front(due) }
        }
    }

    /// Whether nothing waits for its time.
    pub fn is_idle(&self) -> bool {
        self.later.is_empty()
    }

    /// How many are not sent yet.
    pub fn waiting(&self) -> u64 {
        self.later_count + self.ready.len() as u64 + self.ready_http.len() as u64
    }
}

/// Writes `due` as a `deliver_sm` from its number to `sender`.
pub(super) fn write(out: &mut Vec<u8>, due: &Due, sender: &[u8], sequence: u32, rules: &Receipts, id_rules: &Ids) {
    let mut message = Vec::with_capacity(160);
    let mut parameters = Vec::new();
    let (state, esm_class) = match due.kind {
        Kind::Final(state) => (state, 0x04),
        Kind::Intermediate(state) => (state, 0x20),
        Kind::Inbound(text) => {
            let text = rules.inbound_texts.get(usize::from(text)).map_or("", String::as_str);
            // What ASCII cannot say goes as UCS-2 (SMPP 3.4, 5.2.19).
            let (data_coding, octets) = match text.is_ascii() {
                true => (0, text.as_bytes().to_vec()),
                false => (8, text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            };
            let (source, message) = (due.number, &octets[..]);
            let (destination, parameters) = (sender, &[][..]);
            let deliver = Deliver { sequence, source, destination, esm_class: 0, data_coding, message, parameters };
            return write_deliver(out, &deliver);
        }
    };
    if rules.form != ReceiptForm::Tlv {
        receipt_text(&mut message, due, state, rules.seconds, id_rules);
    }
    if rules.form != ReceiptForm::Text {
        receipt_parameters(&mut parameters, due, state, id_rules);
    }
    let deliver = Deliver {
        sequence,
        source: due.number,
        destination: sender,
        esm_class,
        data_coding: 0,
        message: &message,
        parameters: &parameters,
    };
    write_deliver(out, &deliver);
}

/// The text of SMPP 3.4, appendix B.
fn receipt_text(text: &mut Vec<u8>, due: &Due, state: State, seconds: bool, id_rules: &Ids) {
    text.extend_from_slice(b"id:");
    ids::receipt(id_rules, due.id, text);
    let delivered: &[u8] =
        if state == State::Delivered { b" sub:001 dlvrd:001 submit date:" } else { b" sub:001 dlvrd:000 submit date:" };
    text.extend_from_slice(delivered);
    date(text, due.submitted_s, seconds);
    text.extend_from_slice(b" done date:");
    date(text, due.done_s, seconds);
    text.extend_from_slice(b" stat:");
    text.extend_from_slice(state.stat().as_bytes());
    text.extend_from_slice(b" err:");
    ids::decimal(u64::from(state.error()), 3, text);
    text.extend_from_slice(b" text:");
}

/// `receipted_message_id`, `message_state` and `network_error_code` (SMPP 3.4, 5.3.2.12, 35 and 31).
fn receipt_parameters(out: &mut Vec<u8>, due: &Due, state: State, id_rules: &Ids) {
    out.extend_from_slice(&[0x00, 0x1E, 0, 0]);
    ids::receipt(id_rules, due.id, out);
    out.push(0);
    let length = (out.len() - 4) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0x04, 0x27, 0, 1, state as u8]);
    out.extend_from_slice(&[0x04, 0x23, 0, 3, 3]);
    out.extend_from_slice(&state.error().to_be_bytes());
}

/// `YYMMDDhhmm`, in UTC, with seconds behind when asked for.
pub(super) fn date(out: &mut Vec<u8>, unix_s: u32, seconds: bool) {
    let (year, month, day) = civil(unix_s / 86_400);
    let second_of_day = unix_s % 86_400;
    let fields = [year % 100, month, day, second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60];
    for field in &fields[..if seconds { 6 } else { 5 }] {
        out.extend_from_slice(&[b'0' + (field / 10) as u8, b'0' + (field % 10) as u8]);
    }
}

/// Year, month and day of a day since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: u32) -> (u32, u32, u32) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(kind: Kind) -> Due {
        Due {
            number: 8_613_800_138_000,
            id: 255,
            sender: 0,
            kind,
            submitted_s: 1_732_320_000,
            done_s: 1_732_320_065,
            is_repeat: false,
            http: None,
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "700101000000"),
            (951_782_400, "000229000000"),
            (1_732_320_065, "241123000105"),
            (4_102_444_799, "991231235959"),
        ];
        for (unix_s, expected) in cases {
            let mut out = Vec::new();
            date(&mut out, unix_s, true);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn a_receipt_has_its_text_and_parameters() {
        let mut text = Vec::new();
        receipt_text(&mut text, &due(Kind::Final(State::Delivered)), State::Delivered, false, &Ids::default());
        let expected = "id:255 sub:001 dlvrd:001 submit date:2411230000 done date:2411230001 stat:DELIVRD err:000 text:";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
        let mut parameters = Vec::new();
        receipt_parameters(&mut parameters, &due(Kind::Final(State::Expired)), State::Expired, &Ids::default());
        assert_eq!(parameters, b"\x00\x1E\x00\x04255\0\x04\x27\x00\x01\x03\x04\x23\x00\x03\x03\x00\x1B");
    }

    #[test]
    fn nothing_is_sent_before_its_time_and_the_unacknowledged_come_first() {
        let mut queue = ReceiptQueue::default();
        assert!(queue.put(10_000, due(Kind::Inbound(1))));
        assert!(!queue.put(2_000, due(Kind::Inbound(0))));
        assert_eq!(queue.advance(3_999), (false, false));
        assert_eq!(queue.advance(4_000), (true, false));
        assert_eq!((queue.ready[0].kind, queue.waiting()), (Kind::Inbound(0), 2));
        queue.take_back([due(Kind::Inbound(7)), due(Kind::Inbound(8))].into_iter());
        let order: Vec<Kind> = queue.ready.iter().map(|due| due.kind).collect();
        assert_eq!(order, [Kind::Inbound(7), Kind::Inbound(8), Kind::Inbound(0)]);
        queue.advance(20_000);
        assert!(queue.is_idle());
    }
}
