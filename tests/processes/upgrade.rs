//! A rolling upgrade and its way back while batches are sent: process by process, first the new one, then the old one told to stop.
//!
//! `tests/campaign --upgrade` does it with two builds: `SMSFLEET_TEST_NEXT` names one with the feature `next-formats`, which writes
//! every stored and queued format with fields more. Without it the fleet is rolled over to itself, which is a restart of all of it.

use std::path::PathBuf;

use serde_json::Value;

use crate::endtoend::fixture::{Provider, count, number};

use super::fleet::{Fleet, Servers, ended, ended_in};

/// Recipients of each batch.
const RECIPIENTS: u64 = 12_000;
/// Segments a second while processes are exchanged: so slow that the first batch outlives it.
const RATE: u32 = 100;
/// And afterwards.
const RATE_AFTER: &str = "4000";

/// Exchanges every process for one of the fleet's binary, one after the other. Something was sent meanwhile.
fn roll(fleet: &mut Fleet, provider: &Provider) {
    for _ in 0..fleet.members.len() {
        let (sent, role) = (provider.messages(), fleet.members[0].role);
        fleet.start(role);
        let wanted = fleet.members.len();
        fleet.until("the new process is alive", |fleet| fleet.alive().len() == wanted);
        let (took, code) = fleet.terminate(0);
        eprintln!("{role} exchanged; the old one took {:.1} s to stop", took.as_secs_f64());
        assert_eq!(code, Some(0), "the old {role} ends in order");
        fleet.until("sending goes on", |_| provider.messages() > sent);
    }
}

fn versions(fleet: &Fleet) -> Vec<String> {
    fleet.alive().iter().map(|member| member["version"].as_str().unwrap_or_default().to_owned()).collect()
}

fn list(first: u64) -> String {
    let rows = (first..first + RECIPIENTS).map(|row| format!("+{},name {row}\n", number(row)));
    std::iter::once("phone,name\n".to_owned()).chain(rows).collect()
}

#[test]
fn a_rolling_upgrade_and_its_way_back_keep_sending_and_nobody_is_lost_doubled_or_in_doubt() {
    let provider = Provider::start();
    let mut fleet = Fleet::new(Servers::shared(), &provider, RATE);
    let old = fleet.binary.clone();
    let next = std::env::var_os("SMSFLEET_TEST_NEXT").map(PathBuf::from);
    fleet.start_all(&["coordinator", "coordinator", "prepare", "deliver", "deliver", "gateway"]);
    for (at, name) in ["before.csv", "between.csv", "after.csv"].into_iter().enumerate() {
        fleet.place.write(name, list(at as u64 * RECIPIENTS));
    }
    let before = fleet.create("before.csv", "Hello {{name}}");
    fleet.until("some were sent", |_| provider.messages() > 100);

    fleet.binary = next.clone().unwrap_or_else(|| old.clone());
    roll(&mut fleet, &provider);
    let is_next = |version: &String| version.ends_with("+next");
    assert!(versions(&fleet).iter().all(|version| is_next(version) == next.is_some()), "{:?}", versions(&fleet));
    // Packs, manifests, ledgers and tokens of this one are the new version's, but most of it is sent by the old one.
    let between = fleet.create("between.csv", "Hello {{name}}");
    fleet.until("the second batch is prepared", |fleet| fleet.state(&between, "preparation") == "COMPLETED_SUCCEEDED");

    fleet.binary = old;
    roll(&mut fleet, &provider);
    assert!(!versions(&fleet).iter().any(is_next), "{:?}", versions(&fleet));
    let sent = provider.messages();
    assert!(sent < 2 * RECIPIENTS, "all of it was sent before the fleet was back: nothing was shown");
    eprintln!("{sent} of {} sent while processes were exchanged", 3 * RECIPIENTS);
    let after = fleet.create("after.csv", "Hello {{name}}");
    fleet.run(&["account", "rate", "main", RATE_AFTER]).ended(0);
    for batch in [&before, &between, &after] {
        fleet.until("the batch has ended", |fleet| fleet.delivery(batch).starts_with("COMPLETED"));
        let mut report = Value::Null;
        fleet.until("everybody has an outcome", |fleet| {
            report = fleet.ask(&["report", batch, "--json"]);
            count(&report, "/settlement/records") > 0
        });
        assert_eq!(ended(&report), RECIPIENTS, "{report}");
        assert_eq!((ended_in(&report, "accepted"), ended_in(&report, "uncertain")), (RECIPIENTS, 0), "{report}");
    }
    let counted = provider.get().report();
    assert_eq!((counted.repeated_numbers, counted.complete_per_number_max), (0, 1), "{counted:?}");
    assert_eq!(provider.messages(), 3 * RECIPIENTS);
    fleet.all_live();
}
