//! Packs into a CQL store: through the ports, against the bare driver in the same run. The driver is measured three times: with
//! rows as the port stores them that are there already, making each such row from its pack as the port has to, and with rows
//! of what the packs hold as it is, not compressed.
//!
//! Needs a server: `SMSFLEET_BENCH_CQL=host:port cargo bench -- cql`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use smsfleet::adapters::embedded::keyed::MarkCell;
use smsfleet::adapters::rows;
use smsfleet::adapters::scylla::config::{Flavour, ScyllaConfig};
use smsfleet::adapters::scylla::{CqlOptions, CqlStore, migrate};
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::id::{BatchId, LaneKey, Msisdn};
use smsfleet::model::pack::{Message, PackKey, SmsDeliveryPack};
use smsfleet::ports::clock::Chance;
use smsfleet::ports::packs::Packs;

use crate::support::runtime;

/// Where the server is.
const SERVER: &str = "SMSFLEET_BENCH_CQL";
/// Rows in flight at the bare driver; a call to the port has as many.
const IN_FLIGHT: usize = 64;
/// Packs of one call, as a preparer hands them over.
const PACKS_OF_CALL: usize = 8;
/// Ranges that are prepared side by side, and calls that each has in flight.
const RANGES: u64 = 2;
const CALLS_AT_ONCE: usize = 4;
/// Recipients of a pack: as a large batch has them, and as a small one.
const RECIPIENTS: [u64; 2] = [1_000, 100];
/// Rounds, taken in turn, so that both sides meet the same neighbours.
const ROUNDS: u32 = 5;

/// Writes `recipients` recipients in packs of each size in each round.
pub fn run(recipients: Option<u64>) {
    let Some(server) = std::env::var(SERVER).ok() else {
        println!("  left out: {SERVER}=host:port names no server");
        return;
    };
    for of_pack in RECIPIENTS {
        runtime().block_on(measure(server.clone(), recipients.unwrap_or(2_000 * of_pack) / of_pack, of_pack));
    }
}

async fn measure(server: String, count: u64, of_pack: u64) {
    let config = ScyllaConfig {
        nodes: vec![server],
        keyspace: format!("b{:016x}", SeededChance::from_system().next()),
        replication: 1,
        flavour: Flavour::Cassandra,
        request_timeout: Duration::from_secs(30),
        ..ScyllaConfig::default()
    };
    migrate(&config).await.expect("the schema is made");
    let chance = Arc::new(SeededChance::from_system());
    let options = CqlOptions::new(Duration::from_secs(80 * 3_600), chance, Arc::new(MarkCell::default()));
    let store = CqlStore::connect(&config, options).await.expect("it connects").stores().packs;
    let bare =
        SessionBuilder::new().known_nodes(&config.nodes).use_keyspace(&config.keyspace, true).build().await.expect("a session");
    let table = "CREATE TABLE bare (k bigint, n bigint, head blob, texts blob, PRIMARY KEY ((k), n))";
    bare.query_unpaged(table, ()).await.expect("a table");
    let made = rows::pack::write(&pack(0, of_pack));
    println!(
        "  {count} packs of {of_pack} recipients a round, {} bytes each, {IN_FLIGHT} in flight",
        made.0.len() + made.1.len()
    );
    let packs: Vec<SmsDeliveryPack> = (0..count.min(500)).map(|n| pack(n, of_pack)).collect();
    let began = Instant::now();
    packs.iter().for_each(|pack| drop(std::hint::black_box(rows::pack::write(pack))));
    println!("  making their bytes: {:.0} µs each, one core", began.elapsed().as_secs_f64() * 1e6 / packs.len() as f64);
    let plain = plain(&pack(0, of_pack));
    let plain_bytes = plain.0.len() + plain.1.len();
    let [mut ported, mut driven, mut working, mut plainly] = [Duration::ZERO; 4];
    for round in 0..ROUNDS {
        ported += through_ports(store.clone(), round, count, of_pack).await;
        driven += by_driver(&bare, 3 * round, vec![made.clone(); count as usize], |row| row).await;
        let packs = (0..count).map(|n| pack(n, of_pack)).collect();
        working += by_driver(&bare, 3 * round + 1, packs, |pack| rows::pack::write(&pack)).await;
        plainly += by_driver(&bare, 3 * round + 2, vec![plain.clone(); count as usize], |row| row).await;
    }
    let rate = |took: Duration| (count * u64::from(ROUNDS)) as f64 / took.as_secs_f64();
    let [ported, driven, working, plainly] = [ported, driven, working, plainly].map(rate);
    let line = |name: &str, rate: f64| println!("  {name:<34} {rate:>9.0} rows/s {:>11.0} recipients/s", rate * of_pack as f64);
    line("ports", ported);
    line("driver, rows ready-made", driven);
    line("driver, rows made from packs", working);
    line(&format!("driver, plain rows of {plain_bytes} bytes"), plainly);
    println!("  ports against them: {:.2}, {:.2}, {:.2}", ported / driven, ported / working, ported / plainly);
    bare.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.expect("it is dropped");
}

