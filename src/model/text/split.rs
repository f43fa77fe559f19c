//! Splitting a text into the parts it travels in.
//!
//! [`split`] runs once for every recipient, [`encode`] once for every submit; both cut at the same places, which
//! `for_each_cut` alone decides.

use super::gsm::{self, ASCII_SEPTETS, ESCAPE, Septets};
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
pub fn split(text: &str, long: LongMessage) -> Split {
    let (encoding, units) = measure(text);
    let per_part = per_part(encoding, long);
    let mut parts = 1u8;
    if units > single(encoding) {
        if fills_every_part(text, encoding, units) {
            parts = u8::try_from(units.div_ceil(per_part)).unwrap_or(u8::MAX);
        } else {
            for_each_cut(text, encoding, per_part, |_| parts = parts.saturating_add(1));
        }
    }
    Split { encoding, parts }
}

/// The parts of a text. With [`LongMessage::Payload`] there is one, however long. Preparation rejects texts of more than
/// [`crate::model::limits::PARTS_MAX`] parts; beyond 255 parts, which no header can count, the index stays 255.
pub fn encode(text: &str, long: LongMessage) -> Encoded {
    let (encoding, units) = measure(text);
    let mut parts = Vec::new();
    let mut from = 0;
    let mut push = |piece: &str| {
        let index = u8::try_from(parts.len()).unwrap_or(u8::MAX);
        parts.push(Part { index, octets: octets(piece, encoding) });
    };
    if units > single(encoding) && long != LongMessage::Payload {
        for_each_cut(text, encoding, per_part(encoding, long), |at| {
            push(&text[from..at]);
            from = at;
        });
    }
    push(&text[from..]);
    Encoded { encoding, parts }
}

/// Units that fit a message of one part: 140 octets of user data (3GPP TS 23.040, 9.2.3.24).
fn single(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Gsm7 => 160,
        Encoding::Ucs2 => 70,
    }
}

/// Units that fit each part of a longer one: a header of 6 octets (7 with a 16-bit reference) takes its share of the 140.
fn per_part(encoding: Encoding, long: LongMessage) -> usize {
    match (encoding, long) {
        (Encoding::Gsm7, LongMessage::Udh16) => 152,
        (Encoding::Ucs2, LongMessage::Udh16) => 66,
        (Encoding::Gsm7, LongMessage::Udh8 | LongMessage::Sar | LongMessage::Payload) => 153,
        (Encoding::Ucs2, LongMessage::Udh8 | LongMessage::Sar | LongMessage::Payload) => 67,
    }
}

/// The alphabet of a text, and its units: septets or UTF-16 units. One character outside the GSM alphabet moves the whole
/// text to UCS-2.
fn measure(text: &str) -> (Encoding, usize) {
    let mut septets = 0;
    for (at, &byte) in text.as_bytes().iter().enumerate() {
        match ASCII_SEPTETS[usize::from(byte)] {
            // Everything before `at` is ASCII, so `at` is a character boundary.
            0 => return measure_beyond_ascii(text, at, septets),
            count => septets += usize::from(count),
        }
    }
    (Encoding::Gsm7, septets)
}

fn measure_beyond_ascii(text: &str, at: usize, mut septets: usize) -> (Encoding, usize) {
    for character in text[at..].chars() {
        match gsm::septets(character) {
            Some(found) => septets += found.count(),
            None => return (Encoding::Ucs2, utf16_units(text)),
        }
    }
    (Encoding::Gsm7, septets)
}

/// UTF-16 units of a text: one for each character, and one more for each that takes four bytes in UTF-8, for it is a surrogate
/// pair.
fn utf16_units(text: &str) -> usize {
    text.chars().count() + text.bytes().filter(|&byte| byte >= 0xF0).count()
}

/// Whether division counts the parts of a text: every character is one unit and none joins another. Says no when in doubt; it
/// only saves long texts the slower count.
fn fills_every_part(text: &str, encoding: Encoding, units: usize) -> bool {
    match encoding {
        Encoding::Gsm7 => text.is_ascii() && units == text.len(),
        // Bytes that begin surrogate pairs and joining characters, see `joins`: CC and CD U+0300 to U+037F, E2 U+2000 to U+2FFF,
        // EF B8 U+FE00 to U+FE3F.
        Encoding::Ucs2 => {
            let bytes = text.as_bytes();
            // Without early ends, which would keep the compiler from looking at many bytes at once.
            let begins = bytes.iter().fold(false, |found, &byte| found | (byte >= 0xF0) | matches!(byte, 0xCC | 0xCD | 0xE2));
            let pairs = bytes.iter().zip(bytes.get(1..).unwrap_or_default());
            !(begins | pairs.fold(false, |found, (&one, &two)| found | ((one == 0xEF) & (two == 0xB8))))
        }
    }
}

