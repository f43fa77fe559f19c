//! From the bytes of one CSV record to its fields.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// Splits records of one delimiter. Records without a quote are cut at the delimiter; the others go through `csv-core`, the
/// parser of crate `csv`.
pub(super) struct CsvFields {
    delimiter: u8,
    parser: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvFields {
    /// A splitter for a delimiter.
    pub fn new(delimiter: u8) -> CsvFields {
        let mut parser = ReaderBuilder::new().delimiter(delimiter).build();
        // The parser drops a byte order mark before its first record. Ours are all records from the middle of a file.
        let mut room = [0; 8];
        parser.read_record(b"x\n", &mut room, &mut [0; 2]);
        CsvFields { delimiter, parser, text: vec![0; 1024], ends: vec![0; 64] }
    }

    /// The fields of a record that has `expected` of them, or how many it has.
    pub fn split(&mut self, record: &str, quoted: bool, expected: usize) -> Result<Vec<String>, usize> {
        if !quoted {
            let found = csv_field_count(record.as_bytes(), false, self.delimiter);
            if found != expected {
                return Err(found);
            }
            return Ok(record.split(char::from(self.delimiter)).map(str::to_string).collect());
        }
        let found = self.parse(record.as_bytes());
        if found != expected {
            return Err(found);
        }
        let mut from = 0;
        let field = |&end: &usize| {
            let field = String::from_utf8_lossy(&self.text[from..end]);
            from = end;
            // Taking quotes and delimiters, which are ASCII, out of a text leaves a text: nothing is ever lost here.
            Cow::into_owned(field)
        };
        Ok(self.ends[..found].iter().map(field).collect())
    }

    /// Leaves the fields in `text` and `ends`; returns how many there are.
    fn parse(&mut self, record: &[u8]) -> usize {
        if self.text.len() <= record.len() {
            self.text.resize(record.len() + 1, 0);
        }
        let (mut read, mut written, mut fields) = (0, 0, 0);
        loop {
            // The end of the line is what completes the record and makes the parser ready for the next.
            let input = if read < record.len() { &record[read..] } else { b"\n" };
            let (result, took, wrote, ended) =
                self.parser.read_record(input, &mut self.text[written..], &mut self.ends[fields..]);
            (read, written, fields) = (read + took, written + wrote, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => return fields,
            }
        }
    }
}

/// How many fields a record has.
pub(super) fn csv_field_count(record: &[u8], quoted: bool, delimiter: u8) -> usize {
    if quoted { CsvFields::new(delimiter).parse(record) } else { memchr::memchr_iter(delimiter, record).count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn fields_are_those_of_crate_csv(records in proptest::collection::vec("[a-b,;\"\u{FEFF}é ]{1,20}", 1..5)) {
            let mut fields = CsvFields::new(b',');
            for record in records {
                let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(std::io::Cursor::new(format!("x\n{record}\n")));
                let expected: Vec<String> = reader.records().nth(1).expect("a record").expect("text").iter().map(str::to_string).collect();
                // A record whose quote stays open never comes here; see `records`.
                proptest::prop_assume!(!expected.last().is_some_and(|last| last.ends_with('\n')));
                let quoted = record.contains('"');
                proptest::prop_assert_eq!(fields.split(&record, quoted, expected.len()), Ok(expected.clone()));
                proptest::prop_assert_eq!(fields.split(&record, quoted, expected.len() + 1), Err(expected.len()));
                proptest::prop_assert_eq!(csv_field_count(record.as_bytes(), quoted, b','), expected.len());
            }
        }
    }
}