/// Two ranges side by side, each with a few calls in flight, as a preparer has them.
async fn through_ports(store: Arc<dyn Packs>, round: u32, count: u64, of_pack: u64) -> Duration {
    let key = |n: u64| PackKey {
        lane: LaneKey { batch: BatchId(u128::from(round)), lane: (n % 128) as u8 },
        range: (n / 100_000) as u32,
        attempt: 1,
        n: n as u32,
    };
    let calls = |range: u64| -> Vec<Vec<(PackKey, SmsDeliveryPack)>> {
        let numbers: Vec<u64> = (0..count).filter(|n| n % RANGES == range).collect();
        numbers.chunks(PACKS_OF_CALL).map(|some| some.iter().map(|n| (key(*n), pack(*n, of_pack))).collect()).collect()
    };
    let ranges: Vec<_> = (0..RANGES).map(calls).collect();
    let began = Instant::now();
    let write = |calls: Vec<Vec<(PackKey, SmsDeliveryPack)>>| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut calls = stream::iter(calls).map(|packs| store.put(packs)).buffer_unordered(CALLS_AT_ONCE);
            while let Some(stored) = calls.next().await {
                stored.expect("they are stored");
            }
        })
    };
    for range in ranges.into_iter().map(write).collect::<Vec<_>>() {
        range.await.expect("no task fails");
    }
    began.elapsed()
}

async fn by_driver<T>(session: &Session, round: u32, rows: Vec<T>, make: impl Fn(T) -> (Vec<u8>, Vec<u8>)) -> Duration {
    let prepared = session.prepare("INSERT INTO bare (k, n, head, texts) VALUES (?, ?, ?, ?)").await.expect("prepared");
    let (prepared, make) = (&prepared, &make);
    let began = Instant::now();
    let write = |(n, row): (usize, T)| async move {
        let (head, texts) = make(row);
        let partition = (i64::from(round) << 32) | (n as i64 % 128);
        session.execute_unpaged(prepared, (partition, n as i64, head, texts)).await
    };
    let mut writes = stream::iter(rows.into_iter().enumerate()).map(write).buffer_unordered(IN_FLIGHT);
    while let Some(stored) = writes.next().await {
        stored.expect("it is stored");
    }
    began.elapsed()
}

/// What a pack holds, not compressed: numbers and records, and the texts.
fn plain(pack: &SmsDeliveryPack) -> (Vec<u8>, Vec<u8>) {
    let head = pack.messages.iter().flat_map(|message| [message.number.0, message.record]).flat_map(u64::to_be_bytes);
    (head.collect(), pack.messages.iter().flat_map(|message| message.body.bytes()).collect())
}

fn pack(first: u64, recipients: u64) -> SmsDeliveryPack {
    let message = |n: u64| Message {
        number: Msisdn(8_613_800_000_000 + first * recipients + n * 7),
        record: first * recipients + n,
        line: first * recipients + n + 2,
        body: format!(
            "Dear name{n}, your parcel {:08x} has arrived. Your pickup code is {:06}.",
            first * 7_919 + n,
            n * 7_919 % 999_983
        ),
        link: None,
        segments: 1,
        ucs2: false,
    };
    SmsDeliveryPack { messages: (0..recipients).map(message).collect() }
}
