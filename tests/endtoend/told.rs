//! Webhooks and privacy over a whole fleet: everything that happens is told, also across a crash; a person can be looked up,
//! exported and erased; and no log line says who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use smsfleet::model::batch::SmsBatch;
use smsfleet::model::id::{BatchId, LaneKey, Msisdn};
use smsfleet::model::schedule::LateStart;
use smsfleet::model::webhook::{EventKind, WebhookSecret};
use smsfleet::model::window::OnUncertain;
use smsfleet::ports::Stores;
use smsfleet::privacy::ErasureReport;
use smsfleet::roles::config::Config;
use smsfleet::roles::embedded::Embedded;
use smsfleet::statistics::{NumberExport, number_history, recount};
use smsfleet::webhooks::signature::sign;

use super::fixture::{DEADLINE, Provider, list, number};

const ROWS: u64 = 400;

/// What a target was told.
#[derive(Default)]
struct Told {
    secret: Mutex<Option<WebhookSecret>>,
    events: Mutex<Vec<Value>>,
    calls: Mutex<u64>,
}

async fn take(State(told): State<Arc<Told>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let seconds = header("webhook-timestamp").parse().expect("seconds");
    let secret = told.secret.lock().expect("a secret").clone().expect("it was added");
    assert_eq!(Some(header("webhook-signature")), sign(&secret, &header("webhook-id"), seconds, &body));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    *told.calls.lock().expect("calls") += 1;
    // One that stumbles now and then is told again.
    if *told.calls.lock().expect("calls") == 2 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    told.events.lock().expect("events").extend(body["events"].as_array().expect("events").iter().cloned());
    StatusCode::NO_CONTENT
}

fn config(folder: &Path, port: u16) -> Config {
    let text = format!(
        "data_dir = {:?}\ndefault_region = \"CN\"\n[webhooks]\nallow = [\"127.0.0.1\"]\nallow_http = true\nallow_private = true\n\
         [accounts.main]\nrate = 400\nanswer_timeout = 2.0\n[accounts.main.smpp]\nport = {port}\nsystem_id = \"smsfleet\"\n\
         password = \"password\"\nbinds = 2\nreconnect_min = 0.05\nsource_addr = \"10690001\"\n",
        folder.join("data").display().to_string()
    );
    toml::from_str(&text).expect("the configuration is valid")
}

