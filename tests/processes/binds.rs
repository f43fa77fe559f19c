//! Accounts whose provider allows few sessions, and receipts that come in by sessions of the gateways.

use std::time::{Duration, Instant};

use smsfleet::adapters::kafka::KafkaConfig;
use smsfleet::simulator::{Delay, SimulatorConfig};

use crate::endtoend::fixture::{Provider, count, list, taken_as_listed};

use super::fleet::{Fleet, Servers};

/// Redis forgets again and again for so long: slots are lent every second.
const FORGETS: Duration = Duration::from_secs(4);

/// A fleet whose account `main` has this setting of its own.
fn fleet(provider: &Provider, rate: u32, setting: (&str, &str)) -> Fleet {
    let fleet = Fleet::new(Servers::shared(), provider, rate);
    let text = std::fs::read_to_string(fleet.place.path("smsfleet.toml")).expect("the configuration");
    fleet.place.write("smsfleet.toml", text.replace(setting.0, &format!("{}\n{}", setting.0, setting.1)));
    fleet
}

#[test]
fn an_account_with_one_slot_has_sessions_in_one_deliverer_at_a_time() {
    const RECIPIENTS: u64 = 12_000;
    let provider = Provider::start();
    let mut fleet = fleet(&provider, 400, ("[accounts.main]", "bind_slots = 1"));
    fleet.start_all(&["coordinator", "coordinator", "prepare", "deliver", "deliver", "gateway"]);
    fleet.place.write("list.csv", list(RECIPIENTS));
    let batch = fleet.create("list.csv", "Hello {{name}}");
    let holder = |fleet: &Fleet| fleet.view()["slots"][0]["worker"].as_str().map(str::to_owned);

    fleet.until("some were sent", |_| provider.messages() >= 500);
    let first = holder(&fleet).expect("the slot is lent");
    shown_whole(&mut fleet, &batch);
    redis_forgets(&mut fleet, &provider);
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

/// The one slot, while it is lent: to whom, since when and until when.
fn slot(fleet: &Fleet) -> Option<(String, u64, u64)> {
    let view = fleet.view();
    assert!(view["slots"].as_array().is_some_and(|slots| slots.len() <= 1), "one slot is lent once: {view}");
    let worker = view["slots"][0]["worker"].as_str()?.to_owned();
    Some((worker, count(&view, "/slots/0/since"), count(&view, "/slots/0/until")))
}

/// Redis forgets everything while the slot is lent, also who leads: another coordinator leads as well, and both lend. The slot
/// is lent anew, to whomever, only when the time for which it was lent is over.
fn redis_forgets(fleet: &mut Fleet, provider: &Provider) {
    let (led, mut before) = (fleet.led_at(), slot(fleet).expect("the slot is lent"));
    assert!(fleet.forget_redis() > 0, "there was something to forget");
    fleet.until("another one leads", |fleet| {
        fleet.forget_redis();
        fleet.led_at() > led
    });
    // While it goes on forgetting, the first leader may renew its lock like the second.
    let begun = Instant::now();
    while begun.elapsed() < FORGETS {
        fleet.forget_redis();
        if let Some(now) = slot(fleet) {
            let is_kept = (&now.0, now.1) == (&before.0, before.1);
            assert!(is_kept || now.1 >= before.2, "it was lent until the end of {before:?}, and then {now:?}");
            before = now;
        }
    }
    assert_eq!(provider.get().report().sessions.bound_max, 2, "the two sessions of one deliverer");
    let sent = provider.messages();
    fleet.until("sending goes on", |_| provider.messages() > sent);
}

/// `smsfleet fleet` while a batch is sent: who leads since when, who has which partitions and lanes, slots, rates, what waits.
fn shown_whole(fleet: &mut Fleet, batch: &str) {
    let mut view = serde_json::Value::Null;
    fleet.until("the sheets tell of everything", |fleet| {
        view = fleet.view();
        let members = view["members"].as_array().cloned().unwrap_or_default();
        let of = |role: &str, what: &str| -> usize {
            let members = members.iter().filter(|member| member["role"] == role && member["alive"] == true);
            members.filter_map(|member| Some(member[what].as_array()?.len())).sum()
        };
        let all = usize::from(KafkaConfig::default().prepare_partitions);
        // A sheet is a few seconds old: the holder's may be of the moment before the slot was lent.
        let is_up =
            members.iter().any(|member| member["worker"] == view["slots"][0]["worker"] && member["accounts"][0]["up"] == true);
        of("deliver", "partitions") == 128 && of("prepare", "partitions") == all && of("deliver", "lanes") > 0 && is_up
    });
    let members = view["members"].as_array().expect("members");
    let deliver: Vec<&serde_json::Value> = members.iter().filter(|member| member["role"] == "deliver").collect();
    assert_eq!(view["partitions_owned"], 128, "a preparer's partitions are others: {view}");
    let sends = deliver.iter().find(|member| member["worker"] == view["slots"][0]["worker"]).expect("the slot's holder");
    assert!(sends["lanes"].as_array().is_some_and(|lanes| lanes.iter().all(|lane| lane["batch"] == batch)), "{sends}");
    assert_eq!((&sends["accounts"][0]["up"], count(sends, "/accounts/0/ceiling")), (&true.into(), 400), "{sends}");
    let leads = members.iter().find(|member| member["worker"] == view["leader"]).expect("one leads");
    assert_eq!((&leads["role"], &leads["leads_since"]), (&"coordinator".into(), &view["leads_since"]));
    let since = count(&view, "/leads_since");
    assert!(since >= count(leads, "/started") && since <= count(leads, "/at"), "{leads}");
    assert!(view["lag"]["delivery"].as_u64().is_some_and(|waiting| waiting > 0), "{view}");

    let text = fleet.run(&["fleet"]).ended(0).out;
    for words in [
        "6 processes are alive",
        "  leads\n",
        " tokens of delivery",
        "128 of 128 have an owner",
        " partitions of preparation: 0-15",
    ] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    for words in [format!(" lanes: {batch}/").as_str(), "bind slot of main: ", "segments/s  limit\n  main "] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
    eprintln!("{text}");
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
