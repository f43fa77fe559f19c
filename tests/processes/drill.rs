//! The drill over a cluster: a fleet of its own on servers that others use too, and nothing of it is left.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use scylla::client::session_builder::SessionBuilder;

use smsfleet::adapters::system::SeededChance;
use smsfleet::drill::plan::{Blow, plan};

use crate::endtoend::fixture::{Place, count};
use crate::servers;

/// Keyspaces and topics of drills on the shared servers.
fn namespaces() -> BTreeSet<String> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut names: BTreeSet<String> = runtime.block_on(async {
        let session = SessionBuilder::new().known_node(servers::cql()).build().await.expect("Cassandra answers");
        let said = session.query_unpaged("SELECT keyspace_name FROM system_schema.keyspaces", ()).await.expect("the keyspaces");
        let rows = said.into_rows_result().expect("rows");
        rows.rows::<(String,)>().expect("names").map(|row| row.expect("a name").0).collect()
    });
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers::kafka()).set("group.id", "looks").create().expect("a consumer");
    let known = consumer.fetch_metadata(None, Duration::from_secs(20)).expect("Kafka answers");
    names.extend(known.topics().iter().map(|topic| topic.name().to_owned()));
    names.retain(|name| name.starts_with("drill_"));
    names
}

const RECORDS: u32 = 1_500;
const STRIKES: u32 = 3;

/// A seed whose kill and freeze both hit a deliverer: the first three of the six whom a strike may hit (`drill/ground`).
fn seed() -> u64 {
    let meets_senders = |seed: &u64| {
        let strikes = plan(&SeededChance::from_seed(*seed), STRIKES, RECORDS.into());
        strikes.iter().all(|strike| strike.blow == Blow::Stopped || strike.whom % 6 < 3)
    };
    (0..1_000).find(meets_senders).expect("every fourth does")
}

#[test]
fn a_drill_over_the_cluster_passes_and_leaves_nothing_behind() {
    let place = Place::new(1, 1);
    let cluster = format!(
        "[scylla]\nnodes = [\"{}\"]\nflavour = \"cassandra\"\nreplication = 1\nrequest_timeout = 10.0\n\
         [kafka]\nbrokers = [\"{}\"]\nreplication = 1\nsession_timeout = 6.0\n[redis]\nnodes = [\"{}\"]\nresponse_timeout = 5.0\n",
        servers::cql(),
        servers::kafka(),
        servers::redis(),
    );
    place.write("cluster.toml", cluster);
    place.write("smsfleet.toml", "");
    let before = namespaces();
    // Frozen for longer than a window may be sent and a session lasts.
    let (records, strikes, seed) = (RECORDS.to_string(), STRIKES.to_string(), seed().to_string());
    let numbers =
        ["--recipients", &records, "--minutes", "0.3", "--faults", &strikes, "--freeze", "11", "--seed", &seed, "--json"];
    let begun = std::time::Instant::now();
    let said = place.run(&[&["--config", "cluster.toml", "drill"][..], &numbers].concat()).ended(0);
    let verdict = said.json();
    eprintln!("a drill over the cluster took {:.1} s: {verdict}", begun.elapsed().as_secs_f64());
    assert_eq!((&verdict["passed"], &verdict["fleet"]), (&true.into(), &"cluster".into()), "{verdict}");
    for what in ["lost", "duplicated", "contradicted", "wrongly_ended", "repeated_parts"] {
        assert_eq!(verdict[what], 0, "{what}: {verdict}");
    }
    for kind in ["killed", "frozen", "stopped"] {
        assert_eq!(count(&verdict, &format!("/fired/{kind}")), 1, "{verdict}");
    }
    // Who was in open windows is counted: a deliverer may have had nobody in one just then.
    let left = count(&verdict, "/outcomes/uncertain") + count(&verdict, "/unsent");
    assert!(left <= count(&verdict, "/uncertain_most"), "two strikes hit who sends: {verdict}");
    assert_eq!(count(&verdict, "/records"), u64::from(RECORDS), "{verdict}");
    assert_eq!(namespaces(), before, "its keyspace and its topics are gone");
}
