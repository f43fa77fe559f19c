//! Messages of people over SMPP: decoded, and put together when they came in parts.
//!
//! Parts wait for each other for [`PATIENCE`], on the session that brought them, unacknowledged; so an SMSC that waits for each
//! acknowledgement before it sends the next part, or sends parts over several sessions, gives rows of single parts. A part that
//! stays alone is kept as it is: nothing is dropped, and no opt-out word needs two parts.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::incoming::Key;
use super::lenient::{Delivered, latin1};
use crate::model::inbound::Inbound;
use crate::model::limits::{INBOUND_CHARS_MAX, MESSAGE_ID_MAX, PARTS_MAX};
use crate::model::text::{beginning, gsm};
use crate::model::time::Timestamp;

/// How long a part waits for the others: shorter than an SMSC waits for an acknowledgement.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Messages with missing parts on one session at most; one more, and the oldest is kept as it is.
const WAITING_MAX: usize = 128;
/// Octets of all of them at most, more than so many messages of ordinary parts have: a PDU may be a thousand times larger than a
/// part ever is, and a part may be sent again and again.
const WAITING_OCTETS_MAX: usize = 2 << 20;
/// What a PDU that waits costs beside its octets.
const WAITING_PDU: usize = 128;
/// The bit of `esm_class` that says that the text begins with a header (SMPP 3.4, 5.2.12).
const UDH_INDICATOR: u8 = 0x40;

/// A message that is complete, or will not be, and the PDUs that brought it.
pub type Whole = (Vec<Key>, Inbound);

/// Messages with missing parts.
#[derive(Default)]
pub struct Parts {
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    /// What all of them cost.
    octets: usize,
}

struct Waiting {
    source: String,
    destination: String,
    reference: u16,
    total: u8,
    since: Instant,
    octets: usize,
    parts: Vec<(u8, Vec<Key>, Part)>,
}

/// One part, header removed.
struct Part {
    octets: Vec<u8>,
    data_coding: u8,
    id: String,
    received: Timestamp,
}

impl Parts {
    /// Takes a message or a part of one; gives what is to be passed on now.
    pub fn take(&mut self, key: Key, delivered: Delivered, received: Timestamp, now: Instant) -> Vec<Whole> {
        let (place, octets) = split_header(&delivered);
        let id: String = delivered.receipted_message_id.iter().flat_map(|id| id.chars()).take(MESSAGE_ID_MAX).collect();
        let part = Part { octets, data_coding: delivered.data_coding, id, received };
        let Delivered { source, destination, .. } = delivered;
        let Some((reference, total, number)) = place else {
            return vec![whole(&source, &destination, vec![(1, vec![key], part)])];
        };
        let mine = |waiting: &Waiting| {
            (waiting.reference, waiting.total) == (reference, total)
                && waiting.source == source
                && waiting.destination == destination
        };
        let at = match self.waiting.iter().position(mine) {
            Some(at) => at,
            None => {
                let waiting = Waiting { source, destination, reference, total, since: now, octets: 0, parts: vec![] };
                self.waiting.push_back(waiting);
                self.waiting.len() - 1
            }
        };
        let waiting = &mut self.waiting[at];
        let mut octets = WAITING_PDU;
        match waiting.parts.iter_mut().find(|(known, ..)| *known == number) {
            // It came again because it was not acknowledged: both are acknowledged together.
            Some((_, keys, _)) => keys.push(key),
            None => {
                octets += part.octets.len();
                waiting.parts.push((number, vec![key], part));
            }
        }
        waiting.octets += octets;
        self.octets += octets;
        if waiting.parts.len() == usize::from(total) {
            return self.remove(at).map(Waiting::together).into_iter().collect();
        }
        let mut too_many = vec![];
        while self.waiting.len() > WAITING_MAX || self.octets > WAITING_OCTETS_MAX {
            too_many.extend(self.remove(0).map(Waiting::alone).unwrap_or_default());
        }
        too_many
    }

    /// Parts that waited long enough, each as a message of its own.
    pub fn expired(&mut self, now: Instant) -> Vec<Whole> {
        let mut expired = Vec::new();
        while self.waiting.front().is_some_and(|waiting| now >= waiting.since + PATIENCE) {
            expired.extend(self.remove(0).map(Waiting::alone).unwrap_or_default());
        }
        expired
    }

    fn remove(&mut self, at: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(at)?;
        self.octets -= waiting.octets;
        Some(waiting)
    }
}

impl Waiting {
    fn together(mut self) -> Whole {
        self.parts.sort_by_key(|(number, ..)| *number);
        whole(&self.source, &self.destination, self.parts)
    }

    fn alone(mut self) -> Vec<Whole> {
        self.parts.sort_by_key(|(number, ..)| *number);
        self.parts.into_iter().map(|part| whole(&self.source, &self.destination, vec![part])).collect()
    }
}

