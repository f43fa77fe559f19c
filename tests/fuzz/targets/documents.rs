//! Damaged bodies on every shelf and in every stream of a store, and in Redis: whatever they say, the services that read them
//! answer, or say what is damaged.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::access::{answers, audit, keys::Keys, rates};
use smsfleet::adapters::memory::clock::SimClock;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::redis::{budget, rates as shared_rates};
use smsfleet::adapters::system::SeededChance;
use smsfleet::coordinate::sweeper::{Keep, Sweeper};
use smsfleet::coordinate::{BindSlots, Members, members, slots};
use smsfleet::model::access::Role;
use smsfleet::model::batch::{BatchRow, Command, SmsBatch};
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::fleet;
use smsfleet::model::id::{BatchId, Msisdn, WorkerId};
use smsfleet::model::rate_shared::Visit;
use smsfleet::model::throughput::{Load, next_budget};
use smsfleet::model::time::Timestamp;
use smsfleet::model::webhook::{EVENTS_PER_CALL, EventKind};
use smsfleet::ports::caller::{Call, Called, Caller};
use smsfleet::ports::documents::Shelf;
use smsfleet::ports::journal::{Entry, Place, Stream};
use smsfleet::ports::{Stores, World};
use smsfleet::privacy::Eraser;
use smsfleet::receipts::{inbox, opt_out};
use smsfleet::runtime::erased::Erased;
use smsfleet::runtime::job::Job;
use smsfleet::statistics::{NumberExport, batch_clicks, number_history};
use smsfleet::webhooks::{Changes, Replay, Sender, Webhooks};
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::is_reason;

const BATCH: BatchId = BatchId(1);
const NUMBER: Msisdn = Msisdn(4_915_112_345_678);
const NOW: Timestamp = Timestamp(1_767_367_860_000);
/// What no reason may copy: it stands in the seeds as a secret.
const SECRET: &str = "c2VjcmV0";
const KEY: &str = "sfk_k000000001_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
/// Calls of one run: a stream of a few events has no more, however its state is damaged.
const CALLS_MAX: usize = 200;

/// Where a body goes.
#[derive(Clone, Copy)]
enum Where {
    On(Shelf),
    In(Stream),
    Rate,
    Budget,
}

/// All of them, by the number that a seed says, with the names under which the services look.
const PLACES: [(Where, &str); 23] = [
    (Where::On(Shelf::ApiKey), "k000000001"),
    (Where::On(Shelf::Answer), "answer"),
    (Where::On(Shelf::Rate), "a"),
    (Where::On(Shelf::Webhook), "wh_1"),
    (Where::On(Shelf::WebhookStream), "wh_1/00000000000000000000000000000001"),
    (Where::On(Shelf::WebhookStream), "live/00000000000000000000000000000001"),
    (Where::On(Shelf::WebhookStream), "told/00000000000000000000000000000001"),
    (Where::On(Shelf::WebhookStream), "searched"),
    (Where::On(Shelf::OptOut), "4915112345678"),
    (Where::On(Shelf::Upload), "u"),
    (Where::On(Shelf::Erased), "00000000000000000000000000000001-2-0"),
    (Where::On(Shelf::Erased), "mark"),
    (Where::On(Shelf::Worker), "w0000000000000007"),
    (Where::On(Shelf::Worker), "w0000000000000008"),
    (Where::On(Shelf::Slots), "a"),
    (Where::In(Stream::Audit), "day/2026-01-02/"),
    (Where::In(Stream::Inbox), "2026-01-02/"),
    (Where::In(Stream::Click), "00000000000000000000000000000001/000000000000007/"),
    (Where::In(Stream::Click), "sweeps/00000000000000000000000000000001/"),
    (Where::In(Stream::Outbox), "wh_1/00000000000000000000000000000001/"),
    (Where::In(Stream::Dead), "wh_1/00000000000000000000000000000001/"),
    (Where::Rate, ""),
    (Where::Budget, ""),
];

/// Bodies: an octet that says where, then the body behind its length.
pub fn documents(input: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(3_600), all(Input(input))).await.expect("it ends in time") })
}

