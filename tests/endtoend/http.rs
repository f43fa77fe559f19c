//! An account that speaks HTTP, described by configuration alone: messages in batches under a key, receipts by callback.

use std::net::TcpListener;

use super::fixture::{Place, Provider, count, list, web_account};

#[test]
fn an_http_provider_is_described_by_configuration() {
    const ROWS: u64 = 300;
    let provider = Provider::start();
    let http = provider.get().http_addr().expect("the simulator speaks HTTP");
    // A port that was free a moment ago: the fleet listens there for receipts.
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    provider.get().set_callback(&format!("http://{listen}/v1/receipts/web"), "push-me").expect("a callback");
    let place = Place::new(provider.port(), 1_000);
    place.write("list.csv", list(ROWS));
    let account = web_account(http, "push-me", None);
    place.write("smsfleet.toml", format!("default_region = \"CN\"\n[serve]\nlisten = \"{listen}\"\n{account}"));
    place.run(&["check-config"]).ended(0);
    let send = ["send", "--recipients", "list.csv", "--template", "Grüße, {{name}} 🎉", "--account", "web", "--json"];
    let report = place.run(&send).ended(0).json();
    assert_eq!(count(&report, "/settlement/outcomes/accepted"), ROWS, "{report}");
    assert_eq!(count(&report, "/settlement/deliveries/delivered"), ROWS, "{report}");
    let seen = provider.get().report();
    assert_eq!((seen.numbers, seen.repeated_numbers), (ROWS, 0));
    let batch = report["batch_id"].as_str().or(report["batch"]["batch_id"].as_str()).expect("an id").to_owned();
    let lines = place.recipients(&batch);
    assert!(lines.iter().all(|line| line["delivery"] == "delivered"), "{:?}", lines.first());
}
