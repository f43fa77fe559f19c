//! One message followed through a process for each step: what links them travels in Kafka's headers and in the store.

use crate::endtoend::fixture::{Provider, list};
use crate::endtoend::traced::{Collector, chain_is_whole, everybody_followed, log_has_the_same_ids};

use super::fleet::{Fleet, Servers};

#[test]
fn one_message_is_followed_through_all_processes() {
    const RECIPIENTS: u64 = 60;
    let (provider, collector) = (Provider::start(), Collector::start());
    let mut fleet = Fleet::new(Servers::shared(), &provider, 1_000);
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    fleet.place.write("smsfleet.toml", text + &everybody_followed(&endpoint));
    fleet.start_all(&["coordinator", "prepare", "deliver", "gateway"]);
    fleet.place.write("list.csv", list(RECIPIENTS));
    let (batch, told) = fleet.created("list.csv", "Hello {{name}}");
    fleet.until("all receipts were told", |_| {
        collector.spans().iter().filter(|span| span.name == "receipt").count() as u64 == RECIPIENTS
    });
    while !fleet.members.is_empty() {
        assert_eq!(fleet.terminate(0).1, Some(0), "what is left to tell is told at the end");
    }
    let spans = collector.spans();
    chain_is_whole(&spans, &batch, RECIPIENTS);
    log_has_the_same_ids(&spans, &batch, &(told + &fleet.logs()));
}
