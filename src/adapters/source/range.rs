//! Reading one range: its bytes, its records, and at the end the proof that they are the planned ones.

use super::dialect::{Dialect, Format, encoding_name};
use super::fields::CsvFields;
use super::json_fields::{JsonFields, Unusable};
use super::part::Input;
use super::plan::framing;
use super::records::{Cut, Raw, Records};
use super::{blocking, cannot_read, changed};
use crate::model::code::{Code, Fault};
use crate::model::limits::{READ_BYTES_MAX, RECORD_BYTES_MAX};
use crate::model::record::{RangePlan, Record, RowFault, SourcePlan};
use crate::ports::source::RangeReader;

/// The records of one range. Reading blocks.
pub(super) struct RangeRecords {
    name: String,
    records: Records<Input>,
    rows: Rows,
    range: RangePlan,
    count: u64,
    checked: bool,
}

impl RangeRecords {
    /// The records of `input`, which are the bytes of the range. `name` is what faults call the file.
    pub fn new(input: Input, name: &str, dialect: &Dialect, plan: &SourcePlan, range: &RangePlan) -> RangeRecords {
        let parser = match dialect.format {
            Format::Csv => Parser::Csv(Box::new(CsvFields::new(dialect.delimiter))),
            Format::JsonLines => Parser::Json(JsonFields::new(&plan.columns)),
        };
        let end = match &range.part {
            Some(part) => part.end,
            None => plan.ranges.last().map_or(range.to, |last| last.to),
        };
        RangeRecords {
            name: name.to_string(),
            records: Records::new(input, framing(dialect), range.from, range.first_line),
            rows: Rows { parser, columns: plan.columns.len(), encoding: encoding_name(dialect.encoding), end },
            range: range.clone(),
            count: 0,
            checked: false,
        }
    }

    fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        let left = usize::try_from(self.range.records - self.count.min(self.range.records)).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(limit.min(left).min(4_096));
        let (begin, mut bytes) = (self.records.offset(), 0);
        // What is passed over takes no memory, but time.
        while records.len() < limit.max(1) && bytes.max(self.records.offset() - begin) < READ_BYTES_MAX as u64 {
            match self.records.next().map_err(|error| cannot_read(&self.name, &error))? {
                Some(raw) => {
                    let (line, fields) = (raw.line, self.rows.fields(&raw));
                    let record = Record { record: self.range.first_record + self.count, line, fields };
                    bytes += record.bytes() as u64;
                    records.push(record);
                    self.count += 1;
                }
                None => {
                    self.check()?;
                    break;
                }
            }
        }
        Ok(records)
    }

    /// At the end of the range: whether its bytes are those that were planned.
    fn check(&mut self) -> Result<(), Fault> {
        if self.checked {
            return Ok(());
        }
        let found = (self.records.offset(), self.records.take_hash(), self.count);
        if found != (self.range.to, self.range.content, self.range.records) {
            return Err(changed(&self.name));
        }
        self.checked = true;
        Ok(())
    }
}

/// A range of a local file.
///
/// Reading blocks: a chunk of 256 KiB at a time from a local file that was read a moment ago for the plan, tens of
/// microseconds from the page cache, and a few megabytes in one read, behind which its reader lets others have their turn.
/// Handing each chunk to another thread would cost more than that, and would make a simulated run depend on the threads' order.
pub(super) struct LocalRange(pub RangeRecords);

#[async_trait::async_trait]
impl RangeReader for LocalRange {
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        self.0.read(limit)
    }
}

/// A range of an object. It waits for the network, and so reads on a thread that may block.
pub(super) struct FetchedRange(Option<Box<RangeRecords>>);

impl FetchedRange {
    /// Reads these records.
    pub fn new(records: RangeRecords) -> FetchedRange {
        FetchedRange(Some(Box::new(records)))
    }
}

#[async_trait::async_trait]
impl RangeReader for FetchedRange {
    async fn read(&mut self, limit: usize) -> Result<Vec<Record>, Fault> {
        let gone = || Fault::new(Code::Internal, "a range was read again after its reading was given up");
        let mut records = self.0.take().ok_or_else(gone)?;
        let (records, found) = blocking(move || {
            let found = records.read(limit);
            Ok((records, found))
        })
        .await?;
        self.0 = Some(records);
        found
    }
}

/// Makes fields of records.
struct Rows {
    parser: Parser,
    columns: usize,
    encoding: String,
    /// Where the whole text ends.
    end: u64,
}

enum Parser {
    Csv(Box<CsvFields>),
    Json(JsonFields),
}

impl Rows {
    fn fields(&mut self, raw: &Raw<'_>) -> Result<Vec<String>, RowFault> {
        let bytes = raw.bytes.map_err(|cut| self.cut(cut, raw.offset))?;
        if memchr::memchr(0, bytes).is_some() {
            return Err(row_fault(Code::RowNotText, "has a NUL byte".to_string()));
        }
        let text =
            std::str::from_utf8(bytes).map_err(|_| row_fault(Code::RowNotText, format!("is not valid {}", self.encoding)))?;
        match &mut self.parser {
            Parser::Csv(fields) => fields.split(text, raw.quoted, self.columns).map_err(|found| {
                let field = if found == 1 { "field" } else { "fields" };
                row_fault(Code::RowMalformed, format!("has {found} {field}, the header has {}", self.columns))
            }),
            Parser::Json(fields) => fields.values(text).map_err(|Unusable(why)| row_fault(Code::RowMalformed, why)),
        }
    }

    /// A quote that is open at the end of a range was open for more than a megabyte, unless the text ends before that: so the
    /// reason does not depend on where the ranges end.
    fn cut(&self, cut: Cut, offset: u64) -> RowFault {
        if cut == Cut::TooLong || offset + (RECORD_BYTES_MAX as u64) < self.end {
            row_fault(Code::RowTooLarge, format!("is longer than {RECORD_BYTES_MAX} bytes"))
        } else {
            row_fault(Code::RowMalformed, "a quote is opened and never closed".to_string())
        }
    }
}

fn row_fault(code: Code, detail: String) -> RowFault {
    RowFault { code, detail }
}