fn whole(source: &str, destination: &str, parts: Vec<(u8, Vec<Key>, Part)>) -> Whole {
    let keys = parts.iter().flat_map(|(_, keys, _)| keys.iter().copied()).collect();
    let received = parts.iter().map(|(.., part)| part.received).max().unwrap_or_default();
    let id = parts.first().map(|(.., part)| part.id.clone()).unwrap_or_default();
    let data_coding = parts.first().map_or(0, |(.., part)| part.data_coding);
    // Decoded as one: a pair of UTF-16 units, or an escape and its character, may stand in two parts.
    let octets: Vec<u8> = parts.into_iter().flat_map(|(.., part)| part.octets).collect();
    let text = beginning(&decode(data_coding, &octets), INBOUND_CHARS_MAX).to_owned();
    (keys, Inbound { from: source.to_owned(), to: destination.to_owned(), text, id, received })
}

/// Where a part belongs (reference, total, number), and what it says.
fn split_header(delivered: &Delivered) -> (Option<(u16, u8, u8)>, Vec<u8>) {
    let (mut place, mut octets) = (delivered.sar, &delivered.text[..]);
    if delivered.esm_class & UDH_INDICATOR != 0
        && let Some((&length, rest)) = octets.split_first()
        && let Some((mut header, text)) = rest.split_at_checked(usize::from(length))
    {
        octets = text;
        // Elements of the header: their identifier, their length, their value (3GPP TS 23.040, 9.2.3.24).
        while let [identifier, length, more @ ..] = header
            && let Some((value, behind)) = more.split_at_checked(usize::from(*length))
        {
            match (identifier, value) {
                (0x00, [reference, total, number]) => place = Some((u16::from(*reference), *total, *number)),
                (0x08, [high, low, total, number]) => place = Some((u16::from_be_bytes([*high, *low]), *total, *number)),
                _ => {}
            }
            header = behind;
        }
    }
    let makes_sense =
        |(_, total, number): &(u16, u8, u8)| (2..=2 * PARTS_MAX as u8).contains(total) && (1..=*total).contains(number);
    (place.filter(makes_sense), octets.to_vec())
}

/// The text of a `data_coding` (SMPP 3.4, 5.2.19; the groups above 15 are those of 3GPP TS 23.038, 4).
fn decode(data_coding: u8, octets: &[u8]) -> String {
    let text = match data_coding {
        0 => default_alphabet(octets),
        8 => ucs2(octets),
        1..=15 => latin1(octets),
        0x10..=0x3F if data_coding & 0x0C == 0x08 => ucs2(octets),
        0x10..=0x3F if data_coding & 0x0C == 0 => default_alphabet(octets),
        0xE0..=0xEF => ucs2(octets),
        0xF0..=0xFF if data_coding & 0x04 == 0 => default_alphabet(octets),
        _ => latin1(octets),
    };
    text.trim_end_matches('\0').to_owned()
}

