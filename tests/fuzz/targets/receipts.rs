//! Texts of receipts, as SMSCs write them.

use smsfleet::adapters::rows::receipt::{read, write};
use smsfleet::adapters::smpp::lenient::Delivered;
use smsfleet::adapters::smpp::receipt::report;
use smsfleet::model::id::{BatchId, LaneKey, RecipientKey};
use smsfleet::model::limits::MESSAGE_ID_MAX;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::receipts::PartKey;

use super::input::Input;

/// An octet with the alphabet and the kind, an octet with the state (0: none), the handset's number in a line, then the text.
pub fn receipt(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (kind, state, source) = (input.byte(), input.byte(), input.line());
    let delivered = Delivered {
        source,
        esm_class: if kind & 0x80 == 0 { 0x04 } else { 0x20 },
        data_coding: kind & 0x0F,
        message_state: Some(state).filter(|state| *state > 0),
        text: input.0.to_vec(),
        ..Delivered::default()
    };
    let report = report(&delivered, Timestamp(9));
    assert!(report.message_id.chars().count() <= MESSAGE_ID_MAX);
    // A text is kept whole, and is never much longer than what came: an octet is three of UTF-8 at most.
    assert!(report.raw.len() <= 3 * delivered.text.len() + 64);
    assert!(report.error.len() <= report.raw.len());
    let lane = LaneKey { batch: BatchId(1), lane: 2 };
    let part = PartKey { recipient: RecipientKey { lane, seq: 3 }, part: 1 };
    let stored = read(part, &write("a", &report)).expect("what is written is read");
    assert_eq!((stored.account.as_str(), &stored.report), ("a", &report));
    !report.message_id.is_empty()
}
