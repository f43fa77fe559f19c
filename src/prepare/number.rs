//! Telephone numbers as people write them, and the one form in which the fleet keeps them.
//!
//! Every number goes through the whole of libphonenumber's parsing and validity check: nothing is waved through because it
//! looks like a mobile number. What stands before it only refuses what the library would read too kindly (letters as vanity
//! digits, a decimal point as a separator).

use rlibphonenumber::{PHONE_NUMBER_UTIL, ParseError, PhoneNumber, Region};

use crate::model::code::{Code, Fault};
use crate::model::id::Msisdn;
use crate::model::record::RowFault;

/// ITU-T E.164, 6.1: a number has at most 15 digits, country code included.
const DIGITS_MAX: u32 = 15;
/// A cell longer than this is no number, and not worth the library's time.
const CELL_BYTES_MAX: usize = 96;

/// The region of numbers without a country code; none for an empty name: every number needs its own then.
///
/// # Errors
/// [`Code::InputInvalid`] when `name` is not a region (ISO 3166-1 alpha-2) that has telephone numbers.
pub fn region(name: &str) -> Result<Option<Region>, Fault> {
    if name.is_empty() {
        return Ok(None);
    }
    let known = Region::from_code(name).ok();
    let known = known.filter(|region| PHONE_NUMBER_UTIL.get_country_code_for_region(*region).is_some());
    let unknown =
        || Fault::new(Code::InputInvalid, format!("the default region {name:?} is not an ISO 3166-1 code such as \"CN\""));
    known.map(Some).ok_or_else(unknown)
}

/// The number that a cell means, `region` being that of numbers without a country code, if there may be any.
///
/// Accepted are blanks, dashes, dots, slashes and brackets between digits, `+` or `00` before the country code, full-width
/// and other digits, and an apostrophe before it, as spreadsheets write it.
///
/// # Errors
/// [`Code::RowNumberMissing`] for an empty cell, [`Code::RowNumberInvalid`] otherwise.
pub fn parse(cell: &str, region: Option<Region>) -> Result<Msisdn, RowFault> {
    let trimmed = cell.trim();
    let trimmed = trimmed.strip_prefix(['\'', '’']).map_or(trimmed, str::trim_start);
    if trimmed.is_empty() {
        return Err(RowFault { code: Code::RowNumberMissing, detail: "the number column is empty".into() });
    }
    if trimmed.len() > CELL_BYTES_MAX {
        return Err(invalid("is too long for a number"));
    }
    if trimmed.is_ascii() {
        return parse_clean(trimmed, region);
    }
    // Marks that set the writing direction come along when a number is copied from an address book.
    let visible: String = trimmed.chars().filter(|&c| !is_invisible(c)).collect();
    parse_clean(visible.trim(), region)
}

fn parse_clean(text: &str, region: Option<Region>) -> Result<Msisdn, RowFault> {
    check_spelling(text)?;
    let parsed = parse_as_written(text, region);
    if parsed.is_err() {
        // Where another prefix is dialled before a country code (011, 0011, 810), lists are still written with 00 (ITU-T
        // E.123). No national number begins so, hence this comes second and cannot change a valid reading.
        if let Some(rest) = text.strip_prefix("00")
            && let Ok(number) = parse_as_written(&format!("+{rest}"), region)
        {
            return Ok(number);
        }
    }
    parsed
}

fn parse_as_written(text: &str, region: Option<Region>) -> Result<Msisdn, RowFault> {
    let number = PHONE_NUMBER_UTIL.parse(text, region).map_err(|error| match error {
        ParseError::InvalidCountryCode if region.is_none() => invalid("has no country code, and there is no default region"),
        error => invalid(reason(&error)),
    })?;
    if number.extension.is_some() {
        return Err(invalid("has an extension"));
    }
    if !PHONE_NUMBER_UTIL.is_valid_number(&number) {
        return Err(invalid("is not a number that its country gives out"));
    }
    e164(&number).ok_or_else(|| invalid("has more than 15 digits"))
}

