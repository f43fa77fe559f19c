//! What streams do over time, with targets that fail, hang and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::dead::Replay;
use super::outbox::{Telling, Webhooks};
use super::sender::Sender;
use super::signature::sign;
use super::{Changes, stream};
use crate::adapters::memory::clock::SimClock;
use crate::adapters::memory::store::MemoryStore;
use crate::adapters::system::SeededChance;
use crate::model::batch::tests::batch;
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::code::Fault;
use crate::model::id::{BatchId, LaneKey, Msisdn, RecipientKey};
use crate::model::receipt::{Report, Rung};
use crate::model::state::StepEvent;
use crate::model::time::Timestamp;
use crate::model::webhook::EventKind;
use crate::ports::World;
use crate::ports::caller::{Call, Called, Caller};
use crate::ports::clock::Clock;
use crate::ports::documents::Shelf;
use crate::ports::journal::Stream;
use crate::ports::receipts::{MatchedReport, PartKey, ReportListener};
use crate::runtime::job::Job;

/// What a target does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Takes,
    Says(u16),
    AsksFor(Duration),
    Hangs,
}

/// Targets by host, and what each took.
#[derive(Default)]
pub(super) struct Targets {
    moods: Mutex<BTreeMap<String, Mood>>,
    calls: Mutex<Vec<(String, Call, Timestamp)>>,
    clock: Option<Arc<dyn Clock>>,
}

impl Targets {
    fn set(&self, host: &str, mood: Mood) {
        self.moods.lock().expect("a mood").insert(host.into(), mood);
    }

    /// Ids of the events that a host was told of by calls that it took, in order.
    pub fn told(&self, host: &str) -> Vec<Value> {
        let calls = self.calls.lock().expect("calls");
        let mine = calls.iter().filter(|(called, ..)| called == host);
        mine.flat_map(|(_, call, _)| events(call)).collect()
    }
}

fn events(call: &Call) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&call.body).expect("the body is JSON");
    body["events"].as_array().expect("it has events").clone()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["n"].as_u64().expect("a number")).collect()
}

#[async_trait::async_trait]
impl Caller for Targets {
    async fn check(&self, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    async fn post(&self, call: Call) -> Result<Called, String> {
        let host = call.url.trim_start_matches("https://").to_owned();
        let mood = self.moods.lock().expect("a mood").get(&host).copied().unwrap_or(Mood::Takes);
        let now = self.clock.as_ref().map_or(Timestamp(0), |clock| clock.now());
        match mood {
            Mood::Takes => {
                self.calls.lock().expect("calls").push((host, call, now));
                Ok(Called { status: 200, retry_after: None })
            }
            Mood::Says(status) => {
                self.calls.lock().expect("calls").push((format!("refused {host}"), call, now));
                Ok(Called { status, retry_after: None })
            }
            Mood::AsksFor(time) => {
                self.calls.lock().expect("calls").push((format!("refused {host}"), call, now));
                Ok(Called { status: 503, retry_after: Some(time) })
            }
            Mood::Hangs => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err("no answer in time".into())
            }
        }
    }
}

pub(super) struct Place {
    pub store: MemoryStore,
    pub world: World,
    pub targets: Arc<Targets>,
    pub webhooks: Arc<Webhooks>,
}

impl Place {
    pub fn new() -> Place {
        let chance = Arc::new(SeededChance::from_seed(7));
        let world = World { clock: Arc::new(SimClock::new(Timestamp(1_700_000_000_000))), chance: chance.clone() };
        let store = MemoryStore::new(chance);
        let targets = Arc::new(Targets { clock: Some(world.clock.clone()), ..Targets::default() });
        let webhooks = Webhooks::new(store.stores(), world.clone(), targets.clone());
        Place { store, world, targets, webhooks }
    }

    pub async fn hook(&self, host: &str, events: &[EventKind]) -> String {
        let added = self.webhooks.add(Some("t".into()), &format!("https://{host}"), events.to_vec()).await.expect("it is added");
        added.webhook.id
    }

    pub async fn tell(&self, batch: u128, numbers: std::ops::Range<u64>) {
        let telling = |n: u64| Telling {
            tenant: "t".into(),
            batch: Some(BatchId(batch)),
            kind: EventKind::Receipt,
            at: self.world.clock.now(),
            placed: self.world.clock.now().plus(Duration::from_millis(n)),
            facts: vec![batch.to_be_bytes().to_vec(), n.to_be_bytes().to_vec()],
            order: None,
            event: json!({ "n": n }),
        };
        self.webhooks.tell(&numbers.map(telling).collect::<Vec<_>>()).await.expect("they are stored");
    }

