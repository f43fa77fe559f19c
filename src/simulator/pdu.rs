//! SMPP 3.4 on octets: only what the simulator reads and writes, lenient, and without a copy on the hot path.

/// `command_id`s (SMPP 3.4, 5.1.2.1).
pub(super) mod command {
    pub const GENERIC_NACK: u32 = 0x8000_0000;
    pub const BIND_RECEIVER: u32 = 0x01;
    pub const BIND_TRANSMITTER: u32 = 0x02;
    pub const SUBMIT_SM: u32 = 0x04;
    pub const DELIVER_SM: u32 = 0x05;
    pub const UNBIND: u32 = 0x06;
    pub const BIND_TRANSCEIVER: u32 = 0x09;
    pub const ENQUIRE_LINK: u32 = 0x15;
    /// Set in every answer.
    pub const RESPONSE: u32 = 0x8000_0000;
}

/// `command_status` values that the simulator gives of itself (SMPP 3.4, 5.1.3).
pub(super) mod status {
    pub const OK: u32 = 0x00;
    pub const INVALID_MESSAGE_LENGTH: u32 = 0x01;
    pub const INVALID_COMMAND_LENGTH: u32 = 0x02;
    pub const INVALID_COMMAND: u32 = 0x03;
    pub const NOT_BOUND: u32 = 0x04;
    pub const ALREADY_BOUND: u32 = 0x05;
    pub const SYSTEM_ERROR: u32 = 0x08;
    pub const INVALID_DESTINATION: u32 = 0x0B;
    pub const BIND_FAILED: u32 = 0x0D;
    pub const INVALID_PASSWORD: u32 = 0x0E;
    pub const INVALID_SYSTEM_ID: u32 = 0x0F;
    pub const QUEUE_FULL: u32 = 0x14;
    pub const INVALID_ESM_CLASS: u32 = 0x43;
    pub const THROTTLED: u32 = 0x58;
}

/// Octets of a header.
pub(super) const HEADER: usize = 16;
/// The longest PDU read; a longer one ends the session.
pub(super) const PDU_MAX: usize = 128 * 1024;

const SAR_REFERENCE: u16 = 0x020C;
const SAR_TOTAL: u16 = 0x020E;
const SAR_SEQUENCE: u16 = 0x020F;
const MESSAGE_PAYLOAD: u16 = 0x0424;

/// A PDU's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub length: usize,
    pub command: u32,
    pub status: u32,
    pub sequence: u32,
}

/// Reads the header at the start of `octets`; `None` when there are too few.
pub(super) fn header(octets: &[u8]) -> Option<Header> {
    let octets = octets.first_chunk::<HEADER>()?;
    let word = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
    Some(Header { length: word(0) as usize, command: word(4), status: word(8), sequence: word(12) })
}

/// What the simulator needs of a `submit_sm` (SMPP 3.4, 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Submit<'a> {
    pub source: &'a [u8],
    pub destination: &'a [u8],
    pub esm_class: u8,
    pub registered_delivery: u8,
    pub data_coding: u8,
    /// `short_message`, or `message_payload` when that is there.
    pub message: &'a [u8],
    pub is_payload: bool,
    /// `sar_msg_ref_num`, `sar_total_segments`, `sar_segment_seqnum`.
    pub sar: Option<(u16, u8, u8)>,
}

/// Reads the body of a `submit_sm`; `None` when it breaks off.
pub(super) fn submit(body: &[u8]) -> Option<Submit<'_>> {
    let mut reader = Reader(body);
    reader.text()?;
    reader.take(2)?;
    let source = reader.text()?;
    reader.take(2)?;
    let destination = reader.text()?;
    let esm_class = reader.take(3)?[0];
    reader.text()?;
    reader.text()?;
    let fixed = reader.take(5)?;
    let mut message = reader.take(usize::from(fixed[4]))?;
    let mut is_payload = false;
    let mut sar = (None, None, None);
    while reader.0.len() >= 4 {
        let head = reader.take(4)?;
        let value = reader.take(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        match (u16::from_be_bytes([head[0], head[1]]), value) {
            (MESSAGE_PAYLOAD, value) => (message, is_payload) = (value, true),
            (SAR_REFERENCE, &[high, low]) => sar.0 = Some(u16::from_be_bytes([high, low])),
            (SAR_TOTAL, &[total]) => sar.1 = Some(total),
            (SAR_SEQUENCE, &[sequence]) => sar.2 = Some(sequence),
            _ => {}
        }
    }
    let sar = match sar {
        (Some(reference), Some(total), Some(sequence)) => Some((reference, total, sequence)),
        _ => None,
    };
    Some(Submit {
        source,
        destination,
        esm_class,
        registered_delivery: fixed[0],
        data_coding: fixed[2],
        message,
        is_payload,
        sar,
    })
}