/// GSM 03.38, a septet an octet. Gateways that send something else under the same number are told by octets above 127.
fn default_alphabet(octets: &[u8]) -> String {
    if !octets.iter().all(|octet| octet.is_ascii()) {
        return String::from_utf8(octets.to_vec()).unwrap_or_else(|_| latin1(octets));
    }
    let mut text = String::with_capacity(octets.len());
    let mut septets = octets.iter();
    while let Some(&septet) = septets.next() {
        let shown = match septet {
            gsm::ESCAPE => {
                let behind = septets.next();
                gsm::EXTENSION.iter().find(|(known, _)| Some(known) == behind).map(|(_, character)| *character)
            }
            _ => gsm::BASIC.get(usize::from(septet)).copied(),
        };
        text.push(shown.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    text
}

fn ucs2(octets: &[u8]) -> String {
    let units: Vec<u16> = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(esm_class: u8, data_coding: u8, text: &[u8]) -> Delivered {
        let (source, destination) = ("8613800138000".into(), "10690001007".into());
        Delivered { source, destination, esm_class, data_coding, text: text.to_vec(), ..Delivered::default() }
    }

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn texts_are_read_in_every_alphabet() {
        let cases: [(u8, &[u8], &str); 9] = [
            (0, b"STOP", "STOP"),
            (0, &[0x00, 0x1B, 0x65, 0x11], "@€_"),
            (0, "退订".as_bytes(), "退订"),
            (0, &[b'c', 0xE9], "cé"),
            (1, b"TD\0", "TD"),
            (3, &[0xE9], "é"),
            (8, &wide("退订😀"), "退订😀"),
            (0x19, &wide("R"), "R"),
            (0xF1, b"R", "R"),
        ];
        for (data_coding, octets, text) in cases {
            let now = Instant::now();
            let whole = Parts::default().take((5, 1), delivered(0, data_coding, octets), Timestamp(7), now);
            assert_eq!(whole.len(), 1);
            let (keys, inbound) = &whole[0];
            assert_eq!((keys.as_slice(), inbound.text.as_str(), inbound.received), (&[(5, 1)][..], text, Timestamp(7)));
            assert_eq!((inbound.from.as_str(), inbound.to.as_str()), ("8613800138000", "10690001007"));
        }
    }

    #[test]
    fn a_text_is_no_longer_than_any_message() {
        let payload = delivered(0, 0, &[b'x'; 60_000]);
        let whole = Parts::default().take((5, 1), payload, Timestamp(7), Instant::now());
        assert_eq!(whole[0].1.text.len(), INBOUND_CHARS_MAX);
    }

    #[test]
    fn parts_in_any_order_and_form_become_one() {
        let text = wide("一二😀三");
        // The pair of the emoji is cut in two.
        let (first, second) = text.split_at(6);
        let header8 = |number: u8, octets: &[u8]| [&[5, 0, 3, 0x42, 2, number][..], octets].concat();
        let header16 = |number: u8, octets: &[u8]| [&[10, 5, 2, 0, 0, 8, 4, 1, 0x42, 2, number][..], octets].concat();
        let sar = |number: u8, octets: &[u8]| Delivered { sar: Some((9, 2, number)), ..delivered(0, 8, octets) };
        let cases = [
            [delivered(0x40, 8, &header8(2, second)), delivered(0x40, 8, &header8(1, first))],
            [delivered(0x40, 8, &header16(1, first)), delivered(0x40, 8, &header16(2, second))],
            [sar(2, second), sar(1, first)],
        ];
        for [one, two] in cases {
            let (mut parts, now) = (Parts::default(), Instant::now());
            assert!(parts.take((5, 1), one.clone(), Timestamp(1), now).is_empty());
            assert!(parts.take((5, 3), one, Timestamp(1), now).is_empty(), "a part that comes again is no other part");
            let whole = parts.take((5, 2), two, Timestamp(2), now);
            assert_eq!(whole.len(), 1);
            assert_eq!((whole[0].0.len(), whole[0].1.text.as_str()), (3, "一二😀三"));
            assert!(parts.expired(now + PATIENCE).is_empty(), "nothing is left");
        }
    }

    #[test]
    fn a_part_that_stays_alone_is_kept_as_it_is() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        let part = |reference: u8| delivered(0x40, 0, &[&[5, 0, 3, reference, 2, 1][..], b"half"].concat());
        assert!(parts.take((5, 1), part(1), Timestamp(1), now).is_empty());
        assert!(parts.expired(now + PATIENCE / 2).is_empty());
        let alone = parts.expired(now + PATIENCE);
        assert_eq!((alone.len(), alone[0].1.text.as_str()), (1, "half"));
        for reference in 0..WAITING_MAX as u8 {
            assert!(parts.take((5, 2), part(reference), Timestamp(1), now).is_empty());
        }
        assert_eq!(parts.take((5, 3), part(200), Timestamp(1), now).len(), 1, "memory is bounded: the oldest goes");
        let odd = delivered(0x40, 0, &[&[5, 0, 3, 1, 0, 9][..], b"odd"].concat());
        assert_eq!(parts.take((5, 4), odd, Timestamp(1), now)[0].1.text, "odd", "a part of nothing is whole");
    }

    #[test]
    fn parts_that_are_too_large_or_come_too_often_do_not_fill_the_memory() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        let part = |reference: u8, text: &[u8]| delivered(0x40, 0, &[&[5, 0, 3, reference, 2, 1][..], text].concat());
        let mut given = 0;
        for turn in 0..60_000u32 {
            // A large part of each message, then one of them again and again.
            let delivered = if turn < 100 { part(turn as u8, &[b'x'; 60_000]) } else { part(99, b"again") };
            given += parts.take((5, turn), delivered, Timestamp(1), now).iter().map(|(keys, _)| keys.len()).sum::<usize>();
            let waiting: usize =
                parts.waiting.iter().flat_map(|waiting| &waiting.parts).map(|(.., part)| part.octets.len()).sum();
            let keys: usize = parts.waiting.iter().flat_map(|waiting| &waiting.parts).map(|(_, keys, _)| keys.len()).sum();
            assert!(waiting + keys * size_of::<Key>() <= WAITING_OCTETS_MAX && parts.octets <= WAITING_OCTETS_MAX);
        }
        given += parts.expired(now + PATIENCE).iter().map(|(keys, _)| keys.len()).sum::<usize>();
        assert_eq!((given, parts.octets), (60_000, 0), "each PDU is given back once");
    }

    proptest::proptest! {
        #[test]
        fn no_octets_stop_the_reader(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..60), esm: u8, coding: u8) {
            let mut parts = Parts::default();
            let _ = parts.take((5, 1), delivered(esm, coding, &octets), Timestamp(1), Instant::now());
        }
    }
}
