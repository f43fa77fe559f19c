//! Sources: lists as people really have them, on this machine and in object stores.

mod addresses;
mod files;
mod folders;
mod forms;
mod servers;
mod tables;
mod uploads;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use smsfleet::adapters::source::{ListSource, ObjectStores, StoreKind};
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::record::{Record, SourcePlan};
use smsfleet::ports::source::{Source, SourceSpec};

/// Where a list lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On this machine.
    Local,
    /// In an object store.
    Object,
}

const KINDS: [Kind; 2] = [Kind::Local, Kind::Object];

/// A folder, here or in an object store, with lists in it, and a source that spools beside it.
struct Place {
    folder: tempfile::TempDir,
    source: ListSource,
    spec: SourceSpec,
    store: Option<Arc<dyn ObjectStore>>,
}

impl Place {
    /// One list on this machine.
    fn new(bytes: &[u8], dialect: &str) -> Place {
        Place::of(Kind::Local, bytes, dialect)
    }

    /// One list.
    fn of(kind: Kind, bytes: &[u8], dialect: &str) -> Place {
        let mut place = Place::empty(kind, dialect);
        place.write("list", bytes);
        place.spec.table_name += "list";
        place
    }

    /// A folder that is one list of several files.
    fn folder(kind: Kind, files: &[(&str, &[u8])]) -> Place {
        let place = Place::empty(kind, "");
        files.iter().for_each(|(name, bytes)| place.write(name, bytes));
        place
    }

    fn empty(kind: Kind, dialect: &str) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let source = ListSource::new(folder.path().join("spool"));
        std::fs::create_dir(folder.path().join("lists")).expect("a folder");
        let (source, table_name, store) = match kind {
            Kind::Local => (source, format!("{}/", folder.path().join("lists").display()), None),
            Kind::Object => {
                let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let stores = ObjectStores::default().with_bucket(StoreKind::S3, "lists", store.clone());
                (source.with_objects(stores), "s3://lists/in/".to_string(), Some(store))
            }
        };
        Place { folder, source, spec: SourceSpec { table_name, dialect: dialect.to_string(), ..SourceSpec::default() }, store }
    }

    /// Writes a file of the folder.
    fn write(&self, name: &str, bytes: &[u8]) {
        match &self.store {
            None => std::fs::write(self.folder.path().join("lists").join(name), bytes).expect("written"),
            Some(store) => {
                let path = format!("in/{name}").into();
                // Memory never waits.
                futures::executor::block_on(store.put(&path, bytes.to_vec().into())).expect("written");
            }
        }
    }

    fn remove(&self, name: &str) {
        match &self.store {
            None => std::fs::remove_file(self.folder.path().join("lists").join(name)).expect("removed"),
            Some(store) => futures::executor::block_on(store.delete(&format!("in/{name}").into())).expect("removed"),
        }
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
