//! What the benches share: a list of recipients, a fleet over a temporary folder, a simulator beside it.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smsfleet::adapters::secret::Secret;
use smsfleet::batch::SmsBatchService;
use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::BatchId;
use smsfleet::roles::config::{AccountConfig, Config};
use smsfleet::roles::embedded::Embedded;

/// A runtime as the binary has it.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts")
}

/// A thread for the people who look: they are other programs, and do not wait behind the fleet's tasks themselves.
pub struct People(Option<tokio::runtime::Runtime>);

impl People {
    pub fn start() -> People {
        People(Some(
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts"),
        ))
    }

    /// Does it on their thread.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.0.as_ref().expect("it is taken when dropped alone").spawn(work)
    }
}

impl Drop for People {
    fn drop(&mut self) {
        self.0.take().expect("once").shutdown_background();
    }
}

/// Writes a list of `recipients` different Chinese mobile numbers with two short columns.
pub fn list(folder: &Path, recipients: u64) -> PathBuf {
    let path = folder.join(format!("list-{recipients}.csv"));
    let mut file = BufWriter::new(std::fs::File::create(&path).expect("a temporary file"));
    writeln!(file, "phone,name,code").expect("written");
    for n in 0..recipients {
        let mixed = (n * 7_919) % 100_000_000;
        let block = n / 100_000_000;
        writeln!(file, "+8613{}{mixed:08},name{n},{:06}", 8 - block, n % 999_983).expect("written");
    }
    file.flush().expect("written");
    path
}

/// A configuration over `folder` with one SMPP account at `port`.
pub fn config(folder: &Path, port: u16, change: impl FnOnce(&mut AccountConfig)) -> Config {
    let mut account = AccountConfig { provider_type: "sim".into(), ..AccountConfig::default() };
    account.smpp.port = port;
    account.smpp.system_id = "smsfleet".into();
    account.smpp.password = Secret::new("password");
    account.smpp.binds = 4;
    account.smpp.window = 500;
    account.receipts.wait = Duration::from_secs(120);
    change(&mut account);
    Config { data_dir: folder.join("data"), accounts: [("sim".to_owned(), account)].into(), ..Config::default() }
}

/// A batch over a list.
pub fn batch(list: &Path) -> SmsBatch {
    let content = "Dear {{name}}, your parcel has arrived at the station. Your pickup code is {{code}}.";
    SmsBatch { tenant: "bench".into(), ..SmsBatch::new(&list.display().to_string(), content, "sim") }
}

/// Waits until a batch is as `until` wants it; returns the row and how long that took.
pub async fn wait(service: &SmsBatchService, id: BatchId, until: impl Fn(&BatchRow) -> bool) -> (BatchRow, Duration) {
    let began = Instant::now();
    loop {
        let row = service.load(id).await.expect("the batch is there").row;
        if until(&row) {
            return (row, began.elapsed());
        }
        if began.elapsed() > Duration::from_secs(600) {
            panic!("it does not come: {:?} {:?} {:?}", row.current_step, row.step(), row.settlement);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A fleet with a sealed batch.
pub struct Bed {
    /// The fleet.
    pub fleet: Embedded,
    /// The batch.
    pub id: BatchId,
    /// How long preparation took.
    pub prepared_in: Duration,
    _folder: tempfile::TempDir,
}

impl Bed {
    /// Prepares and seals a batch of `recipients` for the simulator at `port`.
    pub async fn at(port: u16, recipients: u64, change: impl FnOnce(&mut AccountConfig)) -> Bed {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = list(folder.path(), recipients);
        let fleet = Embedded::start(&config(folder.path(), port, change)).await.expect("the fleet starts");
        let created = fleet.service.create("bench", batch(&list)).await.expect("created");
        let began = Instant::now();
        fleet.service.entry_process(created.batch).await.expect("begun");
        wait(&fleet.service, created.batch, |row| row.sealed.is_some() || row.step().state.is_final()).await;
        Bed { fleet, id: created.batch, prepared_in: began.elapsed(), _folder: folder }
    }
}

/// Resident memory of this process, in megabytes.
pub fn resident_mb() -> u64 {
    status_mb("VmRSS:")
}

/// The most resident memory this process ever had, in megabytes.
pub fn peak_mb() -> u64 {
    status_mb("VmHWM:")
}

fn status_mb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}
