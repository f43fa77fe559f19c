//! The forms in which one message id comes back: decimal in the answer and hexadecimal in the receipt, padded with zeros,
//! in another letter case.

use serde::{Deserialize, Serialize};

use super::hex;

/// How the id in a receipt relates to the id in the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdForm {
    /// Find out from the first receipts.
    #[default]
    Learn,
    /// The same, but for letter case and leading zeros.
    Same,
    /// Hexadecimal in the answer, decimal in the receipt.
    HexThenDecimal,
    /// Decimal in the answer, hexadecimal in the receipt.
    DecimalThenHex,
}

/// The forms to try when an account's form is to be learned, the likeliest first.
pub const FORMS: [IdForm; 3] = [IdForm::Same, IdForm::HexThenDecimal, IdForm::DecimalThenHex];

impl IdForm {
    /// The name that configuration and reports use.
    pub fn name(self) -> &'static str {
        match self {
            IdForm::Learn => "learn",
            IdForm::Same => "same",
            IdForm::HexThenDecimal => "hex_then_decimal",
            IdForm::DecimalThenHex => "decimal_then_hex",
        }
    }
}

/// The form in which an id is indexed: lower case, no leading zeros. One id never becomes empty.
pub fn canonical(id: &str) -> String {
    let trimmed = id.trim().trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_ascii_lowercase() }
}

/// What a receipt's id is in the index if the account's form is `form`; `None` when it cannot be of that form, or is none: of
/// zeros an id may be.
pub fn indexed(receipt_id: &str, form: IdForm) -> Option<String> {
    if receipt_id.trim().is_empty() {
        return None;
    }
    let id = canonical(receipt_id);
    match form {
        IdForm::Learn | IdForm::Same => Some(id),
        IdForm::HexThenDecimal => {
            let value: u128 = if id.bytes().all(|b| b.is_ascii_digit()) { id.parse().ok()? } else { return None };
            Some(format!("{value:x}"))
        }
        IdForm::DecimalThenHex => {
            let digits = id.strip_prefix('x').unwrap_or(&id);
            hex::number(digits).map(|value| value.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_meet_in_the_index() {
        let cases = [
            ("0001A2B", "1a2b", IdForm::Same),
            ("1A2B", "6699", IdForm::HexThenDecimal),
            ("1A2B", "0000006699", IdForm::HexThenDecimal),
            ("6699", "00001A2B", IdForm::DecimalThenHex),
            ("6699", "0x1a2b", IdForm::DecimalThenHex),
            ("0000", "0", IdForm::Same),
            ("3F2504E0-4F89", "3f2504e0-4f89", IdForm::Same),
        ];
        for (answer, receipt, form) in cases {
            assert_eq!(Some(canonical(answer)), indexed(receipt, form), "{answer} and {receipt} as {form:?}");
        }
        assert_eq!(indexed("1a2b", IdForm::HexThenDecimal), None);
        for form in FORMS {
            assert_eq!((indexed("", form), indexed(" ", form)), (None, None), "no id is not the id 0");
        }
        for receipt in ["zz", "+1a2b", "0x+1a2b", "0x"] {
            assert_eq!(indexed(receipt, IdForm::DecimalThenHex), None, "{receipt}");
        }
    }
}
