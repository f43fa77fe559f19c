//! Records that never became a message, as columns.

use serde::{Deserialize, Serialize};

use super::code::{code_of, number_of};
use super::column::{Texts, bit, bits, deltas, sums};
use super::frame::{block, corrupt, read_row_block};
use crate::model::limits::REJECTS_PER_WRITE;
use crate::model::record::{Reject, RejectKind};
use crate::ports::StoreError;

const WHAT: &str = "rejects";
/// A piece with more rejects than this was never written: in memory each is many times larger than an empty one is here.
const REJECTS_MAX: usize = 64 * REJECTS_PER_WRITE;

#[derive(Serialize, Deserialize)]
struct Stored {
    records: Vec<i64>,
    lines: Vec<i64>,
    suppressed: Vec<u8>,
    /// 0 stands for none.
    codes: Vec<u16>,
    details: Texts,
    numbers: Texts,
}

/// Writes a piece of an attempt's rejects.
pub fn write(rejects: &[Reject]) -> Vec<u8> {
    block(&Stored {
        records: deltas(rejects.iter().map(|reject| reject.record)),
        lines: deltas(rejects.iter().map(|reject| reject.line)),
        suppressed: bits(rejects.iter().map(|reject| reject.kind == RejectKind::Suppressed)),
        codes: rejects.iter().map(|reject| reject.code.map_or(0, number_of)).collect(),
        details: rejects.iter().map(|reject| reject.detail.as_str()).collect(),
        numbers: rejects.iter().map(|reject| reject.number.as_str()).collect(),
    })
}

/// Reads a piece.
pub fn read(bytes: &[u8]) -> Result<Vec<Reject>, StoreError> {
    let stored: Stored = read_row_block(WHAT, bytes)?;
    if stored.records.len() > REJECTS_MAX {
        return Err(corrupt(WHAT, "it holds more records than a piece does"));
    }
    let (records, lines) = (sums(&stored.records), sums(&stored.lines));
    let count = records.len();
    if lines.len() != count || stored.codes.len() != count || stored.details.len() != count || stored.numbers.len() != count {
        return Err(corrupt(WHAT, "its columns differ in length"));
    }
    let texts = stored.details.iter().zip(stored.numbers.iter());
    texts
        .enumerate()
        .map(|(at, (detail, number))| {
            Ok(Reject {
                record: records[at],
                line: lines[at],
                kind: match bit(&stored.suppressed, at) {
                    Some(true) => RejectKind::Suppressed,
                    Some(false) => RejectKind::Rejected,
                    None => return Err(corrupt(WHAT, "its columns differ in length")),
                },
                code: if stored.codes[at] == 0 { None } else { Some(code_of(stored.codes[at])?) },
                detail: detail.to_owned(),
                number: number.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::code::Code;

    #[test]
    fn a_piece_with_more_rejects_than_any_is_damaged() {
        let reject =
            Reject { record: 1, line: 1, kind: RejectKind::Suppressed, code: None, detail: String::new(), number: String::new() };
        assert!(read(&write(&vec![reject.clone(); REJECTS_MAX])).is_ok());
        assert!(matches!(read(&write(&vec![reject; REJECTS_MAX + 1])), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn rejects_read_back_and_their_form_is_the_stored_one() {
        let reject = |record, kind, code, detail: &str| Reject {
            record,
            line: record + 1,
            kind,
            code,
            detail: detail.into(),
            number: "12".into(),
        };
        let rejects = vec![
            reject(3, RejectKind::Rejected, Some(Code::RowNumberInvalid), "too short"),
            reject(9, RejectKind::Suppressed, None, ""),
        ];
        let bytes = write(&rejects);
        assert_eq!(read(&bytes), Ok(rejects));
        let golden =
            [&[0, 33, 0, 0, 0, 2, 6, 12, 2, 8, 12, 1, 2, 2, 210, 15, 0, 2, 9, 0, 9][..], b"too short", &[2, 2, 2, 4], b"1212"];
        assert_eq!(bytes[9..], golden.concat());
    }
}
