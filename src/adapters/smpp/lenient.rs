//! PDUs as they are read: everything a strict reader takes, and what real SMSCs send beside.
//!
//! A missing final NUL, a message id that is too long, an octet that is not ASCII, a parameter of the wrong length, a body
//! that ends early: all of these are read as far as they go. Only a length that cannot be a PDU's ends the session, because
//! nothing behind it can be trusted.

use bytes::{Buf, BytesMut};

use super::pdu::HEADER;
use crate::model::limits::{ADDRESS_CHARS_MAX, MESSAGE_ID_MAX};

/// A PDU: its header, and its body as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Command id.
    pub command: u32,
    /// Command status.
    pub status: u32,
    /// Sequence number.
    pub sequence: u32,
    /// What follows the header.
    pub body: BytesMut,
}

/// A length that no PDU has: the stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PDU of {0} octets")]
pub struct BadLength(pub u32);

/// Takes the next whole PDU off the front, if it is there already.
pub fn next_frame(input: &mut BytesMut, length_max: u32) -> Result<Option<Frame>, BadLength> {
    let Some(length) = input.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets)) else { return Ok(None) };
    if length < HEADER as u32 || length > length_max {
        return Err(BadLength(length));
    }
    // Whoever reads makes room for what comes: an announced length is no octet yet.
    if input.len() < length as usize {
        return Ok(None);
    }
    let mut body = input.split_to(length as usize);
    body.advance(4);
    let (command, status, sequence) = (body.get_u32(), body.get_u32(), body.get_u32());
    Ok(Some(Frame { command, status, sequence, body }))
}

/// The message id of a `submit_sm_resp`: up to its NUL or the end, as it was sent, at most 64 characters. Octets that are
/// not ASCII are read as Latin-1. Empty when there is none.
pub fn message_id(body: &[u8]) -> Box<str> {
    let id = until_nul(body);
    let id = &id[..id.len().min(MESSAGE_ID_MAX)];
    match std::str::from_utf8(id) {
        Ok(id) if id.is_ascii() => id.into(),
        _ => latin1(id).into(),
    }
}

/// What a `deliver_sm` or `data_sm` says, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// From whom; in a receipt, the handset.
    pub source: String,
    /// To whom: our own number, with an `ext_code` behind it. Read for messages of people alone.
    pub destination: String,
    /// The kind of message (SMPP 3.4, 5.2.12).
    pub esm_class: u8,
    /// The alphabet of `text`.
    pub data_coding: u8,
    /// `short_message`, or `message_payload` when that is there.
    pub text: Vec<u8>,
    /// `receipted_message_id` (5.3.2.12).
    pub receipted_message_id: Option<String>,
    /// `message_state` (5.3.2.35).
    pub message_state: Option<u8>,
    /// `network_error_code` (5.3.2.31): the kind of network, when it is there, and the code.
    pub network_error: Option<(Option<u8>, u16)>,
    /// `sar_msg_ref_num`, `sar_total_segments` and `sar_segment_seqnum` (5.3.2.22 to 24), when all are there.
    pub sar: Option<(u16, u8, u8)>,
}

impl Delivered {
    /// Whether it is a receipt or an intermediate notification, and not a message of a person.
    pub fn is_receipt(&self) -> bool {
        matches!(self.esm_class & 0x3C, 0x04 | 0x20)
    }

    /// Whether it is an intermediate notification, which is never the last word.
    pub fn is_intermediate(&self) -> bool {
        self.esm_class & 0x3C == 0x20
    }
}

/// Reads the body of a `deliver_sm` (SMPP 3.4, 4.6.1).
pub fn deliver_sm(body: &[u8]) -> Delivered {
    let mut rest = Rest(body);
    let mut delivered = Delivered::default();
    rest.text(); // service_type
    rest.take(2); // source ton and npi
    delivered.source = address(rest.text());
    rest.take(2); // destination ton and npi
    let destination = rest.text();
    delivered.esm_class = rest.octet();
    if !delivered.is_receipt() {
        delivered.destination = address(destination);
    }
    rest.take(2); // protocol_id, priority_flag
    rest.text(); // schedule_delivery_time
    rest.text(); // validity_period
    rest.take(2); // registered_delivery, replace_if_present_flag
    delivered.data_coding = rest.octet();
    rest.take(1); // sm_default_msg_id
    let length = usize::from(rest.octet());
    delivered.text = rest.take(length).to_vec();
    parameters(rest, &mut delivered);
    delivered
}

