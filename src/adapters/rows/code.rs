//! Error codes in data rows: the number that people see, because it keeps its meaning for ever and its place in the list
//! does not.

use std::sync::OnceLock;

use super::frame::corrupt;
use crate::model::code::{CODES, Code};
use crate::ports::StoreError;

/// The digits of a code.
pub fn number_of(code: Code) -> u16 {
    code.as_str().trim_start_matches("SF-").parse().expect("a code is SF- and four digits")
}

/// The code of these digits. A number that a later version added is an error: a row is never read as something else.
pub fn code_of(number: u16) -> Result<Code, StoreError> {
    static SORTED: OnceLock<Vec<(u16, Code)>> = OnceLock::new();
    let sorted = SORTED.get_or_init(|| {
        let mut sorted: Vec<(u16, Code)> = CODES.iter().map(|&code| (number_of(code), code)).collect();
        sorted.sort_unstable();
        sorted
    });
    match sorted.binary_search_by_key(&number, |(known, _)| *known) {
        Ok(at) => Ok(sorted[at].1),
        Err(_) => Err(corrupt("row", "it holds an error code that this version does not know")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for &code in CODES {
            assert_eq!(code_of(number_of(code)), Ok(code));
        }
        assert!(code_of(1).is_err());
        assert_eq!(number_of(Code::ProviderRefused), 5001);
    }
}
