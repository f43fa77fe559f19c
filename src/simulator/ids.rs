//! Message ids in the forms that real centres give them.

use super::config::{IdStyle, Ids};
use super::fate::scramble;

/// The id of message `id` as its answer has it, appended to `out`.
pub(super) fn answer(ids: &Ids, id: u64, out: &mut Vec<u8>) {
    match ids.style {
        IdStyle::Decimal | IdStyle::DecimalThenHex => decimal(id, ids.pad_answer, out),
        IdStyle::Hex | IdStyle::HexThenDecimal => hexadecimal(id, ids.pad_answer, ids.upper_case, out),
        IdStyle::Uuid => uuid(id, ids.upper_case, out),
    }
}

/// The id of message `id` as its receipts have it, appended to `out`.
pub(super) fn receipt(ids: &Ids, id: u64, out: &mut Vec<u8>) {
    match ids.style {
        IdStyle::Decimal | IdStyle::HexThenDecimal => decimal(id, ids.pad_receipt, out),
        IdStyle::Hex | IdStyle::DecimalThenHex => hexadecimal(id, ids.pad_receipt, ids.upper_case, out),
        IdStyle::Uuid => uuid(id, ids.upper_case, out),
    }
}

/// `value` in decimal digits, at least `pad` of them.
pub(super) fn decimal(value: u64, pad: u8, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 40];
    let mut from = digits.len();
    let mut left = value;
    while left > 0 || from == digits.len() {
        from -= 1;
        digits[from] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    from = from.min(digits.len() - usize::from(pad).min(digits.len()));
    out.extend_from_slice(&digits[from..]);
}

fn hexadecimal(value: u64, pad: u8, upper_case: bool, out: &mut Vec<u8>) {
    let alphabet: &[u8; 16] = if upper_case { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let mut digits = [b'0'; 40];
    let mut from = digits.len();
    let mut left = value;
    while left > 0 || from == digits.len() {
        from -= 1;
        digits[from] = alphabet[(left & 15) as usize];
        left >>= 4;
    }
    from = from.min(digits.len() - usize::from(pad).min(digits.len()));
    out.extend_from_slice(&digits[from..]);
}

fn uuid(id: u64, upper_case: bool, out: &mut Vec<u8>) {
    let mut digits = Vec::with_capacity(32);
    hexadecimal(scramble(id), 16, upper_case, &mut digits);
    hexadecimal(id, 16, upper_case, &mut digits);
    for (nth, group) in [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().enumerate() {
        if nth > 0 {
            out.push(b'-');
        }
        out.extend_from_slice(&digits[group]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_as_configured() {
        let cases = [
            (IdStyle::Decimal, 0, 10, false, "6699", "0000006699"),
            (IdStyle::Hex, 8, 0, true, "00001A2B", "1A2B"),
            (IdStyle::HexThenDecimal, 0, 0, false, "1a2b", "6699"),
            (IdStyle::DecimalThenHex, 0, 8, false, "6699", "00001a2b"),
        ];
        for (style, pad_answer, pad_receipt, upper_case, expected_answer, expected_receipt) in cases {
            let ids = Ids { style, pad_answer, pad_receipt, upper_case, repeat_after_restart: true };
            let (mut answered, mut received) = (Vec::new(), Vec::new());
            answer(&ids, 6699, &mut answered);
            receipt(&ids, 6699, &mut received);
            assert_eq!((answered, received), (expected_answer.into(), expected_receipt.into()), "{style:?}");
        }
    }

    #[test]
    fn edges_of_the_numbers() {
        let text = |value, pad| {
            let mut out = Vec::new();
            decimal(value, pad, &mut out);
            String::from_utf8(out).expect("digits")
        };
        assert_eq!(text(0, 0), "0");
        assert_eq!(text(u64::MAX, 0), u64::MAX.to_string());
        assert_eq!(text(7, 255).len(), 40);
        let mut out = Vec::new();
        uuid(1, false, &mut out);
        assert_eq!(out.len(), 36);
        assert!(out.ends_with(b"-000000000001"));
    }
}
