//! Stopped in order half-way: it goes on without anybody in doubt, and a copy of its folder sends nothing.

use std::collections::BTreeSet;
use std::process::Command;

use smsfleet::simulator::{Delay, SimulatorConfig};

use super::fixture::{Place, Provider, Running, count, list, until};

const SEND: [&str; 8] =
    ["send", "--recipients", "list.csv", "--template", "Hello {{name}}", "--account", "main", "--wait-receipts=5"];
const ROWS: u64 = 1_500;

/// Sends until a third has been taken, then says SIGTERM and waits. How many messages the provider had taken and not answered when
/// it said so.
fn half_way(provider: &Provider, place: &Place) -> u64 {
    place.write("list.csv", list(ROWS));
    let mut running = Running::start(place.command(&SEND));
    until("a third was sent", || provider.messages() >= ROWS / 3 || running.ended());
    running.terminate();
    let report = provider.get().report();
    let said = running.wait().ended(1);
    assert!(said.out.contains("Stopped in order") && said.err.contains("waiting for the answers"), "{said:?}");
    assert!(provider.messages() < ROWS, "it was stopped in the middle");
    report.complete_messages - report.answered_accepted
}

#[test]
fn after_sigterm_nobody_is_uncertain() {
    // It answers so late that there are always some in flight.
    let mut late = SimulatorConfig::local();
    late.faults.latency = Delay::always(300, 400);
    let provider = Provider::with(late);
    let place = Place::new(provider.port(), 500);
    let in_flight = half_way(&provider, &place);
    assert!(in_flight > 0, "it was stopped while nobody was in flight");
    let before = provider.messages();
    let batches = place.run(&["batches", "--json"]).ended(0).json();
    let batch = batches[0]["batch_id"].as_str().expect("an id").to_owned();
    let report = place.run(&["report", &batch, "--json"]).ended(1).json();
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), before, "all answers were waited for: {report}");
    assert_eq!(count(&report, "/settlement/outcomes/open"), ROWS - before, "{report}");

    let report = place.run(&[&SEND[..], &["--json"]].concat()).ended(0).json();
    assert_eq!(report["batch"]["batch_id"], batch.as_str(), "the same batch went on");
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), ROWS, "{report}");
    assert_eq!(count(&report, "/settlement/outcomes/uncertain"), 0, "{report}");
    assert_eq!((provider.messages(), provider.get().report().repeated_numbers), (ROWS, 0));

    let again = place.run(&SEND).ended(0);
    assert!(again.err.contains("was sent before"), "{again:?}");
    assert_eq!(provider.messages(), ROWS, "a finished batch sends nothing");
    listed_to_nowhere(&place, &batch);
}

/// An export that finds no room says so, and a reader that has seen enough is no error.
fn listed_to_nowhere(place: &Place, batch: &str) {
    for arguments in [&["recipients", batch][..], &["number", "export", "+491510000007"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("it is opened");
        let said = place.command(arguments).stdout(full).output().expect("it runs");
        let text = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(3), "{text}");
        assert!(text.contains("SF-6003"), "{text}");
        let (reader, closed) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = place.command(arguments).stdout(closed).output().expect("it runs");
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn a_copied_folder_sends_nothing_and_is_recovered_by_hand() {
    let provider = Provider::start();
    let place = Place::new(provider.port(), 500);
    let since = jiff::Timestamp::now().to_string();
    half_way(&provider, &place);
    let copied = Command::new("cp").args(["-r", "smsfleet-data", "copy"]).current_dir(place.path("")).status();
    assert!(copied.expect("cp runs").success(), "the folder is copied");
    let seen: BTreeSet<u64> = provider.get().numbers().iter().map(|n| n.number).collect();
    let of_copy = |arguments: &[&str]| place.run(&[&["--data-dir", "copy", "--json"], arguments].concat());

    let refused = of_copy(&SEND).ended(3).json();
    assert_eq!(refused["error"]["code"], "SF-4005", "{refused}");
    assert_eq!(of_copy(&["serve"]).ended(3).json()["error"]["code"], "SF-4005");
    assert_eq!(of_copy(&["recover", "--since", "yesterday"]).ended(2).json()["error"]["code"], "SF-6002");

    let recovered = of_copy(&["recover", "--since", &since]).ended(1).json();
    assert!(count(&recovered, "/uncertain") > 0, "{recovered}");
    let report = of_copy(&SEND).ended(1).json();
    let of = |outcome: &str| count(&report, &format!("/settlement/outcomes/{outcome}"));
    assert_eq!(of("accepted") + of("uncertain"), ROWS, "whoever was not sent is in doubt: {report}");
    assert_eq!(of("uncertain"), count(&recovered, "/uncertain"), "{report}");
    assert_eq!(of("accepted"), seen.len() as u64, "{report}");
    assert_eq!(provider.get().numbers().len(), seen.len(), "nothing more is sent");
    assert_eq!(provider.messages(), seen.len() as u64);
}