/// The longest sequence of joined characters that is kept in one part, in UTF-16 units: above every emoji there is (a
/// family takes 11, a flag of tags 14), and below half of a part.
const JOINED_UNITS_MAX: usize = 32;

/// Calls `cut` with the byte before which each part but the first begins. Parts are filled in order; a character is never
/// cut, so neither an escape pair nor a surrogate pair straddles two parts, and joined characters stay together as well.
fn for_each_cut(text: &str, encoding: Encoding, per_part: usize, mut cut: impl FnMut(usize)) {
    let (mut part_from, mut part_units) = (0, 0);
    let (mut joined_from, mut joined_units) = (0, 0);
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        let units = match encoding {
            Encoding::Gsm7 => gsm::septets(character).map_or(1, Septets::count),
            Encoding::Ucs2 => character.len_utf16(),
        };
        if !joins(before, character) || joined_units + units > JOINED_UNITS_MAX {
            (joined_from, joined_units) = (at, 0);
        }
        joined_units += units;
        part_units += units;
        if part_units > per_part {
            debug_assert!(joined_from > part_from, "a joined sequence is shorter than a part");
            cut(joined_from);
            (part_from, part_units) = (joined_from, joined_units);
        }
        before = character;
    }
}

/// Whether a character belongs to the one before it: variation selectors, zero width joiners and what they join, combining
/// marks and keycaps, skin tones. Handsets put parts together before they show them, but not all of them do. This is less
/// than Unicode's grapheme clusters, whose tables are not worth their size here.
fn joins(before: char, character: char) -> bool {
    before == '\u{200D}'
        || (character >= '\u{300}'
            && matches!(character,
                '\u{300}'..='\u{36F}'
                | '\u{200D}'
                | '\u{20D0}'..='\u{20FF}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{1F3FB}'..='\u{1F3FF}'))
}

