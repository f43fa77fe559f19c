//! The names of a source's columns: the header of CSV, the keys of the first records of JSON Lines.

use std::collections::HashSet;

use super::detect;
use super::dialect::{Dialect, Format};
use super::fields::{CsvFields, csv_field_count};
use super::json_fields;
use super::records::Raw;
use crate::model::code::{Code, Fault};
use crate::model::limits::COLUMNS_MAX;

/// Records of JSON Lines whose keys become columns. A key that comes up later is no column and is left out.
const KEY_RECORDS: u32 = 1_000;

/// Gathers the columns while the planning pass goes through the records.
pub(super) struct Columns {
    format: Format,
    delimiter: u8,
    header: Header,
    names: Vec<String>,
    known: HashSet<String>,
    records: u32,
    objects: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    /// The next record is the header; `assumed` when nobody said so.
    Awaited { assumed: bool },
    /// It was read.
    Read,
    /// There is none.
    Absent,
}

impl Columns {
    /// Nothing is known yet. `assumed` says that the header is a guess.
    pub fn begin(dialect: &Dialect, assumed: bool) -> Columns {
        let header = if dialect.format == Format::Csv && dialect.header { Header::Awaited { assumed } } else { Header::Absent };
        Columns {
            format: dialect.format,
            delimiter: dialect.delimiter,
            header,
            names: vec![],
            known: HashSet::new(),
            records: 0,
            objects: 0,
        }
    }

    /// Whether the next record belongs to [`Columns::header`].
    pub fn wants_header(&self) -> bool {
        matches!(self.header, Header::Awaited { .. })
    }

    /// The names so far.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes the first record; it may be Excel's line that names the delimiter, and then the next one is awaited.
    pub fn header(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        let Header::Awaited { assumed } = self.header else { return Ok(()) };
        let bytes = raw
            .bytes
            .map_err(|_| not_text("the header is longer than a megabyte, or a quote in it is never closed".to_string()))?;
        if raw.offset <= 3 && detect::named_delimiter(bytes).is_some() {
            return Ok(());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| not_text("the header is not valid UTF-8: name the encoding of the list".to_string()))?;
        let count = csv_field_count(bytes, raw.quoted, self.delimiter);
        check_count(count)?;
        let names = CsvFields::new(self.delimiter).split(text, raw.quoted, count).unwrap_or_default();
        for (index, name) in names.iter().enumerate() {
            let (name, column) = (name.trim(), index + 1);
            if name.is_empty() {
                return Err(invalid(format!("column {column} of the header has no name")));
            }
            if assumed && looks_like_a_number(name) {
                return Err(invalid(format!(
                    "column {column} of the first line is a telephone number: add a line with the columns' names, or say header=no"
                )));
            }
            if !self.known.insert(name.to_string()) {
                return Err(invalid(format!("the header names the column \"{name}\" twice")));
            }
            self.names.push(name.to_string());
        }
        self.header = Header::Read;
        Ok(())
    }

    /// Learns from a record what there is to learn.
    pub fn record(&mut self, raw: &Raw<'_>) {
        if self.header == Header::Read || self.records >= KEY_RECORDS {
            return;
        }
        let Ok(bytes) = raw.bytes else { return };
        match self.format {
            // The first record says how many columns there are.
            Format::Csv => {
                if self.names.is_empty() {
                    let count = csv_field_count(bytes, raw.quoted, self.delimiter);
                    self.names = (1..=count).map(|column| column.to_string()).collect();
                    self.records = KEY_RECORDS;
                }
            }
            Format::JsonLines => {
                self.records += 1;
                let Some(keys) = std::str::from_utf8(bytes).ok().and_then(json_fields::keys) else { return };
                self.objects += 1;
                for key in keys {
                    if self.names.len() <= COLUMNS_MAX && self.known.insert(key.clone()) {
                        self.names.push(key);
                    }
                }
            }
        }
    }

    /// The columns, when all records were seen.
    pub fn finish(self) -> Result<Vec<String>, Fault> {
        if self.format == Format::JsonLines && self.objects == 0 {
            return Err(not_text(format!("none of the first {} lines is a JSON object", self.records)));
        }
        if self.names.is_empty() {
            return Err(invalid("the records have no columns".to_string()));
        }
        check_count(self.names.len())?;
        Ok(self.names)
    }
}

fn check_count(columns: usize) -> Result<(), Fault> {
    if columns > COLUMNS_MAX {
        return Err(invalid(format!("there are {columns} columns or more, and at most {COLUMNS_MAX} are allowed")));
    }
    Ok(())
}

/// A telephone number where the name of a column should be: there is no header, and the first recipient would be lost.
fn looks_like_a_number(name: &str) -> bool {
    name.bytes().filter(u8::is_ascii_digit).count() >= 7
        && name.bytes().all(|byte| byte.is_ascii_digit() || b" +-()./".contains(&byte))
}

fn invalid(context: String) -> Fault {
    Fault::new(Code::InputInvalid, context)
}

fn not_text(context: String) -> Fault {
    Fault::new(Code::SourceNotText, context)
}