async fn all(mut input: Input<'_>) -> bool {
    let chance = Arc::new(SeededChance::from_seed(1));
    let stores = MemoryStore::new(chance.clone()).stores();
    let world = World { clock: Arc::new(SimClock::new(NOW)), chance };
    let (mut told, mut id) = (Told(true), 0);
    while !input.0.is_empty() {
        let (place, name) = PLACES[usize::from(input.byte()) % PLACES.len()];
        let body = String::from_utf8_lossy(input.piece()).into_owned();
        id += 1;
        match place {
            Where::On(shelf) => stores.documents.put(shelf, name, &body).await.expect("stored"),
            Where::In(stream) => {
                let place = Place { scope: name.into(), at: Timestamp(NOW.0 + id), id: id as u64 };
                stores.journal.append(stream, vec![Entry { place, body }]).await.expect("stored");
            }
            Where::Rate => told.0 &= rate(&body),
            Where::Budget => told.0 &= write_budget(&body),
        }
    }
    let batch = SmsBatch { batch_id: BATCH, url: Some("https://shop.example".into()), ..SmsBatch::new("l", "Hi {{url}}", "web") };
    let row = BatchRow::created(batch, String::new(), NOW).command(Command::EntryProcess, NOW).expect("ready");
    stores.batches.insert(BATCH, &row, 1).await.expect("stored");

    access(&stores, &world, &mut told).await;
    coordinate(&stores, &world, &mut told).await;
    webhooks(&stores, &world, &mut told).await;
    people(&stores, &world, &row, &mut told).await;
    let keep = Keep::all(Duration::from_secs(60));
    told.of(Sweeper::new(stores.clone(), world.clone(), keep).run_once().await);
    told.0
}

async fn access(stores: &Stores, world: &World, told: &mut Told) {
    let keys = Keys::new(stores.clone(), world.clone());
    told.of(keys.recognise(KEY).await);
    told.of(keys.list().await);
    told.of(keys.revoke("k000000001").await);
    keys.create("desk", Role::Viewer, "t", None).await.expect("others are made whatever one is like");
    told.of(rates::get(stores, "a").await);
    told.of(rates::all(stores).await);
    rates::set(stores, "a", Some(5), NOW).await.expect("set");
    assert_eq!(rates::all(stores).await, Ok(vec![("a".into(), 5)]), "a rate that is set anew is right again");
    told.of(answers::take(stores, "answer", b"request", NOW).await);
    answers::give_up(stores, "answer").await.expect("forgotten");
    told.of(audit::list(stores, &audit::Wanted::default(), None, 10).await);
    told.of(audit::list(stores, &audit::Wanted { tenant: Some("t".into()), ..audit::Wanted::default() }, None, 1).await);
}

async fn coordinate(stores: &Stores, world: &World, told: &mut Told) {
    if let Some(sheets) = told.of(members::all(stores).await) {
        let _ = fleet::Seen::of(&sheets, world.clock.now());
        let _ = fleet::together(sheets.iter().flat_map(|sheet| &sheet.accounts));
    }
    told.of(Members::new(stores.clone(), world.clone()).run_once().await);
    if let Some((slots, _)) = told.of(slots::read(stores, "a").await) {
        let _ = slots.holds(WorkerId(7), world.clock.now());
    }
    told.of(BindSlots::new(stores.clone(), world.clone(), [("a".into(), 2)].into()).run_once().await);
}

/// A target that takes every other call.
#[derive(Default)]
struct Target(Mutex<usize>);

#[async_trait::async_trait]
impl Caller for Target {
    async fn check(&self, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    async fn post(&self, call: Call) -> Result<Called, String> {
        let body: serde_json::Value = serde_json::from_slice(&call.body).expect("a call is JSON whatever was stored");
        let events = body["events"].as_array().expect("events");
        assert!((1..=EVENTS_PER_CALL).contains(&events.len()) && events.iter().all(serde_json::Value::is_object));
        assert!(call.headers.iter().all(|(_, value)| !value.is_empty()), "nothing goes unsigned");
        let mut calls = self.0.lock().expect("no run goes on behind a panic");
        *calls += 1;
        assert!(*calls <= CALLS_MAX);
        Ok(Called { status: if calls.is_multiple_of(2) { 200 } else { 503 }, retry_after: None })
    }
}

async fn webhooks(stores: &Stores, world: &World, told: &mut Told) {
    let webhooks = Webhooks::new(stores.clone(), world.clone(), Arc::new(Target::default()));
    webhooks.wanted(EventKind::Receipt).await.expect("receipts wait for no damaged webhook");
    told.of(Changes::new(webhooks.clone()).run_once().await);
    let listed = webhooks.list(None).await.expect("they are listed");
    told.of(webhooks.get(None, "wh_1").await);
    let page = webhooks.dead(None, None, None, 10).await.expect("what is damaged is shown as such");
    if let Some(first) = page.first() {
        told.of(webhooks.replay(None, "wh_1", &Replay::Place(first.place.clone())).await);
    }
    told.of(webhooks.replay(None, "wh_1", &Replay::All).await);
    let term = CancellationToken::new();
    let sending = Sender::new(webhooks.clone()).term(term.clone());
    let ends = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        term.cancel();
    };
    tokio::join!(sending, ends);
    told.of(webhooks.enable(None, "wh_1", true).await);
    let added = webhooks.add(None, "https://b", vec![EventKind::Batch]).await.expect("others are added whatever one is like");
    webhooks.remove(None, &added.webhook.id).await.expect("removed");
    for webhook in listed {
        webhooks.remove(None, &webhook.id).await.expect("a damaged one is removed as any other");
    }
    assert_eq!(webhooks.list(None).await, Ok(vec![]));
}

