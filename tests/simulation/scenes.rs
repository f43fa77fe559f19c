//! Single scenes with nothing in the way: what an operator is told, and what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::memory::clock::SimClock;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::system::SeededChance;
use smsfleet::batch::{ConflictKind, RetryRequest, SmsBatchService};
use smsfleet::model::batch::{BatchRow, Command, SmsBatch};
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, Msisdn};
use smsfleet::model::order::{RetryFilter, RetryWhat};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::schedule::{LateStart, SendingHours};
use smsfleet::model::state::StepState;
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::World;
use smsfleet::ports::clock::Clock;
use smsfleet::roles::selection::Selection;
use smsfleet::runtime::control::change;
use smsfleet::statistics::RecipientLine;
use tokio::sync::Notify;

use super::faults::Fired;
use super::network::Network;
use super::oracle;
use super::process::{Process, Shared, accounts, offers};

/// Eight in the morning, UTC.
const START: Timestamp = Timestamp(1_800_000_000_000);

/// A fleet of one process and its operator.
struct Scene {
    shared: Shared,
    service: SmsBatchService,
    world: World,
}

impl Scene {
    fn new() -> Scene {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(START));
        let network = Network::new(7, clock.clone(), Fired::default());
        *network.per_mille.lock().expect("not poisoned") = 0;
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let shared = Shared::new(&stores, network, clock.clone());
        let world = World { clock, chance: Arc::new(SeededChance::from_seed(3)) };
        let select = Selection::new(shared.stores.clone(), accounts());
        let service = SmsBatchService::new(shared.stores.clone(), world.clone(), Arc::new(Notify::new()), select);
        Scene { shared, service, world }
    }

    fn start(&self) -> Process {
        Process::start(&self.shared, 11, None)
    }

    async fn create(&self, records: u64, change: impl FnOnce(&mut SmsBatch)) -> BatchId {
        let mut batch = SmsBatch {
            content_signature: "Sim".into(),
            auto_trigger: true,
            min_recipients_per_lane: 50,
            ..SmsBatch::new(&format!("5:{records}"), "Hello {{name}}", "sim")
        };
        change(&mut batch);
        let created = self.service.create("key", batch).await.expect("created").batch;
        self.service.entry_process(created).await.expect("prepared");
        created
    }

    async fn row(&self, id: BatchId) -> BatchRow {
        self.service.load(id).await.expect("the batch is there").row
    }

    async fn until(&self, id: BatchId, what: impl Fn(&BatchRow) -> bool) -> BatchRow {
        let waited = tokio::time::timeout(Duration::from_secs(4 * 3_600), async {
            loop {
                let row = self.row(id).await;
                if what(&row) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        waited.await.expect("it comes")
    }

    async fn until_state(&self, id: BatchId, state: StepState) -> BatchRow {
        self.until(id, |row| row.current_step == CurrentStep::Delivery && row.delivery.state == state).await
    }

    async fn until_settled(&self, id: BatchId) -> BatchRow {
        self.until(id, |row| row.settlement.as_ref().is_some_and(|settlement| settlement.settled)).await
    }

    fn got(&self) -> usize {
        self.shared.network.known().got.len()
    }
}

fn of(row: &BatchRow, ends: Ends) -> u64 {
    row.settlement.as_ref().map_or(0, |settlement| settlement.of(ends))
}

fn play(scene: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(86_400), scene).await.expect("it ends") });
}

#[test]
fn a_missed_start_is_held_sent_or_canceled_as_the_batch_says() {
    for (late, state) in [
        (LateStart::Hold, StepState::Paused),
        (LateStart::Send, StepState::CompletedSucceeded),
        (LateStart::Cancel, StepState::Canceled),
    ] {
        play(async {
            let scene = Scene::new();
            let id = scene
                .create(60, |batch| {
                    batch.late_start = late;
                    batch.not_after = Some(START.plus(Duration::from_millis(1)));
                })
                .await;
            let process = scene.start();
            let row = scene.until_state(id, state).await;
            let missed = row.delivery.reason.as_ref().map(|(code, _)| *code);
            assert_eq!(
                (scene.got() > 0, missed),
                match late {
                    LateStart::Send => (true, None),
                    LateStart::Hold | LateStart::Cancel => (false, Some(Code::StartMissed)),
                }
            );
            if late == LateStart::Hold {
                scene.service.command(id, Command::Resume).await.expect("a person decides");
            }
            let row = scene.until_settled(id).await;
            let canceled = late == LateStart::Cancel;
            assert_eq!((of(&row, Ends::Accepted) > 50, of(&row, Ends::Canceled) > 50), (!canceled, canceled), "{late:?}");
            process.stop(&scene.shared).await;
        });
    }
}

