//! The same list as a file and as an object: planned, and read by two ranges at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use smsfleet::adapters::source::{ListSource, ObjectStores, StoreKind};
use smsfleet::ports::source::{Source, SourceSpec};

/// Records, unless another number is given.
const RECORDS: u64 = 2_000_000;
/// Records of a range, as the fleet plans them.
const RANGE_RECORDS: u32 = 100_000;

/// Prints the figures.
pub fn run(size: Option<u64>) {
    let records = size.unwrap_or(RECORDS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows: String = (0..records).map(|n| format!("+4915{n:09},name number {n},{}\n", n % 97)).collect();
    let bytes = format!("phone,name,points\n{rows}").into_bytes();
    println!("{records} records, {} MB of CSV", bytes.len() >> 20);
    std::fs::write(folder.path().join("list.csv"), &bytes).expect("the list is written");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let file = folder.path().join("list.csv").display().to_string();
        measure("file", folder.path(), None, &file, records).await;
        let disk: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a folder"));
        measure("object store on the same disk", folder.path(), Some(disk), "s3://lists/list.csv", records).await;
        let memory = InMemory::new();
        memory.put(&"list.csv".into(), bytes.into()).await.expect("it is written");
        // A store in the same region: some milliseconds to the first byte.
        let wait = std::time::Duration::from_millis(20);
        let config = ThrottleConfig { wait_get_per_call: wait, ..ThrottleConfig::default() };
        let far: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(memory, config));
        measure("object store 20 ms away", folder.path(), Some(far), "s3://lists/list.csv", records).await;
    });
}

async fn measure(what: &str, folder: &Path, store: Option<Arc<dyn ObjectStore>>, table_name: &str, records: u64) {
    let mut source = ListSource::new(folder.join("spool"));
    if let Some(store) = store {
        source = source.with_objects(ObjectStores::default().with_bucket(StoreKind::S3, "lists", store));
    }
    let spec = SourceSpec { table_name: table_name.to_string(), ..SourceSpec::default() };
    let began = Instant::now();
    let plan = source.plan(&spec, RANGE_RECORDS).await.expect("a plan");
    let planned = began.elapsed();
    let (source, plan, spec) = (Arc::new(source), Arc::new(plan), Arc::new(spec));
    let began = Instant::now();
    let readers = (0..2).map(|reader| {
        let (source, plan, spec) = (source.clone(), plan.clone(), spec.clone());
        tokio::spawn(async move {
            let mut read = 0;
            for range in plan.ranges.iter().skip(reader).step_by(2) {
                let mut reader = source.open(&spec, &plan, range).await.expect("the planned list");
                loop {
                    let records = reader.read(1_000).await.expect("records");
                    if records.is_empty() {
                        break;
                    }
                    read += records.len() as u64;
                }
            }
            read
        })
    });
    let read: u64 = futures::future::join_all(readers).await.into_iter().map(|read| read.expect("it ended")).sum();
    assert_eq!(read, records);
    let rate = |took: std::time::Duration| (records as f64 / took.as_secs_f64()).round();
    println!("  {what}: planned {} records/s, read {} records/s", rate(planned), rate(began.elapsed()));
}