async fn people(stores: &Stores, world: &World, row: &BatchRow, told: &mut Told) {
    told.of(Erased::new(world.clock.clone()).look(stores).await);
    told.of(opt_out::check(stores, &[NUMBER]).await);
    told.of(inbox::list(stores, &inbox::InboxFilter::default(), None, 10).await);
    told.of(inbox::list(stores, &inbox::InboxFilter { number: Some(NUMBER), ..Default::default() }, None, 1).await);
    told.of(batch_clicks(stores, row).await);
    told.of(number_history(stores, &Arc::default(), NUMBER, None, None, 10, NOW).await);
    let mut export = NumberExport::new(stores.clone(), Arc::default(), NUMBER, NOW);
    while told.of(export.next().await).flatten().is_some() {}
    let eraser = Eraser::new(stores.clone(), world.clone(), vec![], Arc::default());
    eraser.erase(NUMBER).await.expect("a damaged row does not stop an erasure");
    let mut export = NumberExport::new(stores.clone(), Arc::default(), NUMBER, NOW);
    while let Some(piece) = told.of(export.next().await).flatten() {
        let kept = |value: &serde_json::Value| value["kind"] != "suppression" && value["kind"] != "audit";
        assert!(!piece.iter().any(kept), "nothing of the number is left: {piece:?}");
    }
}

/// An account's rate over a fleet; whether it can be gone on with. What can be grants what its ceiling allows, and does not
/// stand still.
fn rate(body: &str) -> bool {
    let now = Duration::from_millis(NOW.0 as u64);
    let Some(mut shared) = shared_rates::read(body, now) else { return false };
    let _ = (shared.sharers(), shared.life(), shared.governor().depth());
    let (mut granted, mut at) = (0u64, now);
    for step in 0..400u32 {
        at += Duration::from_millis(10);
        let throttled = u32::from(step < 200 && step % 100 == 50);
        let visit = Visit { holder: 1, want: 10, others: 1, throttled, outstanding: 5, ..Visit::default() };
        let slice = shared.visit(&visit, at);
        assert!(slice.granted <= 10 && slice.wait <= Duration::from_secs(2), "{slice:?}");
        granted += u64::from(slice.granted);
        assert!(shared.is_usable(at), "it stays one that can be gone on with: {shared:?}");
    }
    assert!(granted > 0, "it does not stand still: {shared:?}");
    true
}

/// The write budget that the leader published; whether it is another than the first.
fn write_budget(body: &str) -> bool {
    let budget = budget::read(body);
    assert!(next_budget(budget, Load::default(), true).is_usable());
    let _ = Duration::from_secs_f64(1_000.0 / budget.share(10_000).packs_per_second);
    budget != budget::read("")
}

/// Hears what calls come to.
struct Told(bool);

impl Told {
    /// An answer, or a reason with a code that fits and that copies nothing.
    fn of<T, E: Into<Fault>>(&mut self, answer: Result<T, E>) -> Option<T> {
        let fault: Fault = match answer {
            Ok(answer) => return Some(answer),
            Err(error) => error.into(),
        };
        assert!(is_reason(&fault.context) && !fault.context.contains(SECRET) && !fault.context.contains("4915112345678"));
        match fault.code {
            Code::StoreCorrupt | Code::KeyNotFound => self.0 = false,
            // What was asked does not fit what is stored, which is as it should be.
            Code::InputInvalid | Code::KeyInvalid | Code::NotAllowed | Code::IdempotencyConflict | Code::CommandRunning => {}
            code => panic!("nothing is left open in memory: {code} {}", fault.context),
        }
        None
    }
}
