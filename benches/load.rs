//! Everything at once: 50 batches of mixed size and priority, 200 callbacks of receipts in flight, and people who read.
//!
//! It ends with an error when anybody is lost or sent to twice, and when a receipt is not counted, or counted twice. Times are only
//! printed, unless `SMSFLEET_BENCH_P99_MS=50` makes a slower look an error too, as `tests/campaign --load` does: a time depends on
//! what else the machine does, so who asks for a limit gives it a machine of its own.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use smsfleet::batch::SmsBatchService;
use smsfleet::model::access::{ALL_TENANTS, Role};
use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::BatchId;
use smsfleet::model::outcome::Outcome;
use smsfleet::roles::config::Config;
use smsfleet::roles::surface::Holding;
use smsfleet::simulator::{Delay, Simulator, SimulatorConfig};
use tokio_util::sync::CancellationToken;

use crate::service::{connect, p99, spread};
use crate::support::{People, runtime, wait};

/// Shares of the recipients that the batches have, in thousandths: a few large ones and many small ones.
const SHARES: [(u64, usize); 4] = [(200, 1), (80, 4), (20, 15), (6, 30)];
/// Callbacks in flight.
const CALLBACKS: u32 = 200;
/// Receipts that are called back while the batches are sent; a tenth of them comes twice.
const CALLED: u64 = 100_000;
/// Milliseconds between a message and its receipt.
const LATER: u32 = 4_000;
/// Those who read.
const READERS: usize = 5;
/// What is read, the simplest first, and whether somebody waits for it. Nobody waits for the last line of an export, which lasts as
/// long as the list is: it is there to be in the way of the others.
const READS: [(&str, bool); 5] = [
    ("one batch", true),
    ("its progress", true),
    ("the list of 50 batches", true),
    ("a batch's people: first lines", true),
    ("all 12,000 of a batch, as an export", false),
];
/// What 99 of 100 looks stay below, in milliseconds, when nobody says otherwise.
const P99_MS: u64 = 50;
/// The limit above which a look is an error.
const LIMIT: &str = "SMSFLEET_BENCH_P99_MS";