/// What the simulator needs of a bind (SMPP 3.4, 4.1): `system_id` and `password`.
pub(super) fn bind(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(body);
    Some((reader.text()?, reader.text()?))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    /// A C-octet string, without its NUL.
    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&octet| octet == 0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

/// Writes a PDU: its header, and what `body` appends.
pub(super) fn write(out: &mut Vec<u8>, command: u32, status: u32, sequence: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    let mut head = [0; HEADER];
    head[4..8].copy_from_slice(&command.to_be_bytes());
    head[8..12].copy_from_slice(&status.to_be_bytes());
    head[12..16].copy_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&head);
    body(out);
    let length = (out.len() - from) as u32;
    out[from..from + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes the answer to a bind: our `system_id`, and `sc_interface_version` 3.4 when it is a yes (SMPP 3.4, 4.1.2).
pub(super) fn write_bind_answer(out: &mut Vec<u8>, command: u32, status: u32, sequence: u32) {
    write(out, command | command::RESPONSE, status, sequence, |out| {
        if status == status::OK {
            out.extend_from_slice(b"smsfleet-sim\0\x02\x10\x00\x01\x34");
        }
    });
}

/// What a `deliver_sm` of the simulator holds (SMPP 3.4, 4.6.1).
pub(super) struct Deliver<'a> {
    pub sequence: u32,
    pub source: u64,
    pub destination: &'a [u8],
    /// 0x00 for a person's text, 0x04 for a receipt, 0x20 for an intermediate one.
    pub esm_class: u8,
    /// The alphabet of the message.
    pub data_coding: u8,
    pub message: &'a [u8],
    /// Optional parameters, as octets.
    pub parameters: &'a [u8],
}

/// Writes a `deliver_sm`.
pub(super) fn write_deliver(out: &mut Vec<u8>, deliver: &Deliver<'_>) {
    write(out, command::DELIVER_SM, status::OK, deliver.sequence, |out| {
        out.extend_from_slice(&[0, 1, 1]);
        super::ids::decimal(deliver.source, 0, out);
        out.extend_from_slice(&[0, 0, 1]);
        out.extend_from_slice(deliver.destination);
        out.extend_from_slice(&[0, deliver.esm_class, 0, 0, 0, 0, 0, 0, deliver.data_coding, 0, deliver.message.len() as u8]);
        out.extend_from_slice(deliver.message);
        out.extend_from_slice(deliver.parameters);
    });
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of a `submit_sm`, for tests of other files too.
    pub fn submit_body(destination: &str, esm_class: u8, data_coding: u8, message: &[u8], parameters: &[u8]) -> Vec<u8> {
        let mut body = b"\0\x05\0Shop\0\x01\x01".to_vec();
        body.extend_from_slice(destination.as_bytes());
        body.extend_from_slice(&[0, esm_class, 0, 0, 0, 0, 1, 0, data_coding, 0, message.len() as u8]);
        body.extend_from_slice(message);
        body.extend_from_slice(parameters);
        body
    }

    #[test]
    fn a_submit_is_read() {
        let body = submit_body("8613800138000", 0x40, 8, b"hi", &[2, 0x0C, 0, 2, 1, 2, 2, 0x0E, 0, 1, 3, 2, 0x0F, 0, 1, 2]);
        let read = submit(&body).expect("it is whole");
        assert_eq!((read.source, read.destination), (&b"Shop"[..], &b"8613800138000"[..]));
        assert_eq!((read.esm_class, read.registered_delivery, read.data_coding), (0x40, 1, 8));
        assert_eq!((read.message, read.is_payload, read.sar), (&b"hi"[..], false, Some((0x0102, 3, 2))));
        let payload = submit_body("1", 0, 0, b"", &[4, 0x24, 0, 4, b'l', b'o', b'n', b'g']);
        let read = submit(&payload).expect("it is whole");
        assert_eq!((read.message, read.is_payload), (&b"long"[..], true));
        for end in 0..body.len() - 16 {
            assert_eq!(submit(&body[..end]), None, "broken off at {end}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (header(&octets), submit(&octets), bind(&octets));
        }
    }
}
