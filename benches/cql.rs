//! Packs into a CQL store: through the ports, against the bare driver writing rows of the same size in the same run.
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
const PACKS_OF_CALL: usize = 128;
/// Calls in flight: ranges that are prepared side by side.
const CALLS_AT_ONCE: usize = 2;
/// Rounds, taken in turn, so that both sides meet the same neighbours.
const ROUNDS: u32 = 5;

/// Writes `recipients` recipients in packs of a hundred in each round.
pub fn run(recipients: Option<u64>) {
    let Some(server) = std::env::var(SERVER).ok() else {
        println!("  left out: {SERVER}=host:port names no server");
        return;
    };
    let packs = recipients.unwrap_or(200_000) / 100;
    runtime().block_on(measure(server, packs));
}

async fn measure(server: String, count: u64) {
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
    let (head, texts) = rows::pack::write(&pack(0));
    println!("  {count} packs of 100 recipients a round, {} bytes each, {IN_FLIGHT} in flight", head.len() + texts.len());
    let (mut ported, mut driven) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        ported += through_ports(store.clone(), round, count).await;
        driven += by_driver(&bare, round, count, &head, &texts).await;
    }
    let rate = |took: Duration| (count * u64::from(ROUNDS)) as f64 / took.as_secs_f64();
    let (ported, driven) = (rate(ported), rate(driven));
    println!("  ports  {ported:>9.0} packs/s  {:>11.0} recipients/s", ported * 100.0);
    println!("  driver {driven:>9.0} rows/s   {:>11.0} recipients/s", driven * 100.0);
    println!("  ratio  {:.2}", ported / driven);
    bare.query_unpaged(format!("DROP KEYSPACE {}", config.keyspace), ()).await.expect("it is dropped");
}

/// Calls side by side, as ranges are prepared side by side: each waits for its own packs.
async fn through_ports(store: Arc<dyn Packs>, round: u32, count: u64) -> Duration {
    let key = |n: u64| PackKey {
        lane: LaneKey { batch: BatchId(u128::from(round)), lane: (n % 128) as u8 },
        range: (n / 100_000) as u32,
        attempt: 1,
        n: n as u32,
    };
    let all: Vec<Vec<(PackKey, SmsDeliveryPack)>> = (0..count)
        .collect::<Vec<u64>>()
        .chunks(PACKS_OF_CALL)
        .map(|some| some.iter().map(|n| (key(*n), pack(*n))).collect())
        .collect();
    let began = Instant::now();
    let call = |packs| {
        let store = store.clone();
        tokio::spawn(async move { store.put(packs).await })
    };
    let mut calls = stream::iter(all).map(call).buffer_unordered(CALLS_AT_ONCE);
    while let Some(stored) = calls.next().await {
        stored.expect("no task fails").expect("they are stored");
    }
    began.elapsed()
}

async fn by_driver(session: &Session, round: u32, count: u64, head: &[u8], texts: &[u8]) -> Duration {
    let prepared = session.prepare("INSERT INTO bare (k, n, head, texts) VALUES (?, ?, ?, ?)").await.expect("prepared");
    let prepared = &prepared;
    let began = Instant::now();
    let write = |n: u64| async move {
        session.execute_unpaged(prepared, (((u64::from(round) << 32) | (n % 128)) as i64, n as i64, head, texts)).await
    };
    let mut writes = stream::iter(0..count).map(write).buffer_unordered(IN_FLIGHT);
    while let Some(stored) = writes.next().await {
        stored.expect("it is stored");
    }
    began.elapsed()
}

fn pack(first: u64) -> SmsDeliveryPack {
    let message = |n: u64| Message {
        number: Msisdn(8_613_800_000_000 + first * 100 + n * 7),
        record: first * 100 + n,
        line: first * 100 + n + 2,
        body: format!(
            "Dear name{n}, your parcel {:08x} has arrived. Your pickup code is {:06}.",
            first * 7_919 + n,
            n * 7_919 % 999_983
        ),
        link: None,
        segments: 1,
        ucs2: false,
    };
    SmsDeliveryPack { messages: (0..100).map(message).collect() }
}