/// Runs it with so many recipients in all.
pub fn run(total: u64) {
    // A limit that cannot be read is no reason to go without one, and is said before minutes have passed.
    let asked = std::env::var(LIMIT).ok();
    let asked = asked.map(|ms| ms.parse::<u64>().unwrap_or_else(|_| panic!("{LIMIT} is a number of milliseconds, not {ms}")));
    let limit = Duration::from_millis(asked.unwrap_or(P99_MS));
    let mut slow = vec![];
    runtime().block_on(async {
        let mut local = SimulatorConfig::local();
        local.receipts.twice_share = 0.1;
        local.receipts.delay = Delay::always(LATER, LATER);
        local.http.callback_connections = CALLBACKS;
        let simulator = Simulator::start(local).await.expect("the simulator starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let holding = Holding::start(&config(folder.path(), &simulator)).await.expect("the service starts");
        let at = holding.address.expect("it listens");
        let made = holding.surface.keys.create("bench", Role::Admin, ALL_TENANTS, None).await.expect("a key");
        let service = &holding.embedded.service;

        let called =
            prepared(service, folder.path(), "called", (total, CALLED), |batch| batch.provider_type = "web".into()).await;

        let (mut batches, mut from) = (vec![], 0);
        let began = Instant::now();
        for (share, times) in SHARES {
            for _ in 0..times {
                let (n, size) = (batches.len(), total * share / 1_000);
                let of = |batch: &mut SmsBatch| {
                    (batch.tenant, batch.priority) = (["a", "b", "c"][n % 3].into(), (n % 10) as u8);
                };
                let id = begun(service, folder.path(), &format!("batch {n}"), (from, size), of).await;
                batches.push((id, size));
                from += size;
            }
        }
        for (id, _) in &batches {
            sealed(service, *id).await;
        }
        println!("  {} batches of {from} recipients prepared in {:.1?}", batches.len(), began.elapsed());

        // Sent first: its receipts come when the others are being sent.
        simulator.set_callback(&format!("http://{at}/v1/receipts/web"), "push").expect("an address");
        service.start(called, None).await.expect("started");
        ended(service, called).await;
        let began = Instant::now();
        for (id, _) in &batches {
            service.start(*id, None).await.expect("started");
        }
        let (over, people) = (CancellationToken::new(), People::start());
        let ids: Arc<Vec<String>> = Arc::new(batches.iter().map(|(id, _)| id.to_string()).collect());
        let reading = |over: &CancellationToken| {
            let one = |reader| people.spawn(read(at, made.key.clone(), ids.clone(), reader, over.clone()));
            (0..READERS).map(one).collect()
        };
        let readers = reading(&over);
        let calling = people.spawn(called_back(at, made.key.clone(), called.to_string(), began));
        for (id, _) in &batches {
            ended(service, *id).await;
        }
        let took = began.elapsed();
        over.cancel();
        println!("  sent in {took:.1?}: {:.0} messages/s", from as f64 / took.as_secs_f64());
        let reads = of_all(readers).await;
        slow.extend(print(reads, "while sending", limit));
        let called_in = calling.await.expect("it does not panic");
        println!("  {CALLED} receipts by {CALLBACKS} callbacks at once: {:.0}/s", CALLED as f64 / called_in.as_secs_f64());

        let mut accepted = 0;
        for (id, size) in batches.into_iter().chain([(called, CALLED)]) {
            let (row, _) = wait(service, id, |row| row.settlement.as_ref().is_some_and(|settlement| settlement.settled)).await;
            let settlement = row.settlement.expect("it is settled");
            assert_eq!((settlement.of(Outcome::Accepted), settlement.unaccounted()), (size, 0), "{settlement:?}");
            if id == called {
                assert_eq!(settlement.delivery_num, CALLED, "a receipt counts once");
            }
            accepted += size;
        }
        let over = CancellationToken::new();
        let readers = reading(&over);
        tokio::time::sleep(Duration::from_secs(3)).await;
        over.cancel();
        slow.extend(print(of_all(readers).await, "when nothing is sent", limit));
        holding.stop().await;
        let report = simulator.stop().await;
        assert_eq!((report.numbers, report.repeated_numbers, report.incomplete_messages), (accepted, 0, 0), "{report:?}");
        assert!(report.receipts.acknowledged >= CALLED && report.receipts.unacknowledged == 0, "{:?}", report.receipts);
        let receipts = report.receipts;
        println!("  {accepted} recipients, each accepted once; {} acknowledgements of {CALLED} receipts", receipts.acknowledged);
    });
    if asked.is_some() && !slow.is_empty() {
        eprintln!("  too slow: {}", slow.join("; "));
        std::process::exit(1);
    }
}

type Readers = Vec<tokio::task::JoinHandle<Vec<Vec<Duration>>>>;

/// What all readers measured.
async fn of_all(readers: Readers) -> Vec<Vec<Duration>> {
    let mut reads: Vec<Vec<Duration>> = vec![vec![]; READS.len()];
    for reader in readers {
        let of = reader.await.expect("it does not panic");
        reads.iter_mut().zip(of).for_each(|(all, mut more)| all.append(&mut more));
    }
    reads
}

/// Prints how long each look took, and gives back those that are over the limit, or that nobody had: which proves nothing.
fn print(reads: Vec<Vec<Duration>>, when: &str, limit: Duration) -> Vec<String> {
    let mut slow = vec![];
    for ((what, waits), mut took) in READS.into_iter().zip(reads) {
        if took.is_empty() {
            slow.push(format!("nobody read {what} {when}"));
            continue;
        }
        took.sort_unstable();
        let p99 = p99(&took);
        let over = if waits && p99 > limit { format!(": over {} ms", limit.as_millis()) } else { String::new() };
        if !over.is_empty() {
            slow.push(format!("{what} {when}, p99 {p99:.1?}{over}"));
        }
        println!("  read {when}, {what} ({} times): {}{over}", took.len(), spread(took));
    }
    slow
}

/// One account over SMPP whose receipts nobody wants, one over HTTP whose receipts are called back.
fn config(folder: &Path, simulator: &Simulator) -> Config {
    let smpp = simulator.smpp_addr().expect("it listens").port();
    let http = simulator.http_addr().expect("it listens");
    let text = format!(
        r#"
[serve]
listen = "127.0.0.1:0"
requests_per_second = 1000000
[accounts.sim]
[accounts.sim.receipts]
wanted = false
[accounts.sim.smpp]
port = {smpp}
system_id = "smsfleet"
password = "password"
binds = 4
window = 500
[accounts.web]
protocol = "http"
[accounts.web.capabilities]
long_message = "payload"
[accounts.web.receipts]
one_per_message = true
[accounts.web.http]
url = "http://{http}/messages"
body = '[{{{{items}}}}]'
item = '{{"to":"{{{{number}}}}","text":"{{{{text}}}}","key":"{{{{key}}}}"}}'
batch = 100
[accounts.web.http.answer]
items = ""
id = "/id"
success = {{ pointer = "/status", equals = "accepted" }}
[accounts.web.http.receipts]
token = "push"
id = "/id"
reference = "/key"
number = "/to"
status = "/status"
"#
    );
    let config: Config = toml::from_str(&text).expect("the configuration is right");
    Config { data_dir: folder.join("data"), ..config }
}

/// A list of its own numbers: `size` of them from the `from`-th on.
fn list(folder: &Path, name: &str, (from, size): (u64, u64)) -> PathBuf {
    let path = folder.join(format!("{name}.csv"));
    let mut file = BufWriter::new(std::fs::File::create(&path).expect("a temporary file"));
    writeln!(file, "phone,name,code").expect("written");
    for n in from..from + size {
        writeln!(file, "+8613{n:09},name{n},{:06}", n % 999_983).expect("written");
    }
    file.flush().expect("written");
    path
}

async fn begun(
    service: &SmsBatchService,
    folder: &Path,
    name: &str,
    numbers: (u64, u64),
    change: impl FnOnce(&mut SmsBatch),
) -> BatchId {
    let mut batch = crate::support::batch(&list(folder, name, numbers));
    change(&mut batch);
    let id = service.create(name, batch).await.expect("created").batch;
    service.entry_process(id).await.expect("begun");
    id
}

async fn sealed(service: &SmsBatchService, id: BatchId) {
    let (row, _) = wait(service, id, |row| row.sealed.is_some() || row.step().state.is_final()).await;
    assert!(row.sealed.is_some(), "{:?}", row.step());
}

async fn prepared(
    service: &SmsBatchService,
    folder: &Path,
    name: &str,
    numbers: (u64, u64),
    change: impl FnOnce(&mut SmsBatch),
) -> BatchId {
    let id = begun(service, folder, name, numbers, change).await;
    sealed(service, id).await;
    id
}

async fn ended(service: &SmsBatchService, id: BatchId) {
    let has_ended = |row: &BatchRow| row.sealed.is_some() && row.delivery.state.is_final();
    wait(service, id, has_ended).await;
}

fn request(key: &str, path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("host", "bench").header("authorization", format!("Bearer {key}"));
    request.body(Full::default()).expect("a request")
}

/// Reads a path; how long that took until the last byte, and the body.
async fn get(sender: &mut SendRequest<Full<Bytes>>, key: &str, path: &str) -> (Duration, Bytes) {
    let asked = Instant::now();
    let response = sender.send_request(request(key, path)).await.expect("answered");
    assert_eq!(response.status(), 200, "{path}");
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (asked.elapsed(), body)
}

/// One reader, at the pace of a page that looks again and again. Who looks at the people of a batch reads the first of them and
/// hangs up; the last reader exports, one list after the other.
async fn read(at: SocketAddr, key: String, ids: Arc<Vec<String>>, reader: usize, over: CancellationToken) -> Vec<Vec<Duration>> {
    let (mut sender, mut took) = (connect(at).await, vec![vec![]; READS.len()]);
    let mut n = reader;
    while !over.is_cancelled() {
        let any = &ids[(n * 7) % ids.len()];
        // One of the small batches.
        let people = format!("/v1/batches/{}/recipients?status=accepted", ids[ids.len() - 1 - (n % 20)]);
        n += 1;
        if reader == READERS - 1 {
            took[4].push(get(&mut sender, &key, &people).await.0);
            continue;
        }
        let (kind, path) = match n % 4 {
            0 => (0, format!("/v1/batches/{any}")),
            1 => (1, format!("/v1/batches/{any}/progress")),
            2 => (2, "/v1/batches?limit=50".to_owned()),
            _ => (3, people),
        };
        if kind == 3 {
            let mut another = connect(at).await;
            let asked = Instant::now();
            let response = another.send_request(request(&key, &path)).await.expect("answered");
            // Of a batch that has just begun nobody may be accepted, and nothing comes.
            let _ = response.into_body().frame().await;
            took[kind].push(asked.elapsed());
        } else {
            took[kind].push(get(&mut sender, &key, &path).await.0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took
}

/// Waits until every receipt of a batch has counted; how long that took since `began`.
async fn called_back(at: SocketAddr, key: String, id: String, began: Instant) -> Duration {
    let mut sender = connect(at).await;
    loop {
        let (_, body) = get(&mut sender, &key, &format!("/v1/batches/{id}/progress")).await;
        let progress: serde_json::Value = serde_json::from_slice(&body).expect("an object");
        if progress["delivered"].as_u64().is_some_and(|delivered| delivered >= CALLED) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(600), "{progress}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
