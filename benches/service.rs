//! The service while it sends: reads, watchers, pauses, and receipts by HTTP, over real connections of this machine.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use smsfleet::model::access::{ALL_TENANTS, Role};
use smsfleet::model::account::LongMessage;
use smsfleet::model::batch::Command;
use smsfleet::model::time::Timestamp;
use smsfleet::roles::config::{AccountConfig, Config, Protocol};
use smsfleet::roles::surface::Holding;
use smsfleet::simulator::{Faults, Receipts, Simulator, SimulatorConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{People, batch, config, list, runtime, wait};

/// Watchers of a batch that does nothing.
const WATCHERS: usize = 1_000;
/// Pauses that are measured.
const PAUSES: usize = 60;
/// Receipts that are pushed, one to a request.
const PUSHED: u32 = 30_000;
/// Connections that push them.
const PUSHERS: u32 = 64;

/// Runs all of it; `recipients` is the size of the batch that is sent meanwhile.
pub fn run(recipients: u64) {
    runtime().block_on(async {
        let local = SimulatorConfig {
            count_numbers: false,
            faults: Faults::default(),
            receipts: Receipts::default(),
            ..SimulatorConfig::local()
        };
        let simulator = Simulator::start(local).await.expect("the simulator starts");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = simulator.smpp_addr().expect("it listens").port();
        let mut config: Config = config(folder.path(), port, |account| account.receipts.wanted = false);
        config.serve.listen = Some(([127, 0, 0, 1], 0).into());
        config.serve.requests_per_second = 1_000_000;
        config.accounts.insert("web".into(), web());
        let holding = Holding::start(&config).await.expect("the service starts");
        let made = holding.surface.keys.create("bench", Role::Admin, ALL_TENANTS, None).await.expect("a key");
        let at = holding.address.expect("it listens");
        let service = holding.embedded.service.clone();

        // Receipts are believed about a batch of their account, and about recipients that it has: it has as many as are pushed,
        // in one lane.
        let mut web = batch(&list(folder.path(), u64::from(PUSHED)));
        (web.provider_type, web.min_recipients_per_lane) = ("web".into(), PUSHED);
        let idle = service.create("idle", web).await.expect("created").batch;
        let busy = service.create("busy", batch(&list(folder.path(), recipients))).await.expect("created").batch;
        for id in [idle, busy] {
            service.entry_process(id).await.expect("begun");
            wait(&service, id, |row| row.sealed.is_some()).await;
        }
        service.start(busy, None).await.expect("started");

        let watching = watch(at, &made.key, &idle.to_string()).await;
        println!("  {} watchers of an idle batch are connected", watching.len());
        let reads = read(&People::start(), at, &made.key, &busy.to_string(), Duration::from_secs(8)).await;
        let sending = simulator.report().submits;
        println!("  reads while sending ({sending} messages so far, {} reads): {}", reads.len(), spread(reads));
        let still = watching.into_iter().filter(|stream| stream.peer_addr().is_ok()).count();
        println!("  {still} watchers are still connected");

        let (mut answered, mut last) = (vec![], vec![]);
        for _ in 0..PAUSES {
            let began = Instant::now();
            service.pause(busy, None).await.expect("paused");
            answered.push(began.elapsed());
            last.push(last_submit(&simulator, began).await);
            service.command(busy, Command::Resume).await.expect("resumed");
            let before = simulator.report().submits;
            while simulator.report().submits == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        println!("  pause, {PAUSES} times, until its answer: {}", spread(answered));
        println!("  pause, until the provider saw the last message: {}", spread(last));
        service.pause(busy, None).await.expect("paused");

        let began = Instant::now();
        let took = push(at, &idle.to_string()).await;
        let rate = f64::from(PUSHED) / began.elapsed().as_secs_f64();
        println!("  receipts by HTTP, one a request, {PUSHERS} connections: {rate:.0}/s durable; {}", spread(took));
        let parked = holding.surface.stores.parked.due(Timestamp(i64::MAX), 1).await.expect("read");
        assert!(parked.is_empty(), "a receipt found nobody");
        holding.stop().await;
        simulator.stop().await;
    });
}

/// An account whose receipts come by callback and name our own reference.
fn web() -> AccountConfig {
    let mut account = AccountConfig { provider_type: "web".into(), protocol: Protocol::Http, ..AccountConfig::default() };
    account.capabilities.long_message = LongMessage::Payload;
    account.http.url = "http://127.0.0.1:9/".into();
    account.http.body = r#"{"to":"{{number}}","text":"{{text}}","key":"{{key}}"}"#.into();
    let keys = r#"{"token":"push","id":"/id","reference":"/key","status":"/status"}"#;
    account.http.receipts = Some(serde_json::from_str(keys).expect("it is valid"));
    account
}

/// A connection of its own.
pub async fn connect(at: std::net::SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(at).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn watch(at: std::net::SocketAddr, key: &str, batch: &str) -> Vec<TcpStream> {
    let mut watching = vec![];
    for _ in 0..WATCHERS {
        let mut stream = TcpStream::connect(at).await.expect("connected");
        let head = format!("GET /v1/batches/{batch}/watch HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("asked");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("answered");
        assert_eq!(&first, b"HTTP/1.1 200");
        watching.push(stream);
    }
    watching
}

/// Four readers, each at its own pace.
async fn read(people: &People, at: std::net::SocketAddr, key: &str, batch: &str, during: Duration) -> Vec<Duration> {
    let readers = (0..4).map(|reader| {
        let (key, batch) = (key.to_owned(), batch.to_owned());
        people.spawn(async move {
            let mut sender = connect(at).await;
            let (began, mut took) = (Instant::now(), vec![]);
            while began.elapsed() < during {
                let paths = ["/v1/batches".to_owned(), format!("/v1/batches/{batch}"), format!("/v1/batches/{batch}/progress")];
                let path = &paths[(took.len() + reader) % paths.len()];
                let request = Request::get(path).header("host", "bench").header("authorization", format!("Bearer {key}"));
                let asked = Instant::now();
                let response = sender.send_request(request.body(Full::default()).expect("a request")).await.expect("answered");
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.expect("a whole body");
                took.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            took
        })
    });
    let mut took = vec![];
    for reader in readers.collect::<Vec<_>>() {
        took.extend(reader.await.expect("it does not panic"));
    }
    took
}

/// When the provider saw the last message, counted from `began`: its own count stands still for half a second.
async fn last_submit(simulator: &Simulator, began: Instant) -> Duration {
    let (mut seen, mut at) = (simulator.report().submits, began.elapsed());
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let now = simulator.report().submits;
        if now != seen {
            (seen, at) = (now, began.elapsed());
        } else if began.elapsed() > at + Duration::from_millis(500) {
            return at;
        }
    }
}

async fn push(at: std::net::SocketAddr, batch: &str) -> Vec<Duration> {
    let pushers = (0..PUSHERS).map(|pusher| {
        let batch = batch.to_owned();
        tokio::spawn(async move {
            let mut sender = connect(at).await;
            let mut took = vec![];
            for n in (pusher..PUSHED).step_by(PUSHERS as usize) {
                let body = format!(r#"{{"id":"m{n}","key":"{batch}-0-{n}-0","status":"DELIVRD"}}"#);
                let request = Request::post("/v1/receipts/web?token=push").header("host", "bench");
                let request = request.header("content-type", "application/json").body(Full::from(body)).expect("a request");
                let asked = Instant::now();
                let response = sender.send_request(request).await.expect("answered");
                assert_eq!(response.status(), 200);
                response.into_body().collect().await.expect("a whole body");
                took.push(asked.elapsed());
            }
            took
        })
    });
    let mut took = vec![];
    for pusher in pushers.collect::<Vec<_>>() {
        took.extend(pusher.await.expect("it does not panic"));
    }
    took
}

/// How long things took, in words.
pub fn spread(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    format!("p50 {:.1?}, p99 {:.1?}, most {:.1?}", at(0.5), p99(&took), at(1.0))
}

/// Of what was sorted, all but a hundredth took no longer.
pub fn p99(sorted: &[Duration]) -> Duration {
    sorted[((sorted.len() - 1) as f64 * 0.99) as usize]
}
