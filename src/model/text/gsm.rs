//! The GSM 03.38 default alphabet with its extension table (3GPP TS 23.038, 6.2.1 and 6.2.1.1).
//!
//! `Ç` is 0x09 as the specification's table has it; `ç` is not in the alphabet, although some handsets show it there.

/// The septet that announces one of the extension table.
pub const ESCAPE: u8 = 0x1B;

/// The default alphabet: the character of each septet. The place of the escape holds itself and is never encoded.
#[rustfmt::skip]
pub const BASIC: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å',
    'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', '\u{1B}', 'Æ', 'æ', 'ß', 'É',
    ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/',
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?',
    '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O',
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§',
    '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à',
];

/// The extension table: the septet behind the escape, and its character.
pub const EXTENSION: [(u8, char); 10] = [
    (0x0A, '\u{0C}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (EURO, '€'),
];

const EURO: u8 = 0x65;
/// Characters below this are looked up; only the euro lies above.
const LOOKUP: usize = 0x400;
const NONE: u8 = 0xFF;

/// For characters below [`LOOKUP`]: their septet, with the top bit set when it stands behind an escape.
static SEPTET: [u8; LOOKUP] = {
    let mut table = [NONE; LOOKUP];
    let mut septet = 0;
    while septet < BASIC.len() {
        if septet != ESCAPE as usize {
            table[BASIC[septet] as usize] = septet as u8;
        }
        septet += 1;
    }
    let mut row = 0;
    while row < EXTENSION.len() {
        let (septet, character) = EXTENSION[row];
        if (character as usize) < LOOKUP {
            table[character as usize] = septet | 0x80;
        }
        row += 1;
    }
    table
};

/// Septets each ASCII byte takes: 1, or 2 with an escape; 0 for what the alphabet lacks and for bytes above ASCII.
pub(super) static ASCII_SEPTETS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match SEPTET[byte] {
            NONE => 0,
            0x80.. => 2,
            _ => 1,
        };
        byte += 1;
    }
    table
};

/// How a character is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Septets {
    /// As one septet.
    One(u8),
    /// As an escape and this septet.
    Escaped(u8),
}

impl Septets {
    /// How many septets that is.
    pub fn count(self) -> usize {
        match self {
            Septets::One(_) => 1,
            Septets::Escaped(_) => 2,
        }
    }
}

/// How a character is written; `None` when the alphabet does not have it.
pub fn septets(character: char) -> Option<Septets> {
    match SEPTET.get(character as usize) {
        Some(&NONE) => None,
        Some(&septet) if septet >= 0x80 => Some(Septets::Escaped(septet & 0x7F)),
        Some(&septet) => Some(Septets::One(septet)),
        None if character == '€' => Some(Septets::Escaped(EURO)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_septet_reads_back() {
        for (septet, &character) in BASIC.iter().enumerate() {
            let expected = (septet != ESCAPE as usize).then_some(Septets::One(septet as u8));
            assert_eq!(septets(character), expected, "{character:?}");
        }
        for (septet, character) in EXTENSION {
            assert_eq!(septets(character), Some(Septets::Escaped(septet)), "{character:?}");
        }
        let known = (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|&c| septets(c).is_some()).count();
        assert_eq!(known, 127 + 10, "nothing else is in the alphabet");
    }

    #[test]
    fn landmarks_of_the_specification_stand_where_they_should() {
        for (character, septet) in [
            ('@', 0x00),
            ('Ç', 0x09),
            ('Δ', 0x10),
            ('_', 0x11),
            ('É', 0x1F),
            ('¤', 0x24),
            ('¡', 0x40),
            ('Ä', 0x5B),
            ('§', 0x5F),
            ('¿', 0x60),
            ('à', 0x7F),
        ] {
            assert_eq!(septets(character), Some(Septets::One(septet)), "{character:?}");
        }
        for character in ['`', '\t', 'ç', 'á', 'ê', '’', '“', '–', '\u{A0}', 'α', '中', '\0', '\u{7F}', '\u{1B}'] {
            assert_eq!(septets(character), None, "{character:?}");
        }
    }

    #[test]
    fn the_ascii_table_agrees() {
        for byte in 0..=255u8 {
            let expected = if byte.is_ascii() { septets(char::from(byte)).map_or(0, Septets::count) } else { 0 };
            assert_eq!(usize::from(ASCII_SEPTETS[usize::from(byte)]), expected, "{byte:#x}");
        }
    }
}