/// The digits of E.164: country code, leading zeros that belong to the number (Italy), national number.
fn e164(number: &PhoneNumber) -> Option<Msisdn> {
    let zeros = match number.italian_leading_zero() {
        true => u32::try_from(number.number_of_leading_zeros()).ok()?,
        false => 0,
    };
    let national_digits = number.national_number.checked_ilog10()? + 1 + zeros;
    let country_code = u64::try_from(number.country_code).ok().filter(|code| *code > 0)?;
    if country_code.ilog10() + 1 + national_digits > DIGITS_MAX {
        return None;
    }
    Some(Msisdn(country_code * 10u64.pow(national_digits) + number.national_number))
}

/// Refuses what is no spelling of a number before the library tries to make one of it.
fn check_spelling(text: &str) -> Result<(), RowFault> {
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            '+' | '＋' if digits == 0 => {}
            '+' | '＋' => return Err(invalid(spreadsheet(text).unwrap_or("has a plus sign between digits"))),
            ' ' | '\t' | '-' | '.' | '(' | ')' | '/' => {}
            _ if c.is_ascii() => return Err(invalid(spreadsheet(text).unwrap_or("has characters that no number has"))),
            _ if c.is_numeric() => digits += 1,
            // Dashes, blanks and brackets of other scripts are left to the library, which knows them all.
            _ if c.is_alphabetic() => return Err(invalid("has letters")),
            _ => {}
        }
    }
    match spreadsheet(text) {
        Some(reason) => Err(invalid(reason)),
        None => Ok(()),
    }
}

/// Why a cell is a spreadsheet's number rather than a telephone number: digits are lost, or may be.
fn spreadsheet(text: &str) -> Option<&'static str> {
    let (mantissa, exponent) = match text.split_once(['E', 'e']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_decimal = |part: &str| part.split_once('.').map_or_else(|| is_digits(part), |(a, b)| is_digits(a) && is_digits(b));
    if exponent.is_some_and(|exponent| is_decimal(mantissa) && is_digits(exponent.trim_start_matches(['+', '-']))) {
        return Some("is in scientific notation, as a spreadsheet writes long numbers: its last digits are lost");
    }
    let fraction = text.split_once('.').filter(|(whole, part)| whole.len() >= 7 && is_digits(whole) && is_digits(part));
    fraction
        .filter(|(_, part)| part.len() <= 2)
        .map(|_| "is a decimal fraction, as a spreadsheet writes numbers: export the column as text")
}

fn reason(error: &ParseError) -> &'static str {
    match error {
        ParseError::InvalidCountryCode => "begins with a country code that does not exist",
        ParseError::NotANumber(_) => "is not a number",
        ParseError::TooShortAfterIdd | ParseError::TooShortNsn => "is too short",
        ParseError::TooLongNsn => "is too long",
    }
}

