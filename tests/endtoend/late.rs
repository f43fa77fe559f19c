//! Messages that the provider took and never answered: in doubt, until late receipts say that it has them.

use serde_json::Value;
use smsfleet::simulator::{Delay, SimulatorConfig};

use super::fixture::{Place, Provider, count, list, until};
use super::service::Service;

/// Few enough for the windows of both sessions, none of which ever becomes free again.
const ROWS: u64 = 60;

#[test]
fn whoever_was_never_answered_is_found_by_a_late_receipt_and_not_sent_to_again() {
    let mut config = SimulatorConfig::local();
    config.faults.no_answer_share = 1.0;
    // Twice as late as answers are waited for: everybody is in doubt first.
    config.receipts.delay = Delay::always(4_000, 4_500);
    let provider = Provider::with(config);
    let place = Place::new(provider.port(), 1_000);
    place.write("list.csv", list(ROWS));
    let service = Service::start(place);
    let operator = service.key("operator");
    let create =
        ["batch", "create", "--recipients", "list.csv", "--template", "Hi", "--account", "main", "--auto-trigger", "--json"];
    let created = service.run(&operator, &create).ended(0).json();
    let batch = created["batch"]["batch_id"].as_str().expect("an id").to_owned();

    let mut lines: Vec<Value> = vec![];
    until("everybody is found by a receipt", || {
        lines = service.place.recipients(&batch);
        lines.len() as u64 == ROWS && lines.iter().all(|line| line["outcome"] == "accepted")
    });
    for line in &lines {
        let happened: Vec<&str> =
            line["history"].as_array().into_iter().flatten().filter_map(|event| event["what"].as_str()).collect();
        assert!(happened.contains(&"no_answer") || happened.contains(&"judged"), "it was in doubt: {line}");
        assert!(happened.contains(&"receipt") && !happened.contains(&"accepted"), "only its receipt says so: {line}");
        assert_eq!((&line["message_ids"], &line["delivery"]), (&Value::Null, &"delivered".into()), "{line}");
    }
    let report = service.run(&operator, &["report", &batch, "--json"]).ended(0).json();
    assert_eq!((count(&report, "/settlement/outcomes/accepted"), count(&report, "/settlement/outcomes/uncertain")), (ROWS, 0));
    assert_eq!(count(&report, "/settlement/delivery_num"), ROWS, "{report}");
    service.stop().ended(0);
    let counted = provider.get().report();
    assert_eq!((counted.complete_messages, counted.repeated_numbers, counted.unanswered), (ROWS, 0, ROWS), "{counted:?}");
}