#[test]
fn a_batch_is_sent_within_its_own_hours() {
    play(async {
        let scene = Scene::new();
        let hours = SendingHours { from: 8 * 60 + 10, to: 22 * 60, zone: "UTC".into() };
        let id = scene.create(100, |batch| batch.hours = Some(hours.clone())).await;
        let process = scene.start();
        scene.until_state(id, StepState::Running).await;
        tokio::time::sleep(Duration::from_secs(8 * 60)).await;
        assert_eq!(scene.got(), 0, "it is not ten past eight yet");
        let row = scene.until_settled(id).await;
        assert!(of(&row, Ends::Accepted) > 80 && row.delivery.ended > Some(START.plus(Duration::from_secs(600))));
        process.stop(&scene.shared).await;

        let unknown =
            SmsBatch { hours: Some(SendingHours { zone: "Moon/Sea".into(), ..hours }), ..SmsBatch::new("5:9", "x", "sim") };
        let refused = scene.service.create("other", unknown).await.expect_err("nobody knows the zone");
        assert_eq!(refused.code, Code::InputInvalid);
    });
}

#[test]
fn a_pause_says_when_the_last_message_went() {
    play(async {
        let scene = Scene::new();
        let id = scene.create(4_000, |_| {}).await;
        let process = scene.start();
        scene.until_state(id, StepState::Running).await;
        while scene.got() < 300 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let asked = scene.shared.clock.boot();
        let answer = scene.service.pause(id, Some(Duration::from_secs(30))).await.expect("paused");
        let receipt = answer.pause.expect("a pause has a receipt");
        let end = receipt.end.clone().expect("it was waited for");
        assert!(end.still && end.in_flight == 0 && receipt.in_flight > 0, "{receipt:?}");
        let last = scene.shared.network.known().got.values().map(|got| got.last).max().expect("somebody got it");
        let said = end.last_submit.expect("something was sent").since(START);
        assert!(said >= last && last <= asked + Duration::from_secs(1), "{said:?} {last:?} {asked:?}");
        let got = scene.got();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.got(), got);
        let again = scene.service.pause(id, None).await.expect("paused").pause.expect("a receipt");
        assert_eq!((again.in_flight, again.may_still_go), (0, 0));
        scene.service.command(id, Command::Resume).await.expect("resumed");
        let row = scene.until_settled(id).await;
        assert!(of(&row, Ends::Accepted) > 3_500);
        process.stop(&scene.shared).await;
    });
}

