//! The drill as a user runs it: a fleet of its own under fire, a verdict, and no way to a provider.

use serde_json::Value;
use smsfleet::adapters::system::SeededChance;
use smsfleet::drill::plan::{Blow, plan};

use super::fixture::{Place, Provider, Running, Said, count, until};

/// A place whose configuration names these accounts and nothing else.
fn place(accounts: &str) -> Place {
    let place = Place::new(1, 1);
    place.write("smsfleet.toml", accounts);
    std::fs::create_dir(place.path("tmp")).expect("a folder");
    place
}

/// Runs a drill whose folders for a while are the place's own.
fn drill(place: &Place, arguments: &[&str]) -> Said {
    let mut command = place.command(&[&["drill"], arguments].concat());
    command.env("TMPDIR", place.path("tmp"));
    Running::start(command).wait()
}

fn nothing_left(place: &Place) -> bool {
    std::fs::read_dir(place.path("tmp")).expect("the folder").next().is_none()
}

#[test]
fn a_fleet_under_fire_loses_nobody_and_repeats_nobody() {
    let place = place("");
    // Frozen for longer than a window may be sent and a lease lasts.
    let arguments = ["--recipients", "1500", "--minutes", "0.1", "--faults", "3", "--freeze", "11", "--seed", "5", "--json"];
    let said = drill(&place, &arguments).ended(0);
    let verdict = said.json();
    assert_eq!((&verdict["passed"], &verdict["fleet"]), (&Value::Bool(true), &"embedded".into()), "{verdict}");
    let zero = ["lost", "duplicated", "contradicted", "wrongly_ended", "unsent", "unsent_most", "uncounted", "repeated_parts"];
    for what in zero {
        assert_eq!(verdict[what], 0, "{what}: {verdict}");
    }
    for kind in ["killed", "frozen", "stopped"] {
        assert_eq!(count(&verdict, &format!("/fired/{kind}")), 1, "{verdict}");
    }
    let outcomes = verdict["outcomes"].as_object().expect("outcomes");
    let sum: u64 = outcomes.values().filter_map(Value::as_u64).sum();
    assert_eq!((sum, count(&verdict, "/records")), (1_500, 1_500), "{verdict}");
    assert!(count(&verdict, "/outcomes/accepted") > 1_000, "{verdict}");
    let most = count(&verdict, "/uncertain_most");
    assert!(most > 0 && count(&verdict, "/outcomes/uncertain") <= most, "{verdict}");
    assert!(verdict["longest_gap"].as_f64().is_some_and(|gap| gap > 10.0), "nothing was sent by a frozen process: {verdict}");
    assert!(nothing_left(&place), "a drill that passed leaves nothing behind");
    assert!(!place.path("smsfleet-data").exists(), "the data of the configuration was not touched");
}

#[test]
fn a_drill_sends_through_a_configured_account_that_is_its_simulator_and_says_its_verdict() {
    let port = super::inside::free_address().port();
    let place = place(&format!("[accounts.Main.smpp]\nport = {port}\nsystem_id = \"me\"\npassword = \"secret\"\n"));
    let data = place.path("kept").display().to_string();
    let arguments = ["--recipients", "400", "--minutes", "0.05", "--faults", "1", "--data-dir", &data, "--freeze", "1"];
    let said = drill(&place, &arguments).ended(0);
    let line = |name: &str| {
        let line = said.out.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no line {name}: {said:?}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("records"), "records 400");
    assert!(line("lost").starts_with("lost 0 ") && line("duplicated").starts_with("duplicated 0 "), "{said:?}");
    assert!(line("faults that fired").starts_with("faults that fired 1 of 1 "), "{said:?}");
    assert!(said.out.ends_with("PASSED: nobody was lost, and nobody got it twice\n"), "{said:?}");
    assert!(place.path("kept/all-1.log").exists(), "a folder that was named stays");
    let again = drill(&place, &arguments).ended(2);
    assert!(again.err.contains("SF-6002") && again.err.contains("is not empty"), "{again:?}");
}

#[test]
fn a_worker_that_is_started_again_does_not_follow_a_configuration_that_was_changed_meanwhile() {
    const RECORDS: u32 = 1_000;
    // One kill, late enough for the change to come before it.
    let is_fit = |seed: &u64| {
        let strikes = plan(&SeededChance::from_seed(*seed), 1, RECORDS.into());
        strikes.iter().all(|strike| strike.blow == Blow::Killed && strike.after > 300)
    };
    let seed = (0..1_000).find(is_fit).expect("some do").to_string();
    let provider = Provider::start();
    let account = |port: u16| format!("[accounts.main.smpp]\nport = {port}\nsystem_id = \"smsfleet\"\npassword = \"password\"\n");
    let place = place(&account(super::inside::free_address().port()));
    let (kept, records) = (place.path("kept").display().to_string(), RECORDS.to_string());
    let arguments =
        ["drill", "--recipients", &records, "--minutes", "0.2", "--faults", "1", "--seed", &seed, "--data-dir", &kept];
    let mut running = Running::start(place.command(&arguments));
    let data = place.path("kept/data").display().to_string();
    until("the batch is there", || {
        let listed = place.run(&["--data-dir", &data, "batches", "--json"]);
        running.ended() || listed.code == Some(0) && listed.json().as_array().is_some_and(|batches| !batches.is_empty())
    });
    place.write("smsfleet.toml", account(provider.port()));
    let said = running.wait();
    assert!(said.code.is_some_and(|code| code > 0) && said.err.contains("ended by itself"), "{said:?}");
    let log = std::fs::read_to_string(place.path("kept/all-2.log")).expect("the log of the second worker");
    assert!(log.contains("SF-5011") && log.contains("any more"), "{log}");
    assert_eq!(provider.get().report().sessions.connections, 0, "nobody was called");
}

#[test]
fn an_account_that_is_not_the_simulator_is_refused_before_anything_is_sent() {
    let provider = Provider::start();
    let real = [
        ("[accounts.main.smpp]\nhost = \"smpp.example.com\"\n".to_owned(), "smpp.example.com"),
        ("[accounts.main]\nprotocol = \"http\"\n[accounts.main.http]\nurl = \"https://sms.example.com/\"\n".to_owned(), "SMPP"),
        // Somebody else listens there, who might lead anywhere.
        (format!("[accounts.main.smpp]\nport = {}\nsystem_id = \"smsfleet\"\n", provider.port()), "cannot listen"),
    ];
    for (accounts, words) in real {
        let place = place(&accounts);
        let said = drill(&place, &["--json"]).ended(2);
        let error = &said.json()["error"];
        assert_eq!(error["code"], "SF-5011", "{said:?}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{said:?}");
    }
    // The environment is part of the configuration.
    let place = place("");
    let mut command = place.command(&["drill"]);
    command.env("TMPDIR", place.path("tmp")).env("SMSFLEET_ACCOUNTS__MAIN__SMPP__HOST", "10.0.0.1");
    let said = Running::start(command).wait().ended(2);
    assert!(said.err.contains("SF-5011") && said.err.contains("accounts.main"), "{said:?}");
    assert!(nothing_left(&place), "nothing was made");
    let counted = provider.get().report();
    assert_eq!((counted.sessions.connections, counted.submits), (0, 0), "nobody was called");
}