fn batch(list: &Path, auto_trigger: bool) -> SmsBatch {
    SmsBatch {
        batch_id: BatchId::default(),
        tenant: "t".into(),
        table_name: list.display().to_string(),
        campaign_id: "c".into(),
        campaign_name: String::new(),
        marketing_program_id: String::new(),
        task_id: String::new(),
        content_id: String::new(),
        content: "Sesame opens for {{name}}".into(),
        content_signature: String::new(),
        url: None,
        link_base: String::new(),
        auto_trigger,
        schedule_time: None,
        hours: None,
        link_parameters: Default::default(),
        not_after: None,
        late_start: LateStart::Hold,
        ext_code: String::new(),
        provider_type: "main".into(),
        on_uncertain: OnUncertain::Hold,
        priority: 5,
        number_column: None,
        dialect: String::new(),
        default_region: "CN".into(),
        min_recipients_per_lane: 100,
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < DEADLINE, "it never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Log lines of this thread, which runs the whole fleet.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Account, message id and rung of every report that is stored.
async fn stored(stores: &Stores, batch: BatchId) -> BTreeSet<(String, String)> {
    let row = stores.batches.load(batch).await.expect("it is read").expect("it is there").row;
    let mut found = BTreeSet::new();
    for lane in 0..row.lanes {
        let reports = stores.receipts.list(LaneKey { batch, lane: lane as u8 }, 0, 100_000).await.expect("they are read");
        found.extend(reports.into_iter().map(|matched| (matched.report.message_id, matched.report.rung.stat().to_owned())));
    }
    found
}

fn told_reports(events: &[Value]) -> BTreeSet<(String, String)> {
    let receipts = events.iter().filter(|event| event["type"] == "receipt");
    let text = |event: &Value, key: &str| event[key].as_str().expect("a text").to_owned();
    receipts.map(|event| (text(event, "message_id"), text(event, "rung"))).collect()
}

async fn exported(fleet: &Embedded, number: Msisdn) -> Vec<Value> {
    let accounts = Arc::new(fleet.edges.accounts());
    let mut export = NumberExport::new(fleet.edges.stores.clone(), accounts, number, fleet.edges.world.clock.now());
    let mut all = vec![];
    while let Some(piece) = export.next().await.expect("it is exported") {
        all.extend(piece);
    }
    all
}

#[test]
fn everything_is_told_across_a_crash_and_a_person_can_be_erased() {
    let provider = Provider::start();
    let folder = tempfile::tempdir().expect("a folder");
    let list_file = folder.path().join("list.csv");
    std::fs::write(&list_file, list(ROWS)).expect("the list is written");
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter("smsfleet=trace").with_ansi(false).with_writer(move || writer.clone()).finish();
    // While there is one subscriber alone, whoever first comes by a line decides for all threads whether it is written, and that
    // may be the thread of another test, which has none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let secret = runtime.block_on(run(&provider, &config(folder.path(), provider.port()), &list_file));
    let log = String::from_utf8(log.0.lock().expect("the log").clone()).expect("it is text");
    assert!(log.contains("a webhook's call failed"), "it logs: {log}");
    let digits = (0..ROWS).map(|row| number(row).to_string()[2..].to_owned());
    for secret in digits.chain(["Sesame".into(), "name 7".into(), "/hook".into(), secret]) {
        if let Some(line) = log.lines().find(|line| line.contains(&secret)) {
            panic!("{secret} is in a log line: {line}");
        }
    }
}

async fn run(provider: &Provider, config: &Config, list: &Path) -> String {
    let told = Arc::new(Told::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let router = Router::new().route("/hook", post(take)).with_state(told.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let fleet = Embedded::start(config).await.expect("it starts");
    let hooks = fleet.edges.webhooks.clone();
    assert!(hooks.add(None, "http://10.0.0.1/hook", vec![EventKind::Batch]).await.is_err(), "it is not on the list");
    let added = hooks.add(Some("t".into()), &url, vec![EventKind::Batch, EventKind::Receipt]).await.expect("it is added");
    *told.secret.lock().expect("a secret") = Some(added.secret.clone());
    let id = fleet.service.create("one", batch(list, true)).await.expect("it is created").batch;
    fleet.service.entry_process(id).await.expect("it is prepared");
    until("a part was sent", async || provider.messages() > ROWS / 4).await;
    fleet.crash();

    // The call that stumbled may have been under way in the crash, and nobody heard of it: so the next one stumbles.
    *told.calls.lock().expect("calls") = 1;
    let fleet = Embedded::start(config).await.expect("it starts again");
    let stores = fleet.edges.stores.clone();
    until("all was sent and told", async || {
        let row = fleet.service.load(id).await.expect("it is there").row;
        let events = told.events.lock().expect("events").clone();
        let seen = provider.get().report();
        row.delivery.state.is_final()
            && stored(&stores, id).await.len() as u64 >= seen.complete_messages
            && told_reports(&events) == stored(&stores, id).await
            && events.iter().any(|event| {
                event["type"] == "batch.state" && event["number"] == row.changes.last().map(|c| c.number).unwrap_or(0)
            })
    })
    .await;
    let events = told.events.lock().expect("events").clone();
    // The same event may come again when the crash hit between its call and the note of it: it has the same id then.
    let mut first: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut states = vec![];
    for event in &events {
        if first.insert(event["id"].as_str().expect("an id"), event).is_none() && event["type"] == "batch.state" {
            states.push((event["number"].as_u64().expect("a number"), event["state"].as_str().expect("a state").to_owned()));
        }
    }
    let numbers: Vec<u64> = states.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "in order, and none is left out: {states:?}");
    assert_eq!((states[0].1.as_str(), states.last().map(|(_, state)| state.as_str())), ("READY", Some("COMPLETED_SUCCEEDED")));

    erase(&fleet, id, provider, list).await;
    fleet.stop().await;
    serving.abort();
    added.secret.0
}

async fn erase(fleet: &Embedded, id: BatchId, provider: &Provider, list: &Path) {
    let stores = fleet.edges.stores.clone();
    let accounts = Arc::new(fleet.edges.accounts());
    // Numbers go in order: the last one was sent after the crash and has its receipt.
    let (person, now) = (Msisdn(number(ROWS - 1)), fleet.edges.world.clock.now());
    let history = number_history(&stores, &accounts, person, Some("t"), None, 10, now).await.expect("a history");
    assert_eq!((history.batches.len(), history.batches[0].records.len(), history.looked_at), (1, 1, 1));
    assert_eq!(history.batches[0].records[0].text.as_deref(), Some("Sesame opens for name 399"));
    let stranger = number_history(&stores, &accounts, Msisdn(number(ROWS)), None, None, 10, now).await.expect("a history");
    assert_eq!((stranger.batches.len(), stranger.next), (0, None));
    let before = exported(fleet, person).await;
    let kinds: BTreeSet<&str> = before.iter().filter_map(|value| value["kind"].as_str()).collect();
    assert!(kinds.is_superset(&BTreeSet::from(["record", "receipt", "suppression"])), "{kinds:?}");

    let row = fleet.service.load(id).await.expect("it is there").row;
    let counted = recount(&stores, &row, &accounts, now).await.expect("a count");
    let report = fleet.opened.eraser(&fleet.lists, Default::default()).erase(person).await.expect("it is erased");
    assert_eq!((report.messages, report.reports, report.still_suppressed), (1, 1, false), "{report:?}");
    assert!(report.left.iter().any(|left| left.what == "list"), "the operator's own list is named: {report:?}");
    let again = fleet.opened.eraser(&fleet.lists, Default::default()).erase(person).await.expect("again is harmless");
    assert_eq!((again.messages, again.reports), (0, 0));
    let elsewhere = |report: &ErasureReport| report.left.iter().any(|left| left.why.contains("coordinators and preparers"));
    let in_fleet =
        fleet.opened.eraser(&fleet.lists, Default::default()).in_fleet(true).erase(person).await.expect("again is harmless");
    assert!(elsewhere(&in_fleet) && !elsewhere(&again), "copies on other machines are named where there are some: {in_fleet:?}");
    assert_eq!(recount(&stores, &row, &accounts, now).await.expect("a count"), counted, "every count stays true");
    let after = exported(fleet, person).await;
    assert_eq!(after.len(), 1, "nothing but that nothing is suppressed: {after:?}");

    // Whose number goes before the hand-over gets nothing.
    let gone = Msisdn(number(11));
    let held = fleet.service.create("two", batch(list, false)).await.expect("it is created").batch;
    fleet.service.entry_process(held).await.expect("it is prepared");
    let state = async || fleet.service.load(held).await.expect("it is there").row;
    until("it is sealed", async || state().await.sealed.is_some()).await;
    let times = |number: Msisdn| {
        provider.get().numbers().iter().filter(|n| n.number == number.0).map(|n| u64::from(n.complete)).sum::<u64>()
    };
    let before = times(gone);
    fleet.opened.eraser(&fleet.lists, Default::default()).erase(gone).await.expect("it is erased");
    fleet.service.start(held, None).await.expect("it is started");
    until("it was sent", async || state().await.delivery.state.is_final()).await;
    assert_eq!((times(gone), times(Msisdn(number(12)))), (before, 2));
    let settled = recount(&stores, &state().await, &accounts, now).await.expect("a count");
    assert_eq!(
        (settled.outcomes.get("suppressed"), settled.outcomes.get("accepted")),
        (Some(&1), Some(&(ROWS - 1))),
        "{settled:?}"
    );
}