#[test]
fn a_change_of_provider_is_the_one_that_was_shown() {
    play(async {
        let scene = Scene::new();
        let id = scene.create(200, |batch| batch.auto_trigger = false).await;
        let process = scene.start();
        let row = scene.until(id, |row| row.sealed.is_some()).await;
        let service = &scene.service;
        let mut offers = offers();
        offers.iter_mut().filter(|offer| offer.account.name == "alt").for_each(|offer| {
            (offer.account.price, offer.account.currency) = (Some(0.5), "EUR".into());
        });

        let plan = service.plan_change(id, "alt", &offers).await.expect("a plan");
        let counts = plan.counts.clone().expect("it is prepared");
        let sealed = row.sealed.expect("sealed");
        let (row_hash, sealed) = (sealed.plan_hash, sealed.totals);
        // The old account's signature makes every text UCS-2; the new one signs by itself.
        assert_eq!((counts.unsent, counts.now.segments, counts.in_flight), (sealed.recipients, sealed.segments, 0));
        assert!(counts.then.segments < counts.now.segments);
        let price = counts.then.price.first().expect("a price");
        assert_eq!((price.currency.as_str(), price.amount), ("EUR", 0.5 * counts.then.segments as f64));
        assert!(counts.now.price.is_empty() && plan.rate > 0.0 && counts.eta_seconds.is_some());
        let conflicts: Vec<_> = plan.conflicts.iter().map(|conflict| (conflict.kind, conflict.recipients)).collect();
        assert_eq!(conflicts, [(ConflictKind::Signature, Some(sealed.recipients))]);

        for (to, hash, order, code) in [
            ("alt", "another", "o1", Code::PlanChanged),
            ("nobody", &plan.plan_hash, "o1", Code::AccountUnknown),
            ("sim", &plan.plan_hash, "o1", Code::InputInvalid),
            ("alt", &plan.plan_hash, "", Code::InputInvalid),
        ] {
            let refused = service.change_provider(id, to, hash, &offers, order).await.expect_err("not this");
            assert_eq!(refused.code, code, "{refused}");
        }
        let dearer = offers.iter().cloned().map(|mut offer| {
            offer.account.price = Some(9.0);
            offer
        });
        let dearer: Vec<_> = dearer.collect();
        let refused = service.change_provider(id, "alt", &plan.plan_hash, &dearer, "o1").await.expect_err("it costs more now");
        assert_eq!(refused.code, Code::PlanChanged);

        let answer = service.change_provider(id, "alt", &plan.plan_hash, &offers, "o1").await.expect("changed");
        assert!(!answer.already);
        let again = service.change_provider(id, "alt", &plan.plan_hash, &offers, "o1").await.expect("the same order");
        assert_eq!((again.already, again.task_code), (true, answer.task_code));
        let other = service.change_provider(id, "sim", &plan.plan_hash, &offers, "o1").await.expect_err("the key is used");
        assert_eq!(other.code, Code::IdempotencyConflict);

        let seen_before = service.start(id, Some(&row_hash)).await.expect_err("another plan was approved");
        assert_eq!(seen_before.code, Code::PlanChanged);
        service.start(id, Some(&plan.plan_hash)).await.expect("started");
        scene.until_state(id, StepState::Running).await;
        let refused = service.plan_change(id, "sim", &offers).await.expect_err("it runs");
        assert_eq!(refused.code, Code::NotAllowed);
        scene.until_settled(id).await;
        {
            let known = scene.shared.network.known();
            assert!(known.got.values().all(|got| got.accounts.iter().eq(["alt"])));
            assert_eq!(known.got.len() as u64, sealed.recipients);
        }
        process.stop(&scene.shared).await;
    });
}

#[test]
fn an_order_whose_command_died_is_finished_by_the_leader() {
    play(async {
        let scene = Scene::new();
        let id = scene.create(600, |_| {}).await;
        // A provider that is out of sorts: some are refused for good, some are never answered.
        *scene.shared.network.per_mille.lock().expect("not poisoned") = 1_000;
        let process = scene.start();
        let row = scene.until_settled(id).await;
        let sent = |row| of(row, Ends::Accepted) + of(row, Ends::Uncertain);
        let (failed, before) = (of(&row, Ends::Failed), sent(&row));
        assert!(failed > 50, "{:?}", row.settlement);
        let lines = async |row| oracle::lines(&scene.shared, row).await.expect("they are read");
        let refused: BTreeSet<String> =
            lines(&row).await.into_iter().filter(|line| line.outcome == Ends::Failed).map(|line| line.number).collect();
        *scene.shared.network.per_mille.lock().expect("not poisoned") = 0;

        let now = scene.world.clock.now();
        let died = change(&*scene.shared.stores.batches, id, &*scene.world.chance, |current| {
            current.row.order_retry("o", "digest", RetryWhat::Failed, None, now)
        });
        died.await.expect("the store answers").expect("ordered");
        scene.shared.network.known().operators.retried(id, None, scene.shared.clock.now());
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pending = scene.row(id).await;
        assert_eq!((pending.delivery.state, pending.orders.pending.is_some()), (StepState::Ready, true), "it is not dispatched");
        let other = scene.service.plan_retry(id, &RetryWhat::Failed, &offers()).await.expect_err("one at a time");
        assert_eq!(other.code, Code::NotAllowed);

        let row = scene.until_settled(id).await;
        assert_eq!(row.orders.carried[0].recipients, Some(failed));
        assert_eq!((of(&row, Ends::Failed), sent(&row)), (0, before + failed), "{:?}", row.settlement);
        // Whom a part was refused and another never answered is in doubt once the refused one is taken, and nobody else is.
        let in_doubt = |line: &RecipientLine| line.outcome == Ends::Uncertain && refused.contains(&line.number);
        for line in lines(&row).await.into_iter().filter(in_doubt) {
            let parts = |what: &str| -> BTreeSet<u8> {
                line.history.iter().filter(|event| event.what == what).map(|event| event.part).collect()
            };
            let (failed, accepted, silent) = (parts("failed"), parts("accepted"), parts("no_answer"));
            assert!(failed.is_subset(&accepted) && !silent.is_subset(&accepted), "{line:?}");
        }
        assert_eq!(scene.shared.network.known().wrong, Vec::<String>::new());
        assert!(scene.shared.network.known().got.values().all(|got| !got.repeated()));
        process.stop(&scene.shared).await;
    });
}