/// Reads the body of a `data_sm` (SMPP 3.4, 4.7.1).
pub fn data_sm(body: &[u8]) -> Delivered {
    let mut rest = Rest(body);
    let mut delivered = Delivered::default();
    rest.text(); // service_type
    rest.take(2); // source ton and npi
    delivered.source = address(rest.text());
    rest.take(2); // destination ton and npi
    let destination = rest.text();
    delivered.esm_class = rest.octet();
    if !delivered.is_receipt() {
        delivered.destination = address(destination);
    }
    rest.take(1); // registered_delivery
    delivered.data_coding = rest.octet();
    parameters(rest, &mut delivered);
    delivered
}

/// An address, or the beginning of what cannot be one.
fn address(octets: &[u8]) -> String {
    latin1(&octets[..octets.len().min(ADDRESS_CHARS_MAX)])
}

fn parameters(mut rest: Rest<'_>, delivered: &mut Delivered) {
    let mut sar = (None, None, None);
    while !rest.0.is_empty() {
        let (tag, length) = (rest.short(), usize::from(rest.short()));
        let value = rest.take(length);
        match (tag, value) {
            (0x001E, value) => delivered.receipted_message_id = Some(latin1(until_nul(value))).filter(|id| !id.is_empty()),
            (0x0427, [state, ..]) => delivered.message_state = Some(*state),
            (0x0423, [kind, high, low, ..]) => {
                delivered.network_error = Some((Some(*kind), u16::from_be_bytes([*high, *low])));
            }
            (0x0423, [high, low]) => delivered.network_error = Some((None, u16::from_be_bytes([*high, *low]))),
            (0x0424, value) if !value.is_empty() => delivered.text = value.to_vec(),
            (0x020C, [high, low]) => sar.0 = Some(u16::from_be_bytes([*high, *low])),
            (0x020E, [total]) => sar.1 = Some(*total),
            (0x020F, [number]) => sar.2 = Some(*number),
            _ => {}
        }
    }
    if let (Some(reference), Some(total), Some(number)) = sar {
        delivered.sar = Some((reference, total, number));
    }
}

/// What is left to read; reading beyond the end gives zeros and nothing.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, octets: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(octets.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn octet(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        u16::from(self.octet()) << 8 | u16::from(self.octet())
    }

    /// A text with a final NUL, without it.
    fn text(&mut self) -> &'a [u8] {
        let text = until_nul(self.0);
        self.take(text.len() + 1);
        text
    }
}

fn until_nul(octets: &[u8]) -> &[u8] {
    &octets[..memchr::memchr(0, octets).unwrap_or(octets.len())]
}

pub(super) fn latin1(octets: &[u8]) -> String {
    octets.iter().map(|&octet| char::from(octet)).collect()
}

#[cfg(test)]
mod tests {
    use rusmpp::encode::owned::Encode;
    use rusmpp::pdus::{DataSm, DeliverSm, SubmitSmResp};
    use rusmpp::tlvs::MessageDeliveryRequestTlvValue;
    use rusmpp::types::{COctetString, OctetString};
    use rusmpp::values::{EsmClass, MessageState};

    use super::*;

    #[test]
    fn what_the_strict_codec_writes_is_read() {
        let mut deliver = DeliverSm::builder()
            .source_addr(COctetString::from_slice(b"4915112345678\0").expect("digits"))
            .destination_addr(COctetString::from_slice(b"12345\0").expect("digits"))
            .esm_class(EsmClass::from(0x04))
            .short_message(OctetString::from_slice(b"id:1 stat:DELIVRD").expect("it is short"))
            .build();
        deliver.push_tlv(MessageDeliveryRequestTlvValue::ReceiptedMessageId(COctetString::from_slice(b"ab12\0").expect("ascii")));
        deliver.push_tlv(MessageDeliveryRequestTlvValue::MessageState(MessageState::Delivered));
        let mut body = BytesMut::new();
        deliver.encode(&mut body);
        let read = deliver_sm(&body);
        assert_eq!(read.source, "4915112345678");
        assert_eq!(read.text, b"id:1 stat:DELIVRD");
        assert_eq!((read.receipted_message_id.as_deref(), read.message_state), (Some("ab12"), Some(2)));
        assert!(read.is_receipt() && !read.is_intermediate());

        let from_person = DeliverSm::builder().destination_addr(COctetString::from_slice(b"12345\0").expect("digits")).build();
        let mut body = BytesMut::new();
        from_person.encode(&mut body);
        assert_eq!(deliver_sm(&body).destination, "12345");

        let mut data = DataSm::builder().esm_class(EsmClass::from(0x20)).build();
        data.source_addr = COctetString::from_slice(b"4477\0").expect("digits");
        let mut body = BytesMut::new();
        data.encode(&mut body);
        let read = data_sm(&body);
        assert_eq!(read.source, "4477");
        assert!(read.is_intermediate());

        let mut body = BytesMut::new();
        SubmitSmResp::builder().message_id(COctetString::from_slice(b"0001A2\0").expect("ascii")).build().encode(&mut body);
        assert_eq!(&*message_id(&body), "0001A2");
    }

