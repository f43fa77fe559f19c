//! Two owners of a lane, late writes, dead and frozen workers: nobody gets it twice, and what was answered counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fakes::{ANSWER_TIMEOUT, BATCH, Bed, Fate, LANE, START, WINDOW, not_now, number, taken};
use crate::adapters::embedded::engine::Table;
use crate::model::answer::{Answer, NotNow};
use crate::model::id::{Msisdn, TaskCode};
use crate::model::ledger::Ledger;
use crate::model::limits::{LANE_WINDOWS_MAX, QUEUE_FULL_TRIES_MAX, SEND_BY};
use crate::model::outcome::Outcome;
use crate::model::receipt::{Report, Rung};
use crate::model::state::StepState;
use crate::model::task::tokens_of;
use crate::model::window::OnUncertain;
use crate::ports::control::Cas;
use crate::ports::queue::QueueEvent;
use crate::ports::receipts::ParkedReport;
use crate::runtime::control::change;

const MOMENT: Duration = Duration::from_millis(400);

async fn resending(people: u32) -> Bed {
    Bed::with(&[people], |batch, _| batch.on_uncertain = OnUncertain::Resend).await
}

#[tokio::test(start_paused = true)]
async fn an_account_that_takes_all_and_answers_nothing_sends_nobody_without_end() {
    let bed = resending(2 * WINDOW).await;
    bed.answers(|_| (Duration::from_millis(20), Answer::NoAnswer));
    let worker = bed.worker(1).await;
    let ledger = bed.until_done().await;
    assert_eq!(ledger.totals.uncertain, u64::from(2 * WINDOW));
    assert!(bed.times().values().all(|times| *times == 4), "{:?}", bed.times());
    let first = bed.got().iter().filter(|got| got.submit.number.0 == number(0)).map(|got| got.at).collect::<Vec<_>>();
    let waited: Vec<u64> = first.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waited, [5, 15, 45]);
    let settlement = bed.recount().await;
    assert_eq!((settlement.of(Outcome::Uncertain), settlement.unaccounted()), (u64::from(2 * WINDOW), 0), "{settlement:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whose_last_try_was_refused_has_failed_though_its_worker_died_before_the_window_ended() {
    let bed = Bed::new(WINDOW).await;
    let tries: Arc<Mutex<BTreeMap<u64, u32>>> = Arc::default();
    bed.answers({
        let tries = tries.clone();
        move |submit| {
            let mut tries = tries.lock().expect("not poisoned");
            let times = tries.entry(submit.number.0).or_default();
            *times += 1;
            let full = submit.seq == 5 || submit.seq == 6;
            let silent = submit.seq == 6 && *times > u32::from(QUEUE_FULL_TRIES_MAX);
            let after = if silent { Duration::from_secs(3_600) } else { Duration::from_millis(20) };
            (after, if full { not_now(NotNow::QueueFull) } else { taken(submit) })
        }
    });
    let first = bed.worker(1).await;
    while tries.lock().expect("not poisoned").get(&number(6)).is_none_or(|times| *times <= u32::from(QUEUE_FULL_TRIES_MAX)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(MOMENT).await;
    first.kill();
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.failed, ledger.totals.uncertain, bed.judged().await), (1, 1, 1));
    // As when the step ends: whoever is open then was canceled.
    let ended = change(&*bed.stores.ledgers, LANE, &*bed.world.chance, |read| read.row.fence_closed(1).ok_or(()));
    ended.await.expect("stored").expect("not there before");
    let settlement = bed.recount().await;
    let of = [Outcome::Failed, Outcome::Uncertain, Outcome::Canceled].map(|outcome| settlement.of(outcome));
    assert_eq!((of, settlement.unaccounted()), ([1, 1, 0], 0), "{settlement:?}");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_to_be_sent_again_is_though_the_batch_cannot_be_read_when_the_window_closes() {
    let bed = resending(WINDOW).await;
    let mut told = BTreeSet::new();
    bed.answers(move |submit| {
        let silent = told.insert(submit.seq);
        (Duration::from_secs(2), if silent { Answer::NoAnswer } else { taken(submit) })
    });
    let worker = bed.worker(1).await;
    bed.until("a window is open", |ledger| ledger.open.len() == 1).await;
    tokio::time::sleep(MOMENT).await;
    bed.batches.is_away.store(true, Ordering::Relaxed);
    bed.until("it was closed", |ledger| ledger.open.is_empty()).await;
    bed.batches.is_away.store(false, Ordering::Relaxed);
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(WINDOW), 0));
    assert!(bed.times().values().all(|times| *times == 2));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_gets_a_lane_back_with_its_own_windows_open_waits_for_them() {
    let bed = Bed::new(20 * WINDOW).await;
    *bed.pace.answer_time.lock().expect("not poisoned") = Duration::from_secs(2);
    bed.answers_after(Duration::from_secs(15));
    let worker = bed.worker(1).await;
    bed.until("as many as may be are open", |ledger| ledger.open.len() == LANE_WINDOWS_MAX).await;
    tokio::time::sleep(MOMENT).await;
    worker.queue.push(QueueEvent::Revoked(vec![crate::model::lane::partition_of(BATCH, 0)]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    bed.give_all(&worker).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = bed.batches.times.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let readings = bed.batches.times.load(Ordering::Relaxed) - before;
    assert!((5..30).contains(&readings), "{readings} in five seconds");
    bed.until_done().await;
    bed.once_each(0..20 * WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_declare_that_arrives_behind_its_successors_changes_nothing() {
    let bed = resending(3 * WINDOW).await;
    bed.next_declare(Fate::Unanswered(Duration::from_secs(5)));
    let first = bed.worker(1).await;
    bed.until("all was declared and answered", Ledger::is_done).await;
    assert!(bed.declares.late.lock().expect("not poisoned").is_empty(), "the first declare has not arrived yet");
    first.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(*bed.declares.late.lock().expect("not poisoned"), [Cas::Refused]);
    let second = bed.worker(2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    bed.once_each(0..3 * WINDOW);
    assert!(bed.ledger().await.is_done());
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_declare_that_is_refused_late_sends_nobody() {
    let bed = Bed::new(WINDOW).await;
    // It arrives when somebody else has claimed the lane and declared: it is refused, and nobody may be sent under it.
    bed.next_declare(Fate::StoredLate(Duration::from_secs(8)));
    let first = bed.worker(1).await;
    tokio::time::sleep(MOMENT).await;
    bed.answers_after(Duration::from_secs(20));
    let second = bed.worker(2).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    bed.once_each(0..WINDOW);
    assert_eq!(bed.until_done().await.totals.accepted, u64::from(WINDOW));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_given_up_in_the_middle_of_a_declare_leaves_nobody_in_doubt_and_takes_no_rate_with_it() {
    let bed = Bed::new(WINDOW).await;
    let worker = bed.idle(1);
    let partition = tokens_of(bed.row().await.task_code(), LANE, &bed.ledger().await)[0].0;
    // More often than windows of this size fit into what may be open.
    for _ in 0..4 {
        bed.next_declare(Fate::StoredLate(Duration::from_secs(3)));
        bed.give_all(&worker).await;
        tokio::time::sleep(MOMENT).await;
        worker.queue.push(QueueEvent::Revoked(vec![partition]));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    // And while their packs are read.
    *bed.packs.time.lock().expect("not poisoned") = Duration::from_secs(3);
    for _ in 0..4 {
        bed.give_all(&worker).await;
        tokio::time::sleep(MOMENT).await;
        worker.queue.push(QueueEvent::Revoked(vec![partition]));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    *bed.packs.time.lock().expect("not poisoned") = Duration::ZERO;
    assert!(bed.got().is_empty(), "nobody is handed over for a lane that was given up");
    bed.give_all(&worker).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(bed.until_done().await.totals.accepted, u64::from(WINDOW));
    assert!(begun.elapsed() < SEND_BY, "nothing had to be waited for: {:?}", begun.elapsed());
    assert_eq!(bed.judged().await, 0);
    bed.once_each(0..WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_declare_that_was_stored_overtaken_and_never_answered_leaves_nobody_in_doubt() {
    let bed = Bed::new(WINDOW).await;
    bed.next_declare(Fate::Overtaken);
    let worker = bed.worker(1).await;
    assert_eq!(bed.until_done().await.totals.accepted, u64::from(WINDOW));
    assert_eq!(bed.judged().await, 0);
    bed.once_each(0..WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn answers_of_a_replaced_owner_count_and_nobody_of_them_is_sent_again() {
    let bed = resending(4 * WINDOW).await;
    bed.answers_after(Duration::from_secs(8));
    let first = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    let second = bed.worker(2).await;
    let taken_over = bed.until("the second goes on behind them", |ledger| ledger.first_pass() > 2 * WINDOW).await;
    assert!(taken_over.open.len() > 2 && taken_over.owner == second.ctx.worker, "{taken_over:?}");
    let ledger = bed.until_done().await;
    assert_eq!(ledger.totals.accepted, u64::from(4 * WINDOW));
    assert_eq!(bed.judged().await, 0, "all answers of the first were there before anybody had to judge");
    bed.once_each(0..4 * WINDOW);
    let settlement = bed.recount().await;
    assert_eq!((settlement.of(Outcome::Accepted), settlement.unaccounted()), (u64::from(4 * WINDOW), 0));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whom_the_account_was_silent_of_is_findable_though_the_worker_died_before_its_window_ended() {
    let bed = Bed::new(WINDOW).await;
    // The first is never answered, and that is known at once; the others' answers are still on their way when the worker dies.
    bed.answers(|submit| match submit.number.0 == number(0) {
        true => (Duration::from_millis(20), Answer::NoAnswer),
        false => (Duration::from_secs(3_600), taken(submit)),
    });
    let first = bed.worker(1).await;
    bed.until("a window is open", |ledger| ledger.open.len() == 1).await;
    tokio::time::sleep(MOMENT).await;
    first.kill();
    let second = bed.worker(2).await;
    bed.until_done().await;
    assert_eq!(bed.judged().await, WINDOW as usize - 1);
    for seq in 0..WINDOW {
        let found = bed.stores.receipt_index.uncertain("main", Msisdn(number(seq))).await.expect("read");
        assert_eq!(found.len(), 1, "{seq}");
    }
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_workers_window_is_judged_only_when_nothing_of_it_can_go_out_or_be_answered_any_more() {
    for on_uncertain in [OnUncertain::Hold, OnUncertain::Resend] {
        let bed = Bed::with(&[3 * WINDOW], |batch, _| batch.on_uncertain = on_uncertain).await;
        bed.keeps_silent();
        let first = bed.worker(1).await;
        bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
        tokio::time::sleep(MOMENT).await;
        first.kill();
        bed.answers_after(Duration::from_millis(20));
        let second = bed.worker(2).await;
        let claimed = tokio::time::Instant::now();
        bed.until("the rest was sent at once", |ledger| ledger.first_pass() == 3 * WINDOW && ledger.open.len() == 2).await;
        assert!(claimed.elapsed() < Duration::from_secs(3));
        while bed.judged().await == 0 {
            bed.once_each(0..3 * WINDOW);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(claimed.elapsed() >= SEND_BY + ANSWER_TIMEOUT, "judged after {:?}", claimed.elapsed());
        let ledger = bed.until_done().await;
        let again = bed.times().values().filter(|times| **times == 2).count() as u32;
        match on_uncertain {
            OnUncertain::Resend => assert_eq!((again, ledger.totals.uncertain), (2 * WINDOW, 0)),
            _ => assert_eq!((again, ledger.totals.uncertain), (0, u64::from(2 * WINDOW))),
        }
        let settlement = bed.recount().await;
        let accepted = if on_uncertain == OnUncertain::Resend { 3 * WINDOW } else { WINDOW };
        assert_eq!(settlement.of(Outcome::Accepted), u64::from(accepted), "{settlement:?}");
        assert_eq!(settlement.unaccounted(), 0);
        second.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_report_that_stayed_unmatched_keeps_no_window_from_being_judged() {
    let bed = Bed::new(2 * WINDOW).await;
    let report = |id| ParkedReport {
        id,
        account: "main".into(),
        report: Report {
            message_id: id.to_string(),
            number: Some(Msisdn(number(0))),
            reference: None,
            rung: Rung::Delivered,
            done: None,
            error: String::new(),
            raw: String::new(),
            received: START,
        },
        due: None,
        looks: 1,
    };
    bed.stores.parked.park(vec![report(1), report(2)]).await.expect("parked");
    assert!(bed.store.engine().damage(Table::Parked, &1u64.to_be_bytes(), |row| row.clear()));
    bed.keeps_silent();
    let first = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    first.kill();
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.uncertain, bed.judged().await), (u64::from(2 * WINDOW), 2 * WINDOW as usize));
    let due = bed.stores.parked.due(bed.world.clock.now(), 9).await.expect("read");
    assert_eq!(due.iter().map(|parked| parked.id).collect::<Vec<_>>(), [2], "the whole one is looked at once more");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_wakes_behind_the_limit_hands_nothing_over() {
    let bed = Bed::new(2 * WINDOW).await;
    // The machine sleeps between the declare and its answer.
    bed.next_declare(Fate::AnsweredLate(Duration::from_secs(3_000)));
    let frozen = bed.worker(1).await;
    bed.until("it was declared", |ledger| ledger.open.len() == 1).await;
    let second = bed.worker(2).await;
    bed.until_done().await;
    bed.once_each(WINDOW..2 * WINDOW);
    tokio::time::sleep(Duration::from_secs(3_100)).await;
    bed.once_each(WINDOW..2 * WINDOW);
    let late = bed.windows().await.into_iter().find(|row| row.window.declarer == frozen.ctx.worker).expect("it answers for it");
    assert!(late.complete && late.answers.iter().all(|answered| answered.answer == Answer::NotSent), "{late:?}");
    let settlement = bed.recount().await;
    assert_eq!((settlement.unaccounted(), settlement.of(Outcome::Open)), (0, 0), "{settlement:?}");
    assert_eq!(settlement.of(Outcome::Accepted), u64::from(WINDOW));
    frozen.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_of_an_older_dispatch_claims_nothing_and_is_committed() {
    let bed = Bed::new(WINDOW).await;
    bed.keeps_silent();
    bed.change_row(|row| crate::model::batch::BatchRow { task_number: 5, ..row.clone() }).await;
    let owner = bed.worker(1).await;
    let before = bed.until("it is claimed and declared", |ledger| ledger.open.len() == 1).await;
    let other = bed.idle(2);
    for (partition, token) in tokens_of(TaskCode { batch: BATCH, number: 4 }, LANE, &Ledger::sealed(WINDOW)) {
        other.give(partition, token);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(other.queue.committed.lock().expect("not poisoned").values().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(bed.ledger().await, before, "an old token moves nothing");
    owner.kill();
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_time_that_a_restore_took_back_is_committed_and_not_tried_for_ever() {
    let bed = Bed::new(WINDOW).await;
    let before = bed.ledger().await;
    let worker = bed.idle(1);
    for (partition, token) in tokens_of(TaskCode { batch: BATCH, number: 9 }, LANE, &Ledger::sealed(WINDOW)) {
        worker.give(partition, token);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(worker.queue.committed.lock().expect("not poisoned").values().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(bed.ledger().await, before);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_in_doubt_at_one_account_is_sent_through_another_only_when_the_batch_says_so() {
    for on_uncertain in [OnUncertain::Hold, OnUncertain::Resend] {
        in_doubt_while_the_provider_changes(on_uncertain).await;
    }
}

async fn in_doubt_while_the_provider_changes(on_uncertain: OnUncertain) {
    let bed = Bed::with(&[3 * WINDOW], |batch, _| batch.on_uncertain = on_uncertain).await;
    bed.keeps_silent();
    let first = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    first.kill();
    // The provider is changed, as the command does it.
    bed.change_row(|row| {
        let mut row = row.clone();
        (row.batch.provider_type, row.task_number, row.delivery.state) = ("other".into(), 2, StepState::Running);
        row
    })
    .await;
    let fenced =
        change(&*bed.stores.ledgers, LANE, &*bed.world.chance, |read| read.row.fence_provider(2, read.version).ok_or(()));
    fenced.await.expect("stored").expect("not there before");
    let declared = bed.ledger().await.first_pass();
    assert!(bed.ledger().await.open.iter().all(|window| window.account == "main"), "a window says where it went");
    bed.answers(|submit| (Duration::from_millis(20), taken(submit)));
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    let through = |account: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> =
            bed.got().iter().filter(|got| got.account == account).map(|got| got.submit.number.0).collect();
        numbers.sort_unstable();
        numbers
    };
    // The one knows nothing of the other's keys: only the batch's own word decides about who is in doubt, and nobody is asked
    // for again where they were handed over first.
    assert_eq!(declared, 2 * WINDOW, "some are in doubt, and some are not");
    assert_eq!(through("main"), (0..declared).map(number).collect::<Vec<_>>());
    let again = if on_uncertain == OnUncertain::Resend { 0 } else { declared };
    assert_eq!(through("other"), (again..3 * WINDOW).map(number).collect::<Vec<_>>());
    assert_eq!((ledger.totals.uncertain, ledger.totals.accepted), (u64::from(again), u64::from(3 * WINDOW - again)));
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_let_go_within_a_second_however_long_answers_take() {
    let bed = resending(2 * WINDOW).await;
    bed.answers_after(Duration::from_secs(50));
    let first = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    let partition = crate::model::lane::partition_of(BATCH, 0);
    let begun = tokio::time::Instant::now();
    first.queue.push(QueueEvent::Revoked(vec![partition]));
    while first.queue.released.lock().expect("not poisoned").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!((ledger.owner, ledger.totals.accepted), (second.ctx.worker, u64::from(2 * WINDOW)));
    bed.once_each(0..2 * WINDOW);
    assert!(bed.world.clock.now() > START && bed.judged().await == 0);
    first.stop().await;
    second.stop().await;
}
