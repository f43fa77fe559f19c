//! Lists of recipients: planned and read as a preparer does it, from a file, whole and by ranges.

use std::path::PathBuf;

use smsfleet::adapters::source::ListSource;
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::limits::{COLUMN_NAMES_BYTES_MAX, COLUMNS_MAX, RECORD_BYTES_MAX};
use smsfleet::model::record::{Fingerprint, RangePlan, Record, SourcePlan};
use smsfleet::ports::source::{Source, SourceSpec};

use super::input::Input;
use super::is_reason;

/// What a compressed or recoded list may expand to here.
const EXPANDED_MAX: u64 = 1 << 20;

/// Records of CSV.
pub fn csv(input: &[u8]) -> bool {
    list(input, "format=csv")
}

/// JSON Lines.
pub fn json_lines(input: &[u8]) -> bool {
    list(input, "format=jsonl")
}

/// A list of which nothing is known: its compression, encoding, format and delimiter are found out.
pub fn lists(input: &[u8]) -> bool {
    list(input, "")
}

/// A plan out of the store (dialect, note of a folder's files, place of a range) over a list that is there.
pub fn plans(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (dialect, list) = (input.line(), b"phone,name\n4915112345678,\"a\nb\"\n4915112345679,c\n");
    let mut far = || u64::from(input.number()) << 32 | u64::from(input.number());
    let place = (far(), far(), far(), far(), far());
    PLACE.with(|there| {
        std::fs::write(there.path(), list).expect("the list is written");
        let whole = there.plan("format=csv", 10).expect("it is a list");
        let name = &there.spec("").table_name;
        // A note is read when the list is another than the one that was planned.
        let other = there.runtime.block_on(there.source.unchanged(name, &Fingerprint::default(), &dialect));
        assert_eq!(refused(&other.expect_err("its size is another")), Code::SourceChanged);
        let (from, to, records, first_record, first_line) = place;
        let range = RangePlan { from, to, records, first_record, first_line, ..whole.ranges[0].clone() };
        let read = there.read(&SourcePlan { dialect: dialect.clone(), ..whole.clone() }, &range);
        if let Err(fault) = &read {
            refused(fault);
        }
        // A range that is the planned one, in whatever words its dialect is put.
        match there.read(&SourcePlan { dialect, ..whole.clone() }, &whole.ranges[0]) {
            Ok(records) => assert!(records.len() <= list.len()),
            Err(fault) => {
                refused(&fault);
            }
        }
        there.clear();
        read.is_ok()
    })
}

fn list(input: &[u8], dialect: &str) -> bool {
    PLACE.with(|place| {
        std::fs::write(place.path(), input).expect("the list is written");
        let read = place.plan(dialect, u32::MAX).map(|plan| {
            let whole = place.read_all(&plan);
            check(&plan, &whole);
            // Records do not depend on where ranges begin.
            let some = u32::try_from(plan.records / 3 + 1).unwrap_or(u32::MAX);
            let by_ranges = place.plan(dialect, some).expect("it was planned a moment ago");
            assert_eq!(place.read_all(&by_ranges), whole);
            assert_eq!((by_ranges.columns, by_ranges.records), (plan.columns, plan.records));
        });
        place.clear();
        match read {
            Ok(()) => true,
            Err(fault) => {
                refused(&fault);
                false
            }
        }
    })
}

fn check(plan: &SourcePlan, records: &[Record]) {
    assert!(plan.columns.len() <= COLUMNS_MAX && !plan.columns.is_empty());
    assert!(plan.columns.iter().map(String::len).sum::<usize>() <= COLUMN_NAMES_BYTES_MAX);
    assert_eq!(plan.records, records.len() as u64);
    for (at, record) in records.iter().enumerate() {
        assert_eq!(record.record, at as u64);
        match &record.fields {
            Ok(fields) => {
                assert_eq!(fields.len(), plan.columns.len());
                assert!(fields.iter().map(String::len).sum::<usize>() <= RECORD_BYTES_MAX);
            }
            Err(fault) => {
                assert!([Code::RowNotText, Code::RowMalformed, Code::RowTooLarge].contains(&fault.code), "{fault:?}");
                assert!(is_reason(&fault.detail) || fault.code == Code::RowMalformed, "{fault:?}");
            }
        }
    }
}

/// A list that is refused says so with a code that is about lists.
fn refused(fault: &Fault) -> Code {
    use Code::{InputInvalid, SourceBroken, SourceChanged, SourceEmpty, SourceNotText};
    let known = [InputInvalid, SourceBroken, SourceChanged, SourceEmpty, SourceNotText];
    assert!(known.contains(&fault.code), "{fault:?}");
    assert!(!fault.context.is_empty());
    fault.code
}

thread_local! {
    static PLACE: Place = Place::new();
}

/// A list in a folder, and a source that reads it.
struct Place {
    folder: tempfile::TempDir,
    source: ListSource,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("spool")).expect("a folder in it");
        let source = ListSource::new(folder.path().join("spool")).with_expanded_max(EXPANDED_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Place { folder, source, runtime }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("list")
    }

    fn spec(&self, dialect: &str) -> SourceSpec {
        let table_name = self.path().display().to_string();
        SourceSpec { table_name, dialect: dialect.to_owned(), needed: vec![] }
    }

    fn plan(&self, dialect: &str, range_records: u32) -> Result<SourcePlan, Fault> {
        self.runtime.block_on(self.source.plan(&self.spec(dialect), range_records))
    }

    fn read(&self, plan: &SourcePlan, range: &RangePlan) -> Result<Vec<Record>, Fault> {
        self.runtime.block_on(async {
            let (mut records, mut reader) = (vec![], self.source.open(&self.spec(""), plan, range).await?);
            loop {
                let some = reader.read(7).await?;
                if some.is_empty() {
                    return Ok(records);
                }
                records.extend(some);
            }
        })
    }

    fn read_all(&self, plan: &SourcePlan) -> Vec<Record> {
        plan.ranges.iter().flat_map(|range| self.read(plan, range).expect("the range is as it was planned")).collect()
    }

    /// Takes away what was copied.
    fn clear(&self) {
        for copy in std::fs::read_dir(self.folder.path().join("spool")).expect("a folder") {
            let copy = copy.expect("an entry").path();
            assert!(copy.metadata().expect("a copy").len() <= EXPANDED_MAX, "a copy is no larger than is allowed");
            std::fs::remove_file(copy).expect("it is ours");
        }
    }
}
