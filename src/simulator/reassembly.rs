//! Parts put together again to the messages that handsets show.

use std::collections::HashMap;

use super::decode::decode;
use super::ledger::FastHash;
use super::pdu::{Submit, status};

/// How long messages are told apart, and what a part says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Reference, number of parts and this one's place from 1; `None` for a message of one part.
    pub concatenation: Option<(u32, u8, u8)>,
    /// Its text, header removed.
    pub octets: &'a [u8],
    /// Octets of the header that it has, or that the centre would put before it.
    header: usize,
}

const UDH_INDICATOR: u8 = 0x40;
/// Told apart from header references, which the same sender may use at the same time.
const SAR: u32 = 1 << 24;
const SIXTEEN_BITS: u32 = 1 << 25;

/// Reads how `submit` is concatenated (3GPP TS 23.040, 9.2.3.24; SMPP 3.4, 5.3.2.22). The error is the status to answer.
pub(super) fn part<'a>(submit: &Submit<'a>) -> Result<Part<'a>, u32> {
    let (concatenation, octets, header) = if submit.esm_class & UDH_INDICATOR != 0 {
        let (elements, text) = user_data(submit.message).ok_or(status::INVALID_ESM_CLASS)?;
        (in_header(elements).ok_or(status::INVALID_ESM_CLASS)?, text, elements.len() + 1)
    } else if let Some((reference, total, sequence)) = submit.sar.filter(|sar| sar.1 > 1) {
        (Some((SAR | u32::from(reference), total, sequence)), submit.message, 6)
    } else {
        (None, submit.message, 0)
    };
    match concatenation {
        Some((_, total, sequence)) if sequence == 0 || sequence > total => Err(status::INVALID_ESM_CLASS),
        _ => Ok(Part { concatenation, octets, header }),
    }
}

/// Whether the part fits into the 140 octets of a short message (GSM 03.40): septets are packed by the centre.
pub(super) fn fits(part: &Part<'_>, data_coding: u8) -> bool {
    let free = 140usize.saturating_sub(part.header);
    part.octets.len() <= if data_coding <= 1 { free * 8 / 7 } else { free }
}

fn user_data(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = message.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// The concatenation element among others; `Some(None)` when there is none.
#[allow(clippy::option_option)]
fn in_header(mut elements: &[u8]) -> Option<Option<(u32, u8, u8)>> {
    let mut found = None;
    while let Some((head, rest)) = elements.split_at_checked(2) {
        let (value, rest) = rest.split_at_checked(usize::from(head[1]))?;
        match (head[0], value) {
            (0x00, &[reference, total, sequence]) => found = Some((u32::from(reference), total, sequence)),
            (0x08, &[high, low, total, sequence]) => {
                found = Some((SIXTEEN_BITS | u32::from(u16::from_be_bytes([high, low])), total, sequence));
            }
            _ => {}
        }
        elements = rest;
    }
    elements.is_empty().then_some(found)
}

/// A message whose parts are all there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// Its text; empty when texts are not looked at.
    pub text: String,
    /// Parts it came in.
    pub parts: u8,
    /// Id of its first part.
    pub first_id: u64,
    /// Whether something in it cannot be shown.
    pub is_malformed: bool,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Others are missing.
    Waiting,
    /// It was there already: the same part was accepted twice.
    Repeated,
    /// It was the last.
    Whole(Whole),
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    number: u64,
    sender: u32,
    reference: u32,
    total: u8,
}

struct Gathered {
    texts: Vec<Option<Box<str>>>,
    missing: u8,
    first_id: u64,
    is_malformed: bool,
}

/// Parts that wait for their others.
#[derive(Default)]
pub(super) struct Reassembly {
    waiting: HashMap<Key, Gathered, FastHash>,
}

impl Reassembly {
    /// Adds an accepted part of a message in several parts. `with_text` says whether texts are looked at.
    pub fn add(&mut self, number: u64, sender: u32, id: u64, part: &Part<'_>, data_coding: u8, with_text: bool) -> Joined {
        let Some((reference, total, sequence)) = part.concatenation else { return Joined::Waiting };
        let key = Key { number, sender, reference, total };
        let gathered = self.waiting.entry(key).or_insert_with(|| Gathered {
            texts: vec![None; usize::from(total)],
            missing: total,
            first_id: id,
            is_malformed: false,
        });
        let place = &mut gathered.texts[usize::from(sequence - 1)];
        if place.is_some() {
            return Joined::Repeated;
        }
        let shown = decode(data_coding, if with_text { part.octets } else { &[] });
        *place = Some(shown.text.into());
        gathered.is_malformed |= shown.is_malformed;
        gathered.missing -= 1;
        if sequence == 1 {
            gathered.first_id = id;
        }
        if gathered.missing > 0 {
            return Joined::Waiting;
        }
        let Some(gathered) = self.waiting.remove(&Key { number, sender, reference, total }) else { return Joined::Waiting };
        let text = gathered.texts.into_iter().flatten().map(String::from).collect();
        Joined::Whole(Whole { text, parts: total, first_id: gathered.first_id, is_malformed: gathered.is_malformed })
    }