fn invalid(reason: &str) -> RowFault {
    RowFault { code: Code::RowNumberInvalid, detail: format!("the number {reason}") }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_spellings_mean_the_same_number() {
        let cases = [
            (
                "CN",
                8_613_800_138_000,
                &[
                    "13800138000",
                    "138 0013 8000",
                    "138-0013-8000",
                    " 13800138000\t",
                    "'13800138000",
                    "’13800138000",
                    "+8613800138000",
                    "+86 138 0013 8000",
                    "(+86) 13800138000",
                    "8613800138000",
                    "008613800138000",
                    "0086-138-0013-8000",
                    "１３８００１３８０００",
                    "＋８６１３８００１３８０００",
                    "\u{202d}+86 138\u{a0}0013\u{a0}8000\u{202c}",
                    "\u{feff}13800138000",
                ][..],
            ),
            ("US", 8_613_800_138_000, &["008613800138000", "011 86 138 0013 8000", "+8613800138000"]),
            ("US", 12_025_550_173, &["(202) 555-0173", "202.555.0173", "1-202-555-0173", "+1 202 555 0173"]),
            ("GB", 442_079_460_958, &["+44 (0)20 7946 0958", "020 7946 0958", "0044 20 7946 0958"]),
            ("DE", 4_930_901_820, &["030/901820", "+49 30 901820"]),
            ("IT", 390_612_345_678, &["06 12345678", "+39 06 12345678"]),
            ("EG", 201_001_234_567, &["٠١٠٠١٢٣٤٥٦٧"]),
            ("HK", 85_251_234_567, &["5123 4567", "+852 5123 4567"]),
            ("", 8_613_800_138_000, &["+86 138 0013 8000", "008613800138000", "'+8613800138000"]),
        ];
        for (name, number, spellings) in cases {
            let region = region(name).expect("a region");
            for spelling in spellings {
                assert_eq!(parse(spelling, region), Ok(Msisdn(number)), "{spelling:?} in {name}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_refused_with_its_reason() {
        let cases = [
            ("CN", "", Code::RowNumberMissing, "empty"),
            ("CN", " \u{3000} ", Code::RowNumberMissing, "empty"),
            ("CN", "'", Code::RowNumberMissing, "empty"),
            ("CN", "8.61381E+12", Code::RowNumberInvalid, "scientific"),
            ("CN", "1.38E10", Code::RowNumberInvalid, "scientific"),
            ("CN", "13800138000.0", Code::RowNumberInvalid, "decimal"),
            ("DE", "3012345678.0", Code::RowNumberInvalid, "decimal"),
            ("CN", "12345", Code::RowNumberInvalid, "its country"),
            ("CN", "1380013800", Code::RowNumberInvalid, "its country"),
            ("CN", "138001380000", Code::RowNumberInvalid, "its country"),
            ("CN", "12", Code::RowNumberInvalid, "its country"),
            ("CN", "1", Code::RowNumberInvalid, "not a number"),
            ("CN", "23800138000", Code::RowNumberInvalid, "its country"),
            ("CN", "+99913800138000", Code::RowNumberInvalid, "country code"),
            ("CN", "138+00138000", Code::RowNumberInvalid, "plus"),
            ("CN", "13800138000 ext 5", Code::RowNumberInvalid, "characters"),
            ("CN", "13800138000,13900139000", Code::RowNumberInvalid, "characters"),
            ("CN", "13800138000/13900139000", Code::RowNumberInvalid, "long"),
            ("CN", "张三", Code::RowNumberInvalid, "letters"),
            ("US", "1-800-FLOWERS", Code::RowNumberInvalid, "characters"),
            ("CN", "------", Code::RowNumberInvalid, "not a number"),
            ("CN", &"1".repeat(200), Code::RowNumberInvalid, "too long"),
            ("", "13800138000", Code::RowNumberInvalid, "no default region"),
            ("", "8613800138000", Code::RowNumberInvalid, "no default region"),
            ("", "+99913800138000", Code::RowNumberInvalid, "no default region"),
        ];
        for (name, cell, code, word) in cases {
            let fault = parse(cell, region(name).expect("a region")).expect_err(cell);
            assert_eq!(fault.code, code, "{cell:?}: {fault:?}");
            assert!(fault.detail.contains(word), "{cell:?}: {fault:?}");
            assert!(cell.trim().len() < 4 || !fault.detail.contains(cell.trim()), "the reason must not repeat the number");
        }
    }

    #[test]
    fn a_region_must_exist() {
        assert!(region("CN").is_ok() && region("cn").is_ok());
        assert!(region("").expect("none is one").is_none());
        for name in ["China", "ZZ", "C1", "001", " "] {
            assert_eq!(region(name).map_err(|fault| fault.code), Err(Code::InputInvalid), "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_what_is_accepted_reads_back(cell in ".{0,40}|[+0-9 ()./-]{5,20}") {
            let region = region("CN").expect("a region");
            if let Ok(number) = parse(&cell, region) {
                let again = format!("+{}", number.digits());
                proptest::prop_assert_eq!(parse(&again, region), Ok(number));
            }
        }
    }
}