#[test]
fn a_retry_sends_exactly_whom_its_plan_named() {
    play(async {
        let scene = Scene::new();
        let id = scene.create(300, |batch| batch.not_after = Some(START.plus(Duration::from_secs(600)))).await;
        *scene.shared.network.per_mille.lock().expect("not poisoned") = 1_000;
        let process = scene.start();
        let row = scene.until_settled(id).await;
        let failed = of(&row, Ends::Failed);
        *scene.shared.network.per_mille.lock().expect("not poisoned") = 0;
        let service = &scene.service;

        let all = service.plan_retry(id, &RetryWhat::Failed, &offers()).await.expect("a plan");
        assert_eq!(all.recipients, failed);
        // Every second one of those whom the provider refused.
        let lines = oracle::lines(&scene.shared, &row).await.expect("they are read");
        let refused = lines.iter().filter(|line| line.outcome == Ends::Failed && line.code == Some(Code::ProviderRefused));
        let digits = |line: &RecipientLine| line.number.trim_start_matches('+').parse().map(Msisdn);
        let numbers: Vec<Msisdn> = refused.step_by(2).map(|line| digits(line).expect("a number")).collect();
        let named = numbers.len() as u64;
        let refused = RetryWhat::Filter(RetryFilter { codes: vec![Code::ProviderRefused], numbers, ..RetryFilter::default() });
        let some = service.plan_retry(id, &refused, &offers()).await.expect("a plan");
        assert!(named > 5 && named < failed, "{named} of {failed}: {:?}", row.settlement);
        assert_eq!(some.recipients, named);
        assert_ne!(some.plan_hash, all.plan_hash);
        let wrong = RetryWhat::Filter(RetryFilter { codes: vec![Code::NotEncodable], ..RetryFilter::default() });
        assert_eq!(service.plan_retry(id, &wrong, &offers()).await.expect("a plan").recipients, 0);
        let nobody = RetryWhat::Filter(RetryFilter { numbers: vec![Msisdn(1)], ..RetryFilter::default() });
        assert_eq!(service.plan_retry(id, &nobody, &offers()).await.expect("a plan").recipients, 0);

        let mut request = RetryRequest { what: refused, not_after: None };
        tokio::time::sleep(Duration::from_secs(700)).await;
        let late = service.retry(id, &request, None, "o1").await.expect_err("its time has passed");
        assert_eq!(late.code, Code::NotAllowed);
        request.not_after = Some(scene.shared.clock.now().plus(Duration::from_secs(3_600)));
        let changed = service.retry(id, &request, Some(&all.plan_hash), "o2").await.expect_err("another plan");
        assert_eq!(changed.code, Code::PlanChanged);
        scene.shared.network.known().operators.retried(id, None, scene.shared.clock.now());
        let answer = service.retry(id, &request, Some(&some.plan_hash), "o2").await.expect("ordered");
        assert_eq!((answer.ordered, answer.already), (Some(some.recipients), false));
        let again = service.retry(id, &request, Some(&some.plan_hash), "o2").await.expect("the same order");
        assert_eq!((again.ordered, again.already), (Some(some.recipients), true));

        let row = scene.until_settled(id).await;
        assert_eq!(of(&row, Ends::Failed), failed - some.recipients);
        assert_eq!(scene.shared.network.known().wrong, Vec::<String>::new());
        process.stop(&scene.shared).await;
    });
}

#[test]
fn nobody_retries_what_was_canceled() {
    play(async {
        let scene = Scene::new();
        let id = scene.create(60, |batch| batch.auto_trigger = false).await;
        let process = scene.start();
        scene.until(id, |row| row.sealed.is_some()).await;
        scene.service.command(id, Command::Cancel).await.expect("canceled");
        for what in [RetryWhat::Failed, RetryWhat::Unsent] {
            let request = RetryRequest { what, not_after: None };
            let refused = scene.service.retry(id, &request, None, "o").await.expect_err("it was canceled");
            assert_eq!(refused.code, Code::NotAllowed);
        }
        process.stop(&scene.shared).await;
    });
}