    /// A leader's term of sending.
    fn send(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let term = CancellationToken::new();
        let webhooks = Webhooks::new(self.store.stores(), self.world.clone(), self.targets.clone());
        (term.clone(), tokio::spawn(Sender::new(webhooks).term(term)))
    }

    async fn waiting(&self, stream: Stream) -> usize {
        stream::count(&self.store.stores(), stream, 100_000).await.expect("it is counted")
    }
}

const HOURS: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn events_are_told_in_order_signed_and_in_calls_of_a_hundred() {
    let place = Place::new();
    let added = place.webhooks.add(Some("t".into()), "https://a", vec![EventKind::Receipt]).await.expect("it is added");
    place.hook("batches-only", &[EventKind::Batch]).await;
    place.tell(1, 0..250).await;
    place.tell(1, 0..250).await;
    place.tell(2, 0..3).await;
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(5)).await;
    term.cancel();
    sending.await.expect("it ends");
    let calls = place.targets.calls.lock().expect("calls").clone();
    let sizes: BTreeSet<usize> = calls.iter().map(|(_, call, _)| events(call).len()).collect();
    assert_eq!(sizes, BTreeSet::from([3, 50, 100]), "no call holds more than a hundred, and each event is told once");
    let of_first: Vec<u64> = calls
        .iter()
        .filter(|(_, call, _)| call.body.windows(32).any(|part| part == format!("{:032x}", 1).as_bytes()))
        .flat_map(|(_, call, _)| numbers(&events(call)))
        .collect();
    assert_eq!(of_first, (0..250).collect::<Vec<_>>());
    assert_eq!(place.targets.told("batches-only").len(), 0);
    for (_, call, at) in &calls {
        let header = |name: &str| call.headers.iter().find(|(known, _)| *known == name).expect("it is there").1.clone();
        let seconds: i64 = header("webhook-timestamp").parse().expect("seconds");
        assert!((seconds - at.0 / 1_000).abs() <= 1);
        let signature = sign(&added.secret, &header("webhook-id"), seconds, &call.body);
        assert_eq!(Some(header("webhook-signature")), signature);
    }
    assert_eq!(place.waiting(Stream::Outbox).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_holds_up_its_own_streams_alone_and_is_told_in_order_when_it_is_back() {
    let place = Place::new();
    for host in ["good", "bad", "slow"] {
        place.hook(host, &[EventKind::Receipt]).await;
    }
    place.targets.set("bad", Mood::Says(500));
    place.targets.set("slow", Mood::Hangs);
    let (term, sending) = place.send();
    for batch in 0..20 {
        place.tell(batch, 0..5).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(place.targets.told("good").len(), 100, "nobody waits for somebody else's target");
    tokio::time::sleep(2 * HOURS).await;
    // The process restarts half-way; what is known of the streams goes on.
    term.cancel();
    sending.await.expect("it ends");
    let before = place.targets.calls.lock().expect("calls").len();
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = place.targets.calls.lock().expect("calls").len();
    assert!(after - before < 20, "a restart does not begin the schedule again: {}", after - before);
    place.targets.set("bad", Mood::Takes);
    place.targets.set("slow", Mood::Takes);
    tokio::time::sleep(5 * HOURS).await;
    for host in ["bad", "slow"] {
        let told = place.targets.told(host);
        assert_eq!(told.len(), 100, "{host}");
        assert!(told.chunks(5).all(|chunk| numbers(chunk) == [0, 1, 2, 3, 4]), "{host}");
    }
    term.cancel();
    sending.await.expect("it ends");
    assert_eq!((place.waiting(Stream::Outbox).await, place.waiting(Stream::Dead).await), (0, 0));
    let states = place.store.stores().documents.list(Shelf::WebhookStream, "wh_", None, 9).await;
    assert_eq!(states, Ok(vec![]), "nothing is kept of streams that work");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_day_is_dead_visible_and_told_again_on_demand() {
    let place = Place::new();
    let hook = place.hook("bad", &[EventKind::Receipt]).await;
    place.targets.set("bad", Mood::Says(500));
    place.tell(1, 0..120).await;
    let (term, sending) = place.send();
    tokio::time::sleep(20 * HOURS).await;
    assert_eq!(place.waiting(Stream::Dead).await, 0, "a day has not passed");
    let tries = place.targets.calls.lock().expect("calls").len();
    assert!((10..20).contains(&tries), "tried {tries} times");
    tokio::time::sleep(40 * HOURS).await;
    assert_eq!(place.waiting(Stream::Dead).await, 120, "the first hundred wore out the schedule, the others were as old");
    place.tell(1, 200..201).await;
    place.targets.set("bad", Mood::Takes);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(numbers(&place.targets.told("bad")), [200], "the stream went on");

    let page = place.webhooks.dead(Some("t"), None, None, 100).await.expect("they are listed");
    assert_eq!((page.len(), page[0].reason.as_str(), page[0].event["n"].as_u64()), (100, "HTTP 500", Some(0)));
    let rest = place.webhooks.dead(Some("t"), Some(&hook), Some(&page[99].place), 100).await.expect("they are listed");
    assert_eq!(rest.len(), 20);
    assert_eq!(place.webhooks.dead(Some("other"), None, None, 100).await, Ok(vec![]), "they are their tenant's alone");
    assert!(place.webhooks.replay(Some("other"), &hook, &Replay::All).await.is_err());
    let one = Replay::Place(rest[0].place.clone());
    assert_eq!(place.webhooks.replay(Some("t"), &hook, &one).await, Ok(1));
    assert_eq!(place.webhooks.replay(Some("t"), &hook, &Replay::Batch(BatchId(1))).await, Ok(119));
    tokio::time::sleep(Duration::from_secs(10)).await;
    term.cancel();
    sending.await.expect("it ends");
    let told: BTreeSet<u64> = numbers(&place.targets.told("bad")).into_iter().collect();
    assert_eq!(told.len(), 121);
    assert_eq!(place.waiting(Stream::Dead).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_is_left_alone_as_long_as_it_asks_and_ended_when_it_is_gone() {
    let place = Place::new();
    place.hook("busy", &[EventKind::Receipt]).await;
    let gone = place.hook("gone", &[EventKind::Receipt]).await;
    place.targets.set("busy", Mood::AsksFor(HOURS));
    place.targets.set("gone", Mood::Says(410));
    place.tell(1, 0..2).await;
    let (term, sending) = place.send();
    tokio::time::sleep(HOURS - Duration::from_secs(5)).await;
    let busy = |place: &Place| place.targets.calls.lock().expect("calls").iter().filter(|(h, ..)| h == "refused busy").count();
    assert_eq!(busy(&place), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(busy(&place), 2);
    let ended = place.webhooks.get(Some("t"), &gone).await.expect("it is there");
    assert!(!ended.active && ended.ended.is_some());
    assert_eq!(place.waiting(Stream::Dead).await, 2, "what waited can be replayed");
    place.webhooks.forget();
    place.tell(1, 5..6).await;
    assert_eq!(place.waiting(Stream::Outbox).await, 3, "it is told nothing more");
    place.webhooks.remove(None, &gone).await.expect("it is removed");
    assert_eq!(place.waiting(Stream::Dead).await, 0, "and everything of it goes with it");
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_each_once_also_of_batches_that_nobody_saw_alive() {
    let place = Place::new();
    place.hook("a", &[EventKind::Batch]).await;
    let stores = place.store.stores();
    let put = async |id: u128, row: &BatchRow, version: u64| {
        let done = if version == 0 {
            stores.batches.insert(BatchId(id), row, 1)
        } else {
            stores.batches.replace(BatchId(id), version, row, 1)
        };
        done.await.expect("it is stored");
    };
    let now = || place.world.clock.now();
    let created = |id: u128| BatchRow::created(SmsBatch { batch_id: BatchId(id), ..batch() }, String::new(), now());
    let job = Changes::new(place.webhooks.clone());
    // Canceled before any round.
    let canceled = created(1).command(Command::Cancel, now()).expect("canceled");
    put(1, &canceled, 0).await;
    let ready = created(2).command(Command::EntryProcess, now()).expect("ready");
    put(2, &ready, 0).await;
    job.run_once().await.expect("a round");
    let running = ready.after(StepEvent::Start, None, now()).expect("running");
    put(2, &running, 1).await;
    // The next leader goes on where this one stood, and does nothing twice.
    let job = Changes::new(Webhooks::new(stores.clone(), place.world.clone(), place.targets.clone()));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        job.run_once().await.expect("a round");
    }
    let paused = running.command(Command::Pause, now()).expect("paused");
    let ended = paused.command(Command::Cancel, now()).expect("canceled");
    put(2, &ended, 2).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    job.run_once().await.expect("a round");
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(5)).await;
    term.cancel();
    sending.await.expect("it ends");
    let told = place.targets.told("a");
    let of = |id: u128| -> Vec<String> {
        let mine = told.iter().filter(|event| event["batch_id"] == format!("{id:032x}"));
        mine.map(|event| format!("{} {}", event["number"], event["state"].as_str().expect("a state"))).collect()
    };
    assert_eq!(of(1), ["1 CANCELED"]);
    assert_eq!(of(2), ["1 READY", "2 RUNNING", "3 PAUSED", "4 CANCELED"]);
}

fn report(raw: &str, rung: Rung) -> MatchedReport {
    let recipient = RecipientKey { lane: LaneKey { batch: BatchId(9), lane: 0 }, seq: 4 };
    let report = Report {
        message_id: "m".into(),
        number: Some(Msisdn(8_613_900_000_001)),
        reference: None,
        rung,
        done: None,
        error: "000".into(),
        raw: raw.into(),
        received: Timestamp(5),
    };
    MatchedReport { part: PartKey { recipient, part: 0 }, account: "main".into(), report }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_an_event_whose_id_is_what_it_says() {
    let place = Place::new();
    place.hook("a", &[EventKind::Receipt]).await;
    let row = BatchRow::created(SmsBatch { batch_id: BatchId(9), ..batch() }, String::new(), Timestamp(0));
    place.store.stores().batches.insert(BatchId(9), &row, 1).await.expect("it is stored");
    assert_eq!(ReportListener::wanted(&*place.webhooks).await, Ok(true));
    place.webhooks.reports(&[report("x", Rung::EnRoute), report("y", Rung::Delivered)]).await.expect("stored");
    tokio::time::sleep(Duration::from_millis(20)).await;
    place.webhooks.reports(&[report("y", Rung::Delivered)]).await.expect("stored");
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(5)).await;
    term.cancel();
    sending.await.expect("it ends");
    let told = place.targets.told("a");
    let ids: BTreeSet<&str> = told.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids.len(), 2, "the same report has the same id");
    assert_eq!((told[0]["type"].as_str(), told[0]["number"].as_str()), (Some("receipt"), Some("+8613900000001")));
    assert_eq!(place.webhooks.wanted(EventKind::Inbound).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_webhook_stops_nobody_else_and_can_be_removed() {
    let place = Place::new();
    let damaged = place.hook("damaged", &[EventKind::Receipt]).await;
    place.hook("good", &[EventKind::Receipt]).await;
    place.tell(1, 0..2).await;
    let stores = place.store.stores();
    stores.documents.put(Shelf::Webhook, &damaged, r#"{"id":"wh_"#).await.expect("stored");
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ReportListener::wanted(&*place.webhooks).await, Ok(true), "receipts do not wait for it");
    place.tell(1, 2..3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&place.targets.told("good")), [0, 1, 2]);
    assert_eq!(place.waiting(Stream::Outbox).await, 2, "what waits for it is not swept away");
    let listed = place.webhooks.list(None).await.expect("they are listed");
    let shown = listed.iter().find(|webhook| webhook.id == damaged).expect("it is seen");
    assert!(!shown.active && shown.ended.is_some() && listed.len() == 2);
    assert_eq!(place.webhooks.list(Some("t")).await.expect("they are listed").len(), 1, "nobody knows whose it was");
    assert!(place.webhooks.remove(Some("t"), &damaged).await.is_err());
    place.webhooks.remove(None, &damaged).await.expect("it is removed");
    assert_eq!(place.waiting(Stream::Outbox).await, 0);
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_state_is_damaged_is_tried_anew_and_loses_nothing() {
    let place = Place::new();
    let hook = place.hook("a", &[EventKind::Receipt]).await;
    let stores = place.store.stores();
    let state = |count: u64, attempts: u32, next_due: i64| json!({ "stored": 0, "attempts": attempts, "next_due": next_due, "failing_since": 0, "count": count, "last_error": "" });
    let worn_out = state(1, u32::MAX, 0);
    for (batch, damaged) in [state(u64::MAX, 1, 0), worn_out, state(1, 1, i64::MAX), json!("so far")].iter().enumerate() {
        let name = format!("{hook}/{:032x}", batch + 1);
        stores.documents.put(Shelf::WebhookStream, &name, &damaged.to_string()).await.expect("stored");
        place.tell(batch as u128 + 1, 0..150).await;
    }
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(10)).await;
    term.cancel();
    sending.await.expect("it ends");
    assert_eq!(place.targets.told("a").len(), 600);
    assert_eq!((place.waiting(Stream::Outbox).await, place.waiting(Stream::Dead).await), (0, 0), "none is given up early");
    assert_eq!(stores.documents.list(Shelf::WebhookStream, "wh_", None, 9).await, Ok(vec![]), "and the damage is gone");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_event_goes_to_the_dead_where_it_hides_no_other() {
    let place = Place::new();
    let hook = place.hook("a", &[EventKind::Receipt]).await;
    let stores = place.store.stores();
    let entry = |id: u64, body: &str| {
        let place = crate::ports::journal::Place { scope: format!("{hook}/{:032x}/", 1), at: Timestamp(0), id };
        crate::ports::journal::Entry { place, body: body.into() }
    };
    // The last is JSON to who looks at its brackets alone: half a character that no receiver can read.
    let broken = vec![entry(1, r#"{"n":1,"text"#), entry(2, "null"), entry(3, r#"{"n":"\ud800"}"#)];
    stores.journal.append(Stream::Outbox, broken).await.expect("stored");
    stores.journal.append(Stream::Dead, vec![entry(0, r#"{"event":{"n""#)]).await.expect("stored");
    place.tell(1, 5..8).await;
    let (term, sending) = place.send();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&place.targets.told("a")), [5, 6, 7]);
    let dead = place.webhooks.dead(Some("t"), None, None, 10).await.expect("they are listed");
    let seen: Vec<(&str, &Value)> = dead.iter().map(|dead| (dead.reason.as_str(), &dead.event)).collect();
    let reason = "its row is damaged";
    let texts = [json!(null), json!(r#"{"n":1,"text"#), json!("null"), json!(r#"{"n":"\ud800"}"#)];
    assert_eq!(seen, texts.iter().map(|text| (reason, text)).collect::<Vec<_>>());
    assert_eq!(place.webhooks.replay(Some("t"), &hook, &Replay::All).await, Ok(3), "what cannot be read stays");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((place.targets.told("a").len(), place.waiting(Stream::Dead).await), (3, 4), "and no damaged one is told");
    term.cancel();
    sending.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn counting_comes_behind_a_webhook_whatever_its_scopes_are() {
    let place = Place::new();
    let hook = place.hook("a", &[EventKind::Receipt]).await;
    let stores = place.store.stores();
    let entry = |scope: String| {
        let place = crate::ports::journal::Place { scope, at: Timestamp(i64::MAX), id: u64::MAX };
        crate::ports::journal::Entry { place, body: "{}".into() }
    };
    // None of them is the name of a batch. The last webhook is gone, and only its name begins like the other's.
    let scopes =
        [format!("{hook}/~~/"), format!("{hook}/\u{7f}/"), format!("{hook}/\u{10ffff}/"), hook.clone(), format!("{hook}0/1/")];
    stores.journal.append(Stream::Dead, scopes.into_iter().map(entry).collect()).await.expect("stored");
    Sender::new(place.webhooks.clone()).count().await.expect("it comes to an end");
    assert_eq!(place.waiting(Stream::Dead).await, 4);
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_again_when_nobody_knows_how_far_they_were_told() {
    for damaged in [r#"{"stored":0,"num"#, r#"{"stored":9223372036854775807,"number":77}"#] {
        let place = Place::new();
        place.hook("a", &[EventKind::Batch]).await;
        let stores = place.store.stores();
        let now = place.world.clock.now();
        let canceled = BatchRow::created(SmsBatch { batch_id: BatchId(1), ..batch() }, String::new(), now);
        let canceled = canceled.command(Command::Cancel, now).expect("canceled");
        stores.batches.insert(BatchId(1), &canceled, 1).await.expect("stored");
        for name in ["searched".to_owned(), format!("told/{:032x}", 1)] {
            stores.documents.put(Shelf::WebhookStream, &name, damaged).await.expect("stored");
        }
        Changes::new(place.webhooks.clone()).run_once().await.expect("a round");
        assert_eq!(place.waiting(Stream::Outbox).await, 1, "{damaged}");
    }
}
