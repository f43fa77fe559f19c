//! The whole preparation over the embedded store: a CSV file is planned, read, turned into packs that are durable, and sealed.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use smsfleet::adapters::embedded::{EmbeddedStore, StoreOptions};
use smsfleet::adapters::memory::tallies::MemoryTallies;
use smsfleet::adapters::source::ListSource;
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::model::account::Capabilities;
use smsfleet::model::batch::{BatchRow, Command, SmsBatch};
use smsfleet::model::id::{BatchId, LaneKey, RangeKey, WorkerId};
use smsfleet::model::lane::lanes_for;
use smsfleet::model::limits::RANGE_RECORDS;
use smsfleet::model::record::RangeRow;
use smsfleet::model::state::StepEvent;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::World;
use smsfleet::ports::source::{Source, SourceSpec};
use smsfleet::prepare::range::prepare_range;
use smsfleet::prepare::seal::seal_lanes;
use smsfleet::prepare::tools::{End, Settings, Tools};
use tokio_util::sync::CancellationToken;

const RECORDS: u64 = 1_000_000;
const TASKS: usize = 2;

/// Prints the figures.
pub fn run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = folder.path().join("list.csv");
    let bytes = write_list(&list);
    println!("prepare: {RECORDS} records ({} MB of CSV) to sealed packs on disk, {TASKS} tasks, all checks on", bytes >> 20);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(TASKS).enable_all().build().expect("a runtime");
    runtime.block_on(prepare(folder.path(), &list));
}

async fn prepare(folder: &Path, list: &Path) {
    let store = EmbeddedStore::open(&folder.join("data"), StoreOptions::default()).await.expect("a store");
    let stores = store.stores();
    let source = Arc::new(ListSource::new(store.spool()));
    let request = SmsBatch { table_name: list.display().to_string(), ..super::batch(super::PLAIN) };

    let (began, busy) = (Instant::now(), cpu_seconds());
    let spec = SourceSpec { table_name: request.table_name.clone(), ..SourceSpec::default() };
    let plan = source.plan(&spec, RANGE_RECORDS).await.expect("a plan");
    let now = Timestamp(0);
    let created = BatchRow::created(request, String::new(), now);
    let mut row =
        created.command(Command::EntryProcess, now).and_then(|row| row.after(StepEvent::Start, None, now)).expect("running");
    row.fingerprint = Some(plan.fingerprint.clone());
    row.columns = plan.columns.clone();
    row.dialect = plan.dialect.clone();
    row.records = plan.records;
    row.ranges = plan.ranges.len() as u32;
    row.lanes = lanes_for(plan.records, row.batch.min_recipients_per_lane);
    for (range, plan) in plan.ranges.iter().enumerate() {
        let key = RangeKey { batch: BatchId(1), range: range as u32 };
        stores.ranges.insert(key, &RangeRow::planned(plan.clone()), 1).await.expect("a range");
    }
    stores.batches.insert(BatchId(1), &row, 1).await.expect("a batch");
    let planned = began.elapsed();

    let world = World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_system()) };
    let (accounts, tallies) = (Arc::new(|_: &str| Some(Capabilities::default())), Arc::new(MemoryTallies::new()));
    let tools = Arc::new(Tools::new(&stores, world, source, accounts, tallies, WorkerId(1), Settings::default()));
    let next = Arc::new(AtomicU32::new(0));
    let (task_code, ranges, lanes) = (row.task_code(), row.ranges, row.lanes);
    let read = |tools: Arc<Tools>, next: Arc<AtomicU32>| async move {
        loop {
            let range = next.fetch_add(1, Ordering::Relaxed);
            if range >= ranges {
                return;
            }
            assert_eq!(prepare_range(&tools, task_code, range, None, &CancellationToken::new()).await, Ok(End::Done));
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(read(tools.clone(), next.clone()))).collect();
    for task in tasks {
        task.await.expect("it ends");
    }
    let prepared = began.elapsed();

    let half = (lanes / 2) as u8;
    let last = (lanes - 1) as u8;
    let seal = |from, to, tools: Arc<Tools>| async move {
        assert_eq!(seal_lanes(&tools, task_code, from, to, &CancellationToken::new()).await, Ok(End::Done));
    };
    let tasks = [tokio::spawn(seal(0, half - 1, tools.clone())), tokio::spawn(seal(half, last, tools.clone()))];
    for task in tasks {
        task.await.expect("it ends");
    }
    let sealed = began.elapsed();
    let busy = cpu_seconds() - busy;

    let mut recipients = 0;
    for lane in 0..=last {
        let manifest = stores.manifests.get(LaneKey { batch: BatchId(1), lane }).await.expect("read").expect("sealed");
        recipients += manifest.totals.recipients;
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "  planned {:>6.0} ms, read and packed {:>6.0} ms, sealed {:>5.0} ms",
        milliseconds(planned),
        milliseconds(prepared - planned),
        milliseconds(sealed - prepared)
    );
    println!("  {recipients} recipients, {:>9.0} records/s from plan to seal", RECORDS as f64 / sealed.as_secs_f64());
    println!(
        "  {:>9.0} records/s read and packed; peak memory {} MB",
        RECORDS as f64 / (prepared - planned).as_secs_f64(),
        peak_megabytes()
    );
    println!("  {:>9.2} µs of processor time a record, all threads, from plan to seal", busy * 1e6 / RECORDS as f64);
    store.close();
}

/// Processor time of this process so far, in its own and the kernel's work (Linux; ticks of 10 ms): what a busy machine does
/// not change much.
fn cpu_seconds() -> f64 {
    let status = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = status.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) as f64 / 100.0
}

fn write_list(path: &Path) -> u64 {
    let mut file = BufWriter::new(std::fs::File::create(path).expect("a file"));
    writeln!(file, "{}", super::COLUMNS.join(",")).expect("written");
    for n in 0..RECORDS {
        writeln!(file, "{}", super::fields(n).join(",")).expect("written");
    }
    file.into_inner().expect("written").metadata().expect("a size").len()
}

/// The most memory that this process ever held (Linux).
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