    /// Messages that lack a part.
    pub fn incomplete(&self) -> u64 {
        self.waiting.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn submit(esm_class: u8, message: &[u8], sar: Option<(u16, u8, u8)>) -> Submit<'_> {
        Submit {
            source: b"1",
            destination: b"2",
            esm_class,
            registered_delivery: 1,
            data_coding: 8,
            message,
            is_payload: false,
            sar,
        }
    }

    #[test]
    fn all_ways_of_concatenation_are_read() {
        let eight = [5, 0, 3, 9, 2, 1, 0x4F, 0x60];
        let sixteen = [6, 8, 4, 1, 9, 2, 2, 0x4F, 0x60];
        let port_first = [11, 5, 4, 0, 1, 0, 2, 0, 3, 9, 2, 1, 0x4F, 0x60];
        let other_only = [3, 0x24, 1, 1, 0x4F, 0x60];
        let cases = [
            (submit(0x40, &eight, None), Ok((Some((9, 2, 1)), 6))),
            (submit(0x40, &sixteen, None), Ok((Some((SIXTEEN_BITS | 0x109, 2, 2)), 7))),
            (submit(0x40, &port_first, None), Ok((Some((9, 2, 1)), 12))),
            (submit(0x40, &other_only, None), Ok((None, 4))),
            (submit(0, b"hi", Some((9, 2, 2))), Ok((Some((SAR | 9, 2, 2)), 6))),
            (submit(0, b"hi", Some((9, 1, 1))), Ok((None, 0))),
            (submit(0x40, &[9, 0], None), Err(status::INVALID_ESM_CLASS)),
            (submit(0x40, &[5, 0, 3, 9, 2, 3], None), Err(status::INVALID_ESM_CLASS)),
            (submit(0x40, &[5, 0, 3, 9, 2, 0], None), Err(status::INVALID_ESM_CLASS)),
            (submit(0x40, &[2, 0, 3], None), Err(status::INVALID_ESM_CLASS)),
            (submit(0x40, &[], None), Err(status::INVALID_ESM_CLASS)),
        ];
        for (submit, expected) in cases {
            assert_eq!(part(&submit).map(|part| (part.concatenation, part.header)), expected, "{:02x?}", submit.message);
        }
    }

    #[test]
    fn parts_may_come_in_any_order_and_a_cut_emoji_is_noticed() {
        let mut reassembly = Reassembly::default();
        let second = [5, 0, 3, 9, 2, 2, 0xDE, 0x00];
        let first = [5, 0, 3, 9, 2, 1, 0x4F, 0x60, 0xD8, 0x3D];
        let mut add = |message: &[u8], id| {
            let part = part(&submit(0x40, message, None)).expect("a good header");
            reassembly.add(2, 0, id, &part, 8, true)
        };
        assert_eq!(add(&second, 7), Joined::Waiting);
        assert_eq!(add(&second, 8), Joined::Repeated);
        let Joined::Whole(whole) = add(&first, 9) else { panic!("both parts are there") };
        assert_eq!((whole.parts, whole.first_id, whole.is_malformed), (2, 9, true));
        assert_eq!(whole.text, "你\u{fffd}\u{fffd}");
        assert_eq!(reassembly.incomplete(), 0);
    }

    #[test]
    fn sizes_are_those_of_the_air() {
        let header = [5, 0, 3, 9, 2, 1];
        let cases = [
            (0, 160, 0, true),
            (0, 161, 0, false),
            (0x40, 153, 0, true),
            (0x40, 154, 0, false),
            (0x40, 134, 8, true),
            (0x40, 136, 8, false),
        ];
        for (esm_class, length, coding, expected) in cases {
            let mut message = if esm_class == 0 { Vec::new() } else { header.to_vec() };
            message.extend(std::iter::repeat_n(b'a', length));
            let part = part(&submit(esm_class, &message, None)).expect("a good header");
            assert_eq!(fits(&part, coding), expected, "{length} octets, coding {coding}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(message in proptest::collection::vec(any::<u8>(), 0..160), coding: u8, sar: Option<(u16, u8, u8)>, esm: u8) {
            let mut reassembly = Reassembly::default();
            if let Ok(part) = part(&submit(esm, &message, sar)) {
                fits(&part, coding);
                reassembly.add(1, 0, 1, &part, coding, true);
            }
        }
    }
}
