//! How processes start and end: servers that are away, settings that are wrong, a drain in order.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;
use smsfleet::roles::config::Config;

use crate::conformance::cql::proxy::{Proxy, Way};
use crate::endtoend::fixture::{Place, Provider, Running, list, until};

use super::fleet::{Fleet, Servers, ended_in};

fn http(address: &str, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A configuration whose servers are not there.
fn nowhere(place: &Place, listen: u16) {
    let text = std::fs::read_to_string(place.path("smsfleet.toml")).expect("the configuration");
    let cluster = format!(
        "[serve]\nlisten = \"127.0.0.1:{listen}\"\n[scylla]\nnodes = [\"127.0.0.1:1\"]\nflavour = \"cassandra\"\n\
         [kafka]\nbrokers = [\"127.0.0.1:1\"]\nconnect_timeout = 1.0\n[redis]\nnodes = [\"127.0.0.1:1\"]\n"
    );
    place.write("smsfleet.toml", text + &cluster);
}

#[test]
fn a_process_lives_and_says_which_server_it_waits_for() {
    let place = Place::new(1, 100);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    nowhere(&place, port);
    let mut running = Running::start(place.command(&["deliver"]));
    let address = format!("127.0.0.1:{port}");
    until("it says what it waits for", || {
        http(&address, "/readyz").is_some_and(|said| said.starts_with("HTTP/1.1 503") && said.contains("kafka.brokers"))
    });
    assert!(http(&address, "/healthz").is_some_and(|said| said.starts_with("HTTP/1.1 200")));
    assert!(http(&address, "/metrics").is_some_and(|said| said.contains("smsfleet_build_info")));
    running.terminate();
    let said = running.wait();
    assert_eq!(said.code, Some(0), "a stop while it waits is no failure: {}", said.err);
}

#[test]
fn a_store_that_goes_away_between_its_first_answer_and_its_mark_is_waited_for() {
    let carrying = tokio::runtime::Runtime::new().expect("a runtime");
    let mut servers = Servers::shared();
    let cql = carrying.block_on(Proxy::before(std::mem::take(&mut servers.cql)));
    let redis = carrying.block_on(Proxy::before(std::mem::take(&mut servers.redis)));
    (servers.cql, servers.redis) = (cql.address.clone(), redis.address.clone());
    let provider = Provider::start();
    let mut fleet = Fleet::new(servers, &provider, 100);
    // With a mark beside it, the store's own is compared.
    fleet.run(&["recover", "--since", "2020-01-01T00:00:00Z"]).ended(0);
    // The store is reached, and Redis, for which it waits next, is not: so it stands right before its look at the mark.
    redis.set(Way::RequestsCut);
    let at = fleet.start("deliver");
    fleet.until("it waits for Redis", |fleet| fleet.logs().contains("\"server\":\"Redis\""));
    cql.set(Way::RequestsCut);
    redis.set(Way::Open);
    fleet.until("it waits for the store", |fleet| fleet.logs().contains("\"server\":\"ScyllaDB\""));
    cql.set(Way::Open);
    let address = fleet.address(at);
    let address = address.trim_start_matches("http://");
    fleet.until("it is ready", |_| http(address, "/readyz").is_some_and(|said| said.starts_with("HTTP/1.1 200")));
    assert_eq!(fleet.terminate(at).1, Some(0));
}

/// Sets the mark in a fleet's store back from 2 to 1, as a backup has it.
fn set_mark_back(fleet: &Fleet) {
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    let config: Config = toml::from_str(&text).expect("it is right");
    let keyspace = config.scylla.keyspace;
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let session = SessionBuilder::new().known_node(&fleet.servers.cql).keyspaces_to_fetch([&keyspace]);
        let session = session.build().await.expect("Cassandra answers");
        let set = format!("UPDATE {keyspace}.meta SET value = '1' WHERE name = 'mark' IF value = '2'");
        session.query_unpaged(set, ()).await.expect("it is asked");
        let now = format!("SELECT value FROM {keyspace}.meta WHERE name = 'mark'");
        let now = session.query_unpaged(now, ()).await.expect("it is asked").into_rows_result().expect("rows");
        let (mark,) = now.single_row::<(String,)>().expect("a mark");
        assert_eq!(mark, "1", "it was set back");
    });
}

