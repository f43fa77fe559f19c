//! The names of a source's columns: the header of CSV, the keys of the first records of JSON Lines. They go into the batch's row,
//! which is read whole wherever many batches are looked at, so that there is no more of them than [`Names`] takes.

use std::collections::HashSet;

use super::detect;
use super::dialect::{Dialect, Format};
use super::fields::{CsvFields, csv_field_count};
use super::json_fields;
use super::records::Raw;
use crate::model::code::{Code, Fault};
use crate::model::limits::{COLUMN_NAMES_BYTES_MAX, COLUMNS_MAX, NAME_BYTES_MAX, within};

/// Records of JSON Lines whose keys become columns. A key that comes up later is no column and is left out.
const KEY_RECORDS: u32 = 1_000;

/// Names of columns in the order in which they were found, each once, within what a batch's row may hold of them.
#[derive(Default)]
pub(super) struct Names {
    all: Vec<String>,
    known: HashSet<String>,
    bytes: usize,
}

impl Names {
    /// These names.
    ///
    /// # Errors
    /// As for [`Names::add`].
    pub fn of(names: &[String]) -> Result<Names, Fault> {
        let mut found = Names::default();
        names.iter().try_for_each(|name| found.add(name).map(|_| ()))?;
        Ok(found)
    }

    /// Takes a name, and says whether it is a new one.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] for a name that is too long, or one too many.
    pub fn add(&mut self, name: &str) -> Result<bool, Fault> {
        if self.has(name) {
            return Ok(false);
        }
        within("the name of a column", name, NAME_BYTES_MAX)?;
        check_count(self.all.len() + 1)?;
        self.bytes += name.len();
        if self.bytes > COLUMN_NAMES_BYTES_MAX {
            return Err(invalid(format!("the names of all columns have at most {COLUMN_NAMES_BYTES_MAX} bytes together")));
        }
        self.all.push(name.to_string());
        self.known.insert(name.to_string());
        Ok(true)
    }

    /// Whether it is one of them.
    pub fn has(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// All of them.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// All of them, to keep.
    pub fn into_all(self) -> Vec<String> {
        self.all
    }
}

/// Gathers the columns while the planning pass goes through the records.
pub(super) struct Columns {
    format: Format,
    delimiter: u8,
    header: Header,
    names: Names,
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
        Columns { format: dialect.format, delimiter: dialect.delimiter, header, names: Names::default(), records: 0, objects: 0 }
    }

    /// Whether the next record belongs to [`Columns::header`].
    pub fn wants_header(&self) -> bool {
        matches!(self.header, Header::Awaited { .. })
    }

    /// The names so far.
    pub fn names(&self) -> &[String] {
        self.names.all()
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
            if !self.names.add(name)? {
                return Err(invalid(format!("the header names the column \"{name}\" twice")));
            }
        }
        self.header = Header::Read;
        Ok(())
    }

    /// Learns from a record what there is to learn.
    pub fn record(&mut self, raw: &Raw<'_>) -> Result<(), Fault> {
        if self.header == Header::Read || self.records >= KEY_RECORDS {
            return Ok(());
        }
        let Ok(bytes) = raw.bytes else { return Ok(()) };
        match self.format {
            // The first record says how many columns there are.
            Format::Csv => {
                let count = csv_field_count(bytes, raw.quoted, self.delimiter);
                check_count(count)?;
                for column in 1..=count {
                    self.names.add(&column.to_string())?;
                }
                self.records = KEY_RECORDS;
            }
            Format::JsonLines => {
                self.records += 1;
                let Some(keys) = std::str::from_utf8(bytes).ok().and_then(json_fields::keys) else {
                    return Ok(());
                };
                self.objects += 1;
                for key in keys {
                    self.names.add(&key)?;
                }
            }
        }
        Ok(())
    }

    /// The columns, when all records were seen.
    pub fn finish(self) -> Result<Vec<String>, Fault> {
        if self.format == Format::JsonLines && self.objects == 0 {
            return Err(not_text(format!("none of the first {} lines is a JSON object", self.records)));
        }
        if self.names.all().is_empty() {
            return Err(invalid("the records have no columns".to_string()));
        }
        Ok(self.names.into_all())
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
