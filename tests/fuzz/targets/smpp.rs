//! PDUs of a hostile SMSC: framing, and what is read out of each body.

use std::collections::BTreeMap;

use bytes::BytesMut;
use smsfleet::adapters::smpp::inbound::{PATIENCE, Parts};
use smsfleet::adapters::smpp::lenient::{BadLength, Frame, data_sm, deliver_sm, message_id, next_frame};
use smsfleet::adapters::smpp::receipt::report;
use smsfleet::model::limits::MESSAGE_ID_MAX;
use smsfleet::model::time::Timestamp;
use tokio::time::Instant;

use super::input::Input;

/// Octets of a PDU at most, here.
const LENGTH_MAX: u32 = 4_096;
/// The other form of a message or receipt; everything else is read as the first.
const DATA_SM: u32 = 0x103;

/// An octet that says in what pieces the stream comes, then the stream.
pub fn pdus(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (step, stream) = (usize::from(input.byte()) + 1, input.0);
    let (frames, end) = frames(stream, stream.len().max(1));
    assert_eq!(self::frames(stream, step), (frames.clone(), end), "PDUs do not depend on how the stream is cut");
    let (mut parts, now) = (Parts::default(), Instant::now());
    // Each PDU is acknowledged once, whatever becomes of its message.
    let mut owed: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    let (mut octets, mut characters, mut settled) = (0, 0, vec![]);
    for frame in &frames {
        assert!(frame.body.len() <= LENGTH_MAX as usize);
        assert!(message_id(&frame.body).chars().count() <= MESSAGE_ID_MAX);
        let delivered = if frame.command == DATA_SM { data_sm(&frame.body) } else { deliver_sm(&frame.body) };
        assert!(delivered.text.len() <= frame.body.len() && delivered.source.chars().count() <= frame.body.len());
        if delivered.is_receipt() {
            let report = report(&delivered, Timestamp(9));
            assert!(report.message_id.chars().count() <= MESSAGE_ID_MAX && report.raw.len() <= 4 * frame.body.len() + 64);
            continue;
        }
        *owed.entry((frame.command, frame.sequence)).or_default() += 1;
        octets += frame.body.len();
        settled.extend(parts.take((frame.command, frame.sequence), delivered, Timestamp(9), now));
    }
    settled.extend(parts.expired(now + PATIENCE));
    for (keys, inbound) in settled {
        assert!(inbound.id.chars().count() <= MESSAGE_ID_MAX);
        characters += inbound.text.chars().count();
        for key in keys {
            let left = owed.get_mut(&key).filter(|left| **left > 0);
            *left.expect("it came, and was not given back before") -= 1;
        }
    }
    assert!(owed.values().all(|left| *left == 0), "every PDU is given back: {owed:?}");
    assert!(characters <= octets, "a text is no longer than what it came in");
    end.is_none() && !frames.is_empty()
}

/// The PDUs of a stream that comes in pieces, and the length that ended it.
fn frames(stream: &[u8], step: usize) -> (Vec<Frame>, Option<BadLength>) {
    let (mut buffer, mut frames) = (BytesMut::new(), vec![]);
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match next_frame(&mut buffer, LENGTH_MAX) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(bad) => {
                    assert!(!(16..=LENGTH_MAX).contains(&bad.0));
                    return (frames, Some(bad));
                }
            }
        }
        assert!(buffer.len() < LENGTH_MAX as usize, "what is kept is less than a PDU");
        assert!(buffer.capacity() <= 4 * stream.len() + 1_024, "a length makes no memory of its own");
    }
    (frames, None)
}