#[test]
fn a_restored_store_is_refused_until_it_is_recovered() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, 100);
    let recover = ["recover", "--since", "2020-01-01T00:00:00Z"];
    // Each leaves the next mark beside the store.
    for _ in 0..2 {
        fleet.run(&recover).ended(0);
    }
    set_mark_back(&fleet);
    let refused = fleet.run(&["deliver"]).ended(3);
    assert!(refused.err.contains("SF-4005") && refused.err.contains("restored"), "{}", refused.err);
    fleet.run(&recover).ended(0);
    let at = fleet.start("deliver");
    fleet.until("it works", |fleet| fleet.logs().contains("the process works"));
    assert_eq!(fleet.terminate(at).1, Some(0));
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new(1, 100);
    let alone = place.run(&["deliver"]).ended(2);
    assert!(alone.err.contains("SF-6001") && alone.err.contains("scylla.nodes"), "{}", alone.err);
    let text = std::fs::read_to_string(place.path("smsfleet.toml")).expect("the configuration");
    place.write("smsfleet.toml", format!("{text}[scylla]\nnodes = [\"127.0.0.1:1\"]\n"));
    let partly = place.run(&["deliver"]).ended(2);
    assert!(partly.err.contains("kafka.brokers") && partly.err.contains("redis.nodes"), "{}", partly.err);
    let fleet = Fleet::new(Servers::shared(), &Provider::start(), 100);
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    let other =
        text.replace("keyspace = \"t", "keyspace = \"never_made_").replace("topic_prefix = \"t", "topic_prefix = \"never-made-");
    fleet.place.write("smsfleet.toml", &other);
    let missing = fleet.run(&["coordinator"]).ended(3);
    assert!(missing.err.contains("SF-4012") && missing.err.contains("smsfleet migrate"), "{}", missing.err);
    let mixed = fleet.run(&["all"]).ended(2);
    assert!(mixed.err.contains("scylla.nodes"), "{}", mixed.err);
}

#[test]
fn a_deliverer_that_is_told_to_stop_leaves_nobody_in_doubt() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, 1_000);
    fleet.start_all(&["coordinator", "prepare", "deliver", "deliver", "gateway"]);
    fleet.place.write("list.csv", list(8_000));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    let busy = fleet.run(&["recover", "--since", "2020-01-01T00:00:00Z"]).ended(3);
    assert!(busy.err.contains("SF-4001") && busy.err.contains("coordinator"), "{}", busy.err);
    for share in [1_500, 4_000] {
        fleet.until("some were sent", |_| provider.messages() >= share);
        let at = fleet.some("deliver");
        let (took, code) = fleet.terminate(at);
        assert_eq!(code, Some(0), "it ends in order");
        assert!(took < Duration::from_secs(30), "{took:?}");
        fleet.start("deliver");
    }
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch) == "COMPLETED_SUCCEEDED");
    let report = fleet.ask(&["report", &batch, "--json"]);
    assert_eq!(ended_in(&report, "accepted"), 8_000, "{report}");
    assert_eq!(provider.get().report().repeated_numbers, 0);
    // Everybody leaves in order: no sheet stays behind.
    while !fleet.members.is_empty() {
        let (_, code) = fleet.terminate(0);
        assert_eq!(code, Some(0));
    }
    assert_eq!(fleet.view()["members"].as_array().map(Vec::len), Some(0));
    // With nobody left, the store may be recovered; everything was sent, so nobody comes into doubt.
    let recovered = fleet.run(&["recover", "--since", "2020-01-01T00:00:00Z", "--json"]).ended(0).json();
    assert_eq!((recovered["batches"].as_u64(), recovered["uncertain"].as_u64()), (Some(1), Some(0)), "{recovered}");
}