    #[test]
    fn message_ids_are_read_whatever_the_smsc_sends() {
        let long = [b'7'; 100];
        let cases: [(&[u8], &str); 6] =
            [(b"abc\0", "abc"), (b"abc", "abc"), (b"", ""), (b"\0", ""), (b"a\xE9\0", "aé"), (&long, &"7".repeat(64))];
        for (octets, id) in cases {
            assert_eq!(&*message_id(octets), id);
        }
    }

    #[test]
    fn odd_receipts_are_read_as_far_as_they_go() {
        let head = b"\0\x01\x0149151\xE4\0\x05\x00me\0\x04\0\0\0\0\0\0\0\0\x04text";
        type Read = (Option<&'static str>, Option<u8>, Option<(Option<u8>, u16)>);
        let cases: [(&[u8], Read); 6] = [
            (b"\x00\x1E\x00\x03abc", (Some("abc"), None, None)),
            (b"\x00\x1E\x00\x04abc\0\x04\x27\x00\x01\x02", (Some("abc"), Some(2), None)),
            (b"\x04\x23\x00\x02\x00\x0C", (None, None, Some((None, 12)))),
            (b"\x04\x23\x00\x03\x03\x00\x0C", (None, None, Some((Some(3), 12)))),
            (b"\x00\x1E\x00\xFFabc", (Some("abc"), None, None)),
            (b"\x04\x27\x00\x00\x04", (None, None, None)),
        ];
        for (tail, read_as) in cases {
            let read = deliver_sm(&[head, tail].concat());
            assert_eq!(read.source, "49151ä");
            assert_eq!(read.text, b"text");
            assert_eq!((read.receipted_message_id.as_deref(), read.message_state, read.network_error), read_as);
        }
    }

    #[test]
    fn an_address_without_an_end_is_no_longer_than_one_may_be() {
        let body = [&b"\0\x01\x01"[..], &[b'1'; 5_000], &b"\0\x01\x01"[..], &[b'2'; 5_000], b"\0\0"].concat();
        for read in [deliver_sm(&body), data_sm(&body)] {
            assert_eq!((read.source.len(), read.destination.len()), (ADDRESS_CHARS_MAX, ADDRESS_CHARS_MAX));
        }
    }

    #[test]
    fn a_stream_is_cut_into_pdus_at_any_place() {
        let mut stream = Vec::new();
        for sequence in 1..=3u8 {
            stream.extend([0, 0, 0, 18, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, sequence, b'x', 0]);
        }
        let mut input = BytesMut::new();
        let mut seen = Vec::new();
        for octet in stream {
            input.extend_from_slice(&[octet]);
            while let Some(frame) = next_frame(&mut input, 64).expect("its lengths are right") {
                seen.push((frame.command, frame.sequence, frame.body.to_vec()));
            }
        }
        assert_eq!(seen, [1, 2, 3].map(|n| (0x8000_0004, n, b"x\0".to_vec())));
        let mut announced = BytesMut::from(&[0, 0x0F, 0xFF, 0xFF][..]);
        assert_eq!(next_frame(&mut announced, 1 << 20), Ok(None));
        assert!(announced.capacity() < 1_024, "an announced length makes no memory");
        for length in [0u32, 15, 65] {
            let mut input = BytesMut::from(&length.to_be_bytes()[..]);
            assert_eq!(next_frame(&mut input, 64), Err(BadLength(length)));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_octets_stop_the_reader(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            deliver_sm(&octets);
            data_sm(&octets);
            assert!(message_id(&octets).chars().count() <= 64);
        }
    }
}
