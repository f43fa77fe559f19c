//! Accounts whose provider allows few sessions, and receipts that come in by sessions of the gateways.

use smsfleet::simulator::{Delay, SimulatorConfig};

use crate::endtoend::fixture::{Provider, count, list, taken_as_listed};

use super::fleet::{Fleet, Servers};

/// A fleet whose account `main` has this setting of its own.
fn fleet(provider: &Provider, rate: u32, setting: (&str, &str)) -> Fleet {
    let fleet = Fleet::new(Servers::shared(), provider, rate);
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    fleet.place.write("smsfleet.toml", text.replace(setting.0, &format!("{}\n{}", setting.0, setting.1)));
    fleet
}

#[test]
fn an_account_with_one_slot_has_sessions_in_one_deliverer_at_a_time() {
    const RECIPIENTS: u64 = 6_000;
    let provider = Provider::start();
    let mut fleet = fleet(&provider, 400, ("[accounts.main]", "bind_slots = 1"));
    fleet.start_all(&["coordinator", "prepare", "deliver", "deliver", "gateway"]);
    fleet.place.write("list.csv", list(RECIPIENTS));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    let holder = |fleet: &Fleet| fleet.view()["slots"][0]["worker"].as_str().map(str::to_owned);

    fleet.until("some were sent", |_| provider.messages() >= 500);
    let first = holder(&fleet).expect("the slot is lent");
    let alive = fleet.alive();
    let sheet = alive.iter().find(|member| member["worker"] == first.as_str()).expect("its holder is alive");
    assert_eq!(sheet["role"], "deliver");
    let at = fleet.place_of(sheet["pid"].as_u64().expect("a process id") as u32);
    fleet.kill(at);
    fleet.until("the slot is lent to the other one", |fleet| holder(fleet).is_some_and(|worker| worker != first));
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch).starts_with("COMPLETED"));

    taken_as_listed(&fleet.place, &provider, &batch, RECIPIENTS);
    let report = provider.get().report();
    assert_eq!(report.repeated_numbers, 0);
    assert_eq!(report.sessions.bound_max, 2, "the two sessions of one deliverer");
    assert!(report.sessions.binds >= 4, "{:?}", report.sessions);
}

#[test]
fn receipts_come_in_by_the_gateways_sessions_when_no_deliverer_is_left() {
    const RECIPIENTS: u64 = 200;
    let mut config = SimulatorConfig::local();
    config.receipts.delay = Delay::always(8_000, 12_000);
    let provider = Provider::with(config);
    let mut fleet = fleet(&provider, 2_000, ("[accounts.main.smpp]", "gateway_receivers = 1"));
    fleet.start_all(&["coordinator", "prepare", "deliver", "gateway"]);
    fleet.place.write("list.csv", list(RECIPIENTS));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    fleet.until("all were sent", |_| provider.messages() == RECIPIENTS);
    fleet.until("the batch has ended", |fleet| fleet.delivery(&batch) == "COMPLETED_SUCCEEDED");
    let at = fleet.some("deliver");
    assert_eq!(fleet.terminate(at).1, Some(0));
    assert!(provider.get().report().receipts.waiting > 0, "receipts are still to come");
    fleet.until("all receipts are counted", |fleet| {
        count(&fleet.ask(&["report", &batch, "--json"]), "/settlement/deliveries/delivered") == RECIPIENTS
    });
    assert_eq!(provider.get().report().sessions.bound, 1, "the gateway's own session alone");
}