fn octets(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Gsm7 => {
            let mut octets = Vec::with_capacity(text.len());
            for character in text.chars() {
                match gsm::septets(character).expect("the text was measured as GSM 03.38") {
                    Septets::One(septet) => octets.push(septet),
                    Septets::Escaped(septet) => octets.extend([ESCAPE, septet]),
                }
            }
            octets
        }
        Encoding::Ucs2 => {
            let mut octets = Vec::with_capacity(2 * text.len());
            octets.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
            octets
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encoding::{Gsm7, Ucs2};
    use LongMessage::{Payload, Sar, Udh8, Udh16};

    /// Reads a part as a handset that knows nothing of the other parts; panics at half a pair.
    fn decode(encoding: Encoding, octets: &[u8]) -> String {
        match encoding {
            Gsm7 => {
                let mut septets = octets.iter();
                let mut text = String::new();
                while let Some(&septet) = septets.next() {
                    text.push(match septet {
                        ESCAPE => {
                            let behind = septets.next().expect("something follows the escape");
                            gsm::EXTENSION.iter().find(|(code, _)| code == behind).expect("an extension").1
                        }
                        basic => gsm::BASIC[usize::from(basic)],
                    });
                }
                text
            }
            Ucs2 => {
                let units: Vec<u16> = octets.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                String::from_utf16(&units).expect("whole surrogate pairs")
            }
        }
    }

    fn check(text: &str, long: LongMessage, encoding: Encoding, units: &[usize]) {
        let found = split(text, long);
        assert_eq!((found.encoding, usize::from(found.parts)), (encoding, units.len()), "{text:?} {long:?}");
        let encoded = encode(text, long);
        let octets = if encoding == Gsm7 { 1 } else { 2 };
        if long != Payload {
            let lengths: Vec<usize> = encoded.parts.iter().map(|part| part.octets.len() / octets).collect();
            assert_eq!(lengths, units, "{text:?} {long:?}");
        }
        let whole: String = encoded.parts.iter().map(|part| decode(encoding, &part.octets)).collect();
        assert_eq!(whole, text);
        assert!(encoded.parts.iter().enumerate().all(|(n, part)| usize::from(part.index) == n));
    }

    #[test]
    fn texts_split_where_the_network_splits_them() {
        let a = |n| "a".repeat(n);
        let z = |n| "中".repeat(n);
        for (text, long, encoding, units) in [
            (String::new(), Udh8, Gsm7, vec![0]),
            (a(160), Udh8, Gsm7, vec![160]),
            (a(161), Udh8, Gsm7, vec![153, 8]),
            (a(161), Udh16, Gsm7, vec![152, 9]),
            (a(161), Sar, Gsm7, vec![153, 8]),
            (a(306), Udh8, Gsm7, vec![153, 153]),
            (a(307), Udh8, Gsm7, vec![153, 153, 1]),
            (a(305), Udh16, Gsm7, vec![152, 152, 1]),
            (a(161), Payload, Gsm7, vec![153, 8]),
            (a(158) + "€", Udh8, Gsm7, vec![160]),
            (a(159) + "€", Udh8, Gsm7, vec![153, 8]),
            // The escape would be the last of the first part: the pair moves on, and division by 153 would be wrong.
            (a(152) + "{" + &a(152), Udh8, Gsm7, vec![152, 153, 1]),
            ("é".to_string() + &a(151) + "{" + &a(152), Udh8, Gsm7, vec![152, 153, 1]),
            ("€".repeat(80), Udh8, Gsm7, vec![160]),
            ("€".repeat(153), Udh8, Gsm7, vec![152, 152, 2]),
            ("€".repeat(152), Udh16, Gsm7, vec![152, 152]),
            (z(70), Udh8, Ucs2, vec![70]),
            (z(71), Udh8, Ucs2, vec![67, 4]),
            (z(71), Udh16, Ucs2, vec![66, 5]),
            (z(134), Sar, Ucs2, vec![67, 67]),
            (z(135), Payload, Ucs2, vec![67, 67, 1]),
            ("😀".repeat(35), Udh8, Ucs2, vec![70]),
            // The pair would straddle units 67 and 68.
            (z(66) + "😀" + &z(66), Udh8, Ucs2, vec![66, 67, 1]),
            ("😀".repeat(67), Udh8, Ucs2, vec![66, 66, 2]),
            ("😀".repeat(66), Udh16, Ucs2, vec![66, 66]),
            // One character outside the alphabet moves everything.
            (a(70) + "`", Udh8, Ucs2, vec![67, 4]),
            ("é".repeat(160), Udh8, Gsm7, vec![160]),
            ("ê".repeat(70), Udh8, Ucs2, vec![70]),
            ("{".repeat(35) + "，", Udh8, Ucs2, vec![36]),
        ] {
            check(&text, long, encoding, &units);
        }
    }

    #[test]
    fn joined_characters_stay_together_unless_there_is_no_end_of_them() {
        let z = |n| "中".repeat(n);
        for (text, units) in [
            (z(66) + "❤\u{FE0F}" + &z(10), vec![66, 12]),
            (z(60) + "👨\u{200D}👩\u{200D}👧\u{200D}👦" + &z(10), vec![60, 21]),
            (z(65) + "👍\u{1F3FD}" + &z(4), vec![65, 8]),
            (z(66) + "e\u{301}" + &z(4), vec![66, 6]),
        ] {
            check(&text, Udh8, Ucs2, &units);
        }
        // Sequences without end are cut all the same, wherever they have filled their share.
        for text in ["a".to_string() + &"\u{301}".repeat(499), "😀\u{200D}".repeat(200)] {
            let parts = encode(&text, Udh8).parts;
            let (last, full) = parts.split_last().expect("a part");
            assert!(full.iter().all(|part| (2 * 60..=2 * 67).contains(&part.octets.len())) && last.octets.len() <= 2 * 67);
        }
    }

    #[test]
    fn a_text_without_end_counts_as_255() {
        assert_eq!(split(&"a".repeat(153 * 300), Udh8).parts, 255);
        let encoded = encode(&"a".repeat(153 * 300), Udh8);
        assert_eq!((encoded.parts.len(), encoded.parts[299].index), (300, 255));
        assert_eq!(encode(&"a".repeat(153 * 300), Payload).parts.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn parts_read_back_alone_and_are_full(text in "[ -~]{0,600}|[a-z{|}é€]{0,600}|[a中，。【】é]{0,300}|[ -~€é中😀\u{300}\u{200D}\u{FE0F}]{0,600}") {
            for long in [Udh8, Udh16, Sar, Payload] {
                let (split, encoded) = (split(&text, long), encode(&text, long));
                proptest::prop_assert_eq!(split.encoding, encoded.encoding);
                let whole: String = encoded.parts.iter().map(|part| decode(encoded.encoding, &part.octets)).collect();
                proptest::prop_assert_eq!(&whole, &text);
                if long != Payload {
                    proptest::prop_assert_eq!(usize::from(split.parts), encoded.parts.len());
                    let most = if encoded.parts.len() > 1 { 140 - if long == Udh16 { 7 } else { 6 } } else { 140 };
                    for part in &encoded.parts {
                        let octets = if encoded.encoding == Gsm7 { (part.octets.len() * 7).div_ceil(8) } else { part.octets.len() };
                        proptest::prop_assert!(octets <= most);
                    }
                }
            }
        }
    }
}
