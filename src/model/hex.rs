//! Hexadecimal digits as this fleet writes them, and nothing else: the standard library's reader takes a sign as well, so that one
//! name or place could be written in two ways.

/// The number that these digits, all of them and in lower case, stand for.
pub fn number(digits: &str) -> Option<u128> {
    let is_written = !digits.is_empty() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_written { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// The bytes that these digits, two for each, stand for.
pub fn bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at: usize| number(&digits[at..at + 2]).and_then(|byte| u8::try_from(byte).ok());
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_and_no_signs() {
        assert_eq!(number("0f"), Some(15));
        assert_eq!(number(&"f".repeat(32)), Some(u128::MAX));
        assert_eq!(bytes("00ff10"), Some(vec![0, 255, 16]));
        assert_eq!(bytes(""), Some(vec![]));
        let too_long = "0".repeat(32) + "g";
        for text in ["", "+f", "-f", " f", "F", "0x1", "é", &too_long, &"f".repeat(33)] {
            assert_eq!(number(text), None, "{text}");
        }
        for text in ["+f", "0", "+f+f", "0F", "é", "éé"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
