//! Splitting a text into the parts it travels in.

use crate::model::account::LongMessage;

/// The alphabet of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// GSM 03.38 default alphabet, septets (SMPP `data_coding` 0).
    Gsm7,
    /// UCS-2, as UTF-16 big endian (SMPP `data_coding` 8).
    Ucs2,
}

/// How a text splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Its alphabet.
    pub encoding: Encoding,
    /// Parts it takes; what a provider bills.
    pub parts: u8,
}

/// One part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 0.
    pub index: u8,
    /// Octets of the text: one septet an octet for GSM 03.38 (SMPP sends it unpacked), UTF-16BE for UCS-2. No header.
    pub octets: Vec<u8>,
}

/// A text ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its alphabet.
    pub encoding: Encoding,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// How a text splits when long ones travel as `long` says. A text of more than 255 parts counts as 255.
pub fn split(_text: &str, _long: LongMessage) -> Split {
    unimplemented!()
}

/// The parts of a text. With [`LongMessage::Payload`] there is one, however long.
pub fn encode(_text: &str, _long: LongMessage) -> Encoded {
    unimplemented!()
}
