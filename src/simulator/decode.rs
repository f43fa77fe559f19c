//! What a handset shows: a decoder of its own, written apart from the fleet's text layer because it is what checks it.

use std::borrow::Cow;

/// A text as a handset shows it.
pub(super) struct Shown<'a> {
    pub text: Cow<'a, str>,
    /// Whether something in it cannot be shown: an octet or code outside the alphabet, an escape or surrogate without its
    /// other half.
    pub is_malformed: bool,
}

/// Decodes one part, header removed. Each part is decoded alone, so that a pair cut by a part boundary is noticed.
/// `data_coding` as in SMPP 3.4, 5.2.19.
pub(super) fn decode(data_coding: u8, octets: &[u8]) -> Shown<'_> {
    match data_coding {
        8 => utf16(octets),
        1 => one_by_one(octets, |octet| octet.is_ascii()),
        3 => one_by_one(octets, |_| true),
        _ => gsm(octets),
    }
}

/// GSM 03.38, one septet an octet, as SMPP carries it.
fn gsm(octets: &[u8]) -> Shown<'_> {
    if octets.iter().all(|&octet| PLAIN[usize::from(octet)])
        && let Ok(text) = std::str::from_utf8(octets)
    {
        return Shown { text: Cow::Borrowed(text), is_malformed: false };
    }
    let mut text = String::with_capacity(octets.len() * 2);
    let mut is_malformed = false;
    let mut octets = octets.iter();
    while let Some(&octet) = octets.next() {
        let shown = match octet {
            ESCAPE => octets.next().and_then(|&code| extension(code)),
            _ => DEFAULT_ALPHABET.get(usize::from(octet)).copied(),
        };
        is_malformed |= shown.is_none();
        text.push(shown.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Shown { text: Cow::Owned(text), is_malformed }
}

fn utf16(octets: &[u8]) -> Shown<'_> {
    let (units, rest) = octets.as_chunks::<2>();
    let mut text = String::with_capacity(octets.len() * 2);
    let mut is_malformed = !rest.is_empty();
    for unit in char::decode_utf16(units.iter().map(|unit| u16::from_be_bytes(*unit))) {
        is_malformed |= unit.is_err();
        text.push(unit.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Shown { text: Cow::Owned(text), is_malformed }
}

fn one_by_one(octets: &[u8], is_known: fn(&u8) -> bool) -> Shown<'_> {
    let text = octets.iter().map(|&octet| char::from(octet)).collect();
    Shown { text: Cow::Owned(text), is_malformed: !octets.iter().all(is_known) }
}

/// Segments that a text would take if it were split by its provider, about: what a limit in segments counts for texts that
/// arrive whole.
pub(super) fn segments(text: &str) -> u32 {
    let septets: Option<u32> = text.chars().map(septets).sum();
    let (units, alone, each) = match septets {
        Some(septets) => (septets, 160, 153),
        None => (text.encode_utf16().count() as u32, 70, 67),
    };
    if units <= alone { 1 } else { units.div_ceil(each) }
}

fn septets(shown: char) -> Option<u32> {
    if shown.is_ascii() && PLAIN[shown as usize] || DEFAULT_ALPHABET.contains(&shown) && shown != char::from(ESCAPE) {
        Some(1)
    } else if EXTENSIONS.iter().any(|(_, extended)| *extended == shown) {
        Some(2)
    } else {
        None
    }
}

const ESCAPE: u8 = 0x1B;

/// The extension table (3GPP TS 23.038, 6.2.1.1).
const EXTENSIONS: [(u8, char); 10] = [
    (0x0A, '\u{c}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

fn extension(code: u8) -> Option<char> {
    EXTENSIONS.iter().find(|(known, _)| *known == code).map(|(_, shown)| *shown)
}

/// The default alphabet (3GPP TS 23.038, 6.2.1).
#[rustfmt::skip]
const DEFAULT_ALPHABET: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
    'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1b}', 'Æ', 'æ', 'ß', 'É',
    ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?',
    '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O',
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§',
    '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];

/// Octets that stand for the same character in the default alphabet and in ASCII.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut octet = 0;
    while octet < 128 {
        plain[octet] = DEFAULT_ALPHABET[octet] as usize == octet && octet != ESCAPE as usize;
        octet += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_are_shown() {
        let cases: [(u8, &[u8], &str, bool); 10] = [
            (0, b"Hello 123", "Hello 123", false),
            (0, &[0x00, 0x02, 0x11, 0x1B, 0x65, 0x7F], "@$_€à", false),
            (0, &[0x1B, 0x28, 0x1B, 0x29], "{}", false),
            (0, &[b'a', 0x1B], "a\u{fffd}", true),
            (0, &[0x1B, b'z'], "\u{fffd}", true),
            (0, &[0xE9], "\u{fffd}", true),
            (3, &[0xE9], "é", false),
            (8, &[0x4F, 0x60, 0xD8, 0x3D, 0xDE, 0x00], "你😀", false),
            (8, &[0xD8, 0x3D], "\u{fffd}", true),
            (8, &[0x4F], "", true),
        ];
        for (coding, octets, text, is_malformed) in cases {
            let shown = decode(coding, octets);
            assert_eq!((&*shown.text, shown.is_malformed), (text, is_malformed), "{coding} {octets:02x?}");
        }
    }

    #[test]
    fn segments_of_whole_texts() {
        let cases = [("a".repeat(160), 1), ("a".repeat(161), 2), ("€".repeat(81), 2), ("你".repeat(70), 1), ("😀".repeat(36), 2)];
        for (text, count) in cases {
            assert_eq!(segments(&text), count, "{text}");
        }
    }
}
