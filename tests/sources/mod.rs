//! Sources: files as people really have them.

mod files;
mod forms;
mod whole;

use std::path::{Path, PathBuf};

use smsfleet::adapters::source::ListSource;
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::record::{Record, SourcePlan};
use smsfleet::ports::source::{Source, SourceSpec};

/// A folder with one list in it, and a source that spools beside it.
struct Place {
    folder: tempfile::TempDir,
    source: ListSource,
    spec: SourceSpec,
}

impl Place {
    fn new(bytes: &[u8], dialect: &str) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let source = ListSource::new(folder.path().join("spool"));
        let path = folder.path().join("list");
        std::fs::write(&path, bytes).expect("the list is written");
        let spec = SourceSpec { table_name: path.display().to_string(), dialect: dialect.to_string() };
        Place { folder, source, spec }
    }

    fn list(&self) -> PathBuf {
        PathBuf::from(&self.spec.table_name)
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    async fn plan(&self, range_records: u32) -> Result<SourcePlan, Fault> {
        self.source.plan(&self.spec, range_records).await
    }

    /// The records of one range, read `limit` at a time.
    async fn read(&self, plan: &SourcePlan, range: usize, limit: usize) -> Result<Vec<Record>, Fault> {
        let mut reader = self.source.open(&self.spec, plan, &plan.ranges[range]).await?;
        let mut records = vec![];
        loop {
            let more = reader.read(limit).await?;
            assert!(more.len() <= limit);
            if more.is_empty() {
                assert_eq!(reader.read(limit).await, Ok(vec![]), "the end stays the end");
                return Ok(records);
            }
            records.extend(more);
        }
    }

    /// The records of all ranges, read out of order, in order.
    async fn read_all(&self, plan: &SourcePlan, limit: usize) -> Result<Vec<Record>, Fault> {
        let mut records = vec![];
        for range in (0..plan.ranges.len()).rev() {
            let found = self.read(plan, range, limit).await?;
            assert_eq!(found.len() as u64, plan.ranges[range].records);
            assert_eq!(found.first().map(|first| first.record), Some(plan.ranges[range].first_record));
            records.extend(found);
        }
        records.sort_by_key(|record| record.record);
        assert!(records.iter().enumerate().all(|(n, record)| record.record == n as u64), "no record twice, none missing");
        assert_eq!(records.len() as u64, plan.records);
        Ok(records)
    }
}

/// A record as `line: fields` or `line: code`, for tables of expectations.
fn shown(record: &Record) -> String {
    match &record.fields {
        Ok(fields) => format!("{}: {}", record.line, fields.join("|")),
        Err(fault) => format!("{}: {} {}", record.line, fault.code, fault.detail),
    }
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, Fault>, code: Code, says: &str) {
    let fault = result.expect_err("a fault");
    assert!(fault.code == code && fault.context.contains(says), "wanted {code} with \"{says}\", got {fault}");
}

fn files_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
