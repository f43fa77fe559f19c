//! While one process sends, others ask it and command it over the socket in the folder.

use super::fixture::{Place, Provider, Running, count, list, number, until};

#[test]
fn commands_work_while_another_process_holds_the_folder() {
    const ROWS: u64 = 1_500;
    let provider = Provider::start();
    let place = Place::new(provider.port(), 300);
    place.write("list.csv", list(ROWS));
    let send = ["send", "--recipients", "list.csv", "--template", "Hello {{name}}", "--account", "main", "--json"];
    let mut running = Running::start(place.command(&send));
    until("it sends", || provider.messages() >= 100 || running.ended());

    let second = place.run(&send).ended(3).json();
    assert_eq!(second["error"]["code"], "SF-4001", "{second}");

    let batches = place.run(&["batches", "--json"]).ended(0).json();
    let batch = batches[0]["batch_id"].as_str().expect("an id").to_owned();
    let short = &batch[..8];
    let paused = place.run(&["pause", short, "--json"]).ended(0).json();
    assert_eq!(paused["a_fleet_runs"], true, "{paused}");
    assert!(paused["pause"]["until"].is_string(), "{paused}");
    assert_eq!(paused["batch"]["delivery"]["state"], "PAUSED", "{paused}");
    let in_flight = || count(&place.run(&["explain", short, "--json"]).ended(0).json(), "/facts/in_flight");
    until("what was handed over is answered", || in_flight() == 0);
    let at_rest = provider.messages();

    let report = place.run(&["report", short, "--json"]).ended(1).json();
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), at_rest, "{report}");
    assert_eq!(count(&report, "/settlement/outcomes/open"), ROWS - at_rest, "{report}");
    let lines = place.recipients(short);
    assert_eq!(lines.len() as u64, ROWS);
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "accepted").count() as u64, at_rest);
    let said = place.run(&["explain", short]).ended(0);
    assert!(said.out.to_lowercase().contains("paused"), "{said:?}");
    let taken = provider.get().numbers()[0].number;
    let one = place.run(&["explain", short, &format!("+{taken}"), "--json"]).ended(0).json();
    assert_eq!(one["records"][0]["outcome"], "accepted", "{one}");
    let nobody = place.run(&["explain", short, &format!("+{}", number(ROWS + 1)), "--json"]).ended(2).json();
    assert_eq!(nobody["error"]["code"], "SF-3005", "{nobody}");
    assert_eq!(provider.messages(), at_rest, "a paused batch sends nothing");
    assert!(!running.ended(), "it waits for somebody to resume");

    let resumed = place.run(&["resume", short, "--json"]).ended(0).json();
    assert_eq!(resumed["a_fleet_runs"], true, "{resumed}");
    let report = running.wait().ended(0).json();
    assert_eq!(count(&report, "/settlement/deliveries/delivered"), ROWS, "{report}");
    assert_eq!((provider.messages(), provider.get().report().repeated_numbers), (ROWS, 0));
    let paused = place.run(&["pause", short, "--json"]).ended(2).json();
    assert_eq!(paused["error"]["code"], "SF-3003", "what is over cannot be paused: {paused}");
}
