//! "Not now", pauses, cancels and stops: what was not handed over goes back, what was is answered, and who serves few lanes at a
//! time leaves few people in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::fakes::{BATCH, Bed, Fate, LANE, START, WINDOW, not_now, number, taken};
use crate::model::answer::NotNow;
use crate::model::batch::{BatchRow, Command};
use crate::model::id::LaneKey;
use crate::model::ledger::Ledger;
use crate::model::outcome::Outcome;
use crate::model::state::StepEvent;
use crate::ports::queue::QueueEvent;

const MOMENT: Duration = Duration::from_millis(400);

#[tokio::test(start_paused = true)]
async fn a_full_handset_holds_nobody_up_and_a_crash_does_not_leave_it_in_doubt() {
    let bed = Bed::new(4 * WINDOW).await;
    let full = number(5);
    bed.answers(move |submit| {
        let answer = if submit.number.0 == full { not_now(NotNow::QueueFull) } else { taken(submit) };
        (Duration::from_millis(20), answer)
    });
    let first = bed.worker(1).await;
    let ledger = bed.until("all others are done", |ledger| ledger.totals.accepted == u64::from(4 * WINDOW - 1)).await;
    assert_eq!((ledger.open.len(), ledger.undeclared(), ledger.legs.len()), (0, 1, 1), "one waits, in a leg of its own");
    first.kill();
    bed.answers_after(Duration::from_millis(20));
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(4 * WINDOW), 0));
    let times = bed.times();
    assert!(times.iter().all(|(number, times)| *times == if *number == full { 2 } else { 1 }), "{times:?}");
    second.stop().await;
}

/// When each person was taken, in order.
fn tries(bed: &Bed) -> BTreeMap<u64, Vec<Duration>> {
    let mut tries: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
    bed.got().into_iter().for_each(|got| tries.entry(got.submit.number.0).or_default().push(got.at));
    tries
}

#[tokio::test(start_paused = true)]
async fn a_full_handset_is_not_tried_earlier_because_others_are_told_not_now() {
    let bed = Bed::new(40 * WINDOW).await;
    let mut told = BTreeSet::new();
    bed.answers(move |submit| {
        // One of each window; of the first windows' so many that their legs fill the ledger.
        let (seq, number) = (submit.seq, submit.number.0);
        let full = seq < 11 * WINDOW && (seq == 5 || told.insert(number));
        let answer = match (seq % WINDOW == 5, full) {
            (true, true) => not_now(NotNow::QueueFull),
            (true, false) if told.insert(number) => not_now(NotNow::Throttled),
            _ => taken(submit),
        };
        (Duration::from_millis(20), answer)
    });
    let worker = bed.worker(1).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.failed), (u64::from(40 * WINDOW - 1), 1));
    for (person, times) in tries(&bed) {
        let waited: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        match (person - number(0)) as u32 {
            5 => assert!(waited.len() == 3 && waited[0] >= 20 && waited[1] >= 60 && waited[2] >= 180, "{waited:?}"),
            seq if seq % WINDOW != 5 => assert!(waited.is_empty(), "{seq} {waited:?}"),
            seq if seq < 11 * WINDOW => assert!(waited.len() == 1 && waited[0] >= 20, "{seq} {waited:?}"),
            seq => assert!(waited.len() == 1 && waited[0] < 5, "{seq} {waited:?}"),
        }
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_not_put_off_again_and_again_by_those_who_come_later() {
    let bed = Bed::new(60 * WINDOW).await;
    let mut told = BTreeSet::new();
    bed.answers(move |submit| {
        let full = submit.seq % WINDOW == 5 && told.insert(submit.seq);
        (Duration::from_millis(400), if full { not_now(NotNow::QueueFull) } else { taken(submit) })
    });
    let worker = bed.worker(1).await;
    let ledger = bed.until_done().await;
    assert_eq!(ledger.totals.accepted, u64::from(60 * WINDOW));
    let waited: Vec<Duration> = tries(&bed).values().filter(|times| times.len() == 2).map(|times| times[1] - times[0]).collect();
    assert_eq!(waited.len(), 60);
    // Sixty windows in twelve seconds share ten legs or so.
    let all = Duration::from_secs(20)..Duration::from_secs(25);
    assert!(waited.iter().all(|waited| all.contains(waited)), "{waited:?}");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_gives_back_whom_it_did_not_hand_over_or_was_told_not_now() {
    let bed = Bed::new(3 * WINDOW).await;
    bed.allows(30);
    let throttled = number(7);
    bed.answers(move |submit| {
        let answer = if submit.number.0 == throttled { not_now(NotNow::Throttled) } else { taken(submit) };
        (Duration::from_secs(2), answer)
    });
    let first = bed.worker(1).await;
    bed.until("windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    first.stop().await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.open.len(), ledger.first_pass(), ledger.totals.accepted), (0, 30, 29), "{ledger:?}");
    assert_eq!(ledger.undeclared(), u64::from(3 * WINDOW) - 29);
    bed.allows(u32::MAX / 2);
    bed.answers_after(Duration::from_millis(20));
    let second = bed.worker(2).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(3 * WINDOW), 0));
    let times = bed.times();
    assert!(times.iter().all(|(number, times)| *times == if *number == throttled { 2 } else { 1 }), "{times:?}");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_declare_under_way_when_the_batch_is_canceled_sends_nobody() {
    let bed = Bed::new(2 * WINDOW).await;
    bed.next_declare(Fate::StoredLate(Duration::from_secs(3)));
    let worker = bed.worker(1).await;
    tokio::time::sleep(MOMENT).await;
    let answer = bed.service.command(BATCH, Command::Cancel).await.expect("canceled");
    assert_eq!((answer.undeclared, answer.in_flight), (u64::from(2 * WINDOW), 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.got().len(), 0, "whoever the answer called unsent stays unsent");
    assert_eq!(bed.recount().await.of(Outcome::Canceled), u64::from(2 * WINDOW));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_declare_rests_on_a_reading_that_is_younger_than_a_second() {
    let bed = Bed::new(2 * WINDOW).await;
    *bed.packs.time.lock().expect("not poisoned") = Duration::from_secs(3);
    let worker = bed.worker(1).await;
    tokio::time::sleep(MOMENT).await;
    // Whoever pauses dies before any lane is fenced: only the row says it.
    let now = bed.world.clock.now();
    bed.change_row(|row| row.command(Command::Pause, now).expect("it runs")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.first_pass(), bed.got().len()), (0, 0), "{ledger:?}");
    assert!(bed.windows().await.is_empty(), "nor was anything declared and given back");
    worker.stop().await;
}

/// The declares of the next seconds are refused, if so many are tried at most.
fn is_full(bed: &Bed) {
    (0..1_000).for_each(|_| bed.next_declare(Fate::Full));
}

#[tokio::test(start_paused = true)]
async fn a_declare_that_a_full_disk_refuses_hands_over_nobody_and_takes_nothing() {
    let bed = Bed::with(&[3 * WINDOW, 3 * WINDOW], |_, _| {}).await;
    // Rate for each of them once: what a refused declare took would be missed.
    bed.allows(6 * WINDOW);
    is_full(&bed);
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    for lane in [0, 1] {
        let ledger = bed.until_lane(lane, "it is claimed", |ledger| ledger.task_number == 1).await;
        assert_eq!((ledger.open.len(), ledger.first_pass(), ledger.legs.len()), (0, 0, 1), "{ledger:?}");
        assert!(bed.windows_of(lane).await.is_empty(), "nor was anything declared and given back");
    }
    let tried = 1_000 - bed.declares.fates.lock().expect("not poisoned").len();
    assert!((20..=60).contains(&tried), "each lane looks about once a second whether there is room: {tried} declares");
    assert_eq!(bed.got().len(), 0);

    bed.declares.fates.lock().expect("not poisoned").clear();
    for lane in [0, 1] {
        bed.until_lane(lane, "it is done", Ledger::is_done).await;
        // Their time begins with the declare that found room.
        let there_was_room = START.plus(Duration::from_secs(20));
        assert!(bed.windows_of(lane).await.iter().all(|row| row.complete && row.window.declared_at >= there_was_room));
    }
    bed.once_each(0..6 * WINDOW);
    assert_eq!(worker.ctx.turns.open("main"), 0, "and every turn was given back");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_full_disk_hears_of_a_pause_and_goes_on_behind_it() {
    let bed = Bed::new(2 * WINDOW).await;
    bed.answers_after(Duration::from_secs(4));
    bed.next_declare(Fate::AnsweredLate(Duration::ZERO));
    is_full(&bed);
    let worker = bed.worker(1).await;
    bed.until("a window is open", |ledger| ledger.open.len() == 1).await;
    tokio::time::sleep(MOMENT).await;
    bed.service.command(BATCH, Command::Pause).await.expect("paused");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (ledger, got) = (bed.ledger().await, bed.got().len() as u64);
    // What was declared before was answered, and the answers are there: they may use what is left of the disk.
    assert_eq!((ledger.open.len(), ledger.totals.accepted, ledger.undeclared()), (0, got, u64::from(2 * WINDOW) - got));
    let committed: Vec<u64> = worker.queue.committed.lock().expect("not poisoned").values().copied().collect();
    assert_eq!(committed, [1], "and the lane was let go of");

    bed.declares.fates.lock().expect("not poisoned").clear();
    let now = bed.world.clock.now();
    let resumed = |row: &BatchRow| row.command(Command::Resume, now).and_then(|row| row.after(StepEvent::Start, None, now));
    bed.change_row(|row| resumed(row).expect("it goes on")).await;
    bed.give_all(&worker).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(2 * WINDOW), 0));
    bed.once_each(0..2 * WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_paused_batch_are_committed_and_what_is_in_flight_is_answered() {
    let bed = Bed::new(5 * WINDOW).await;
    bed.answers_after(Duration::from_secs(4));
    let worker = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    bed.service.command(BATCH, Command::Pause).await.expect("paused");
    let got = bed.got().len();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let ledger = bed.ledger().await;
    assert_eq!((bed.got().len(), ledger.open.len(), ledger.totals.accepted), (got, 0, got as u64), "{ledger:?}");
    let committed: Vec<u64> = worker.queue.committed.lock().expect("not poisoned").values().copied().collect();
    assert_eq!(committed, [1], "a paused batch holds nothing up in the queue");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_after_a_cancel_are_kept() {
    let bed = Bed::new(5 * WINDOW).await;
    bed.answers_after(Duration::from_secs(4));
    let worker = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    let answer = bed.service.command(BATCH, Command::Cancel).await.expect("canceled");
    let got = bed.got().len() as u64;
    assert_eq!((answer.in_flight, answer.undeclared), (got, u64::from(5 * WINDOW) - got));
    bed.until_done().await;
    let settlement = bed.recount().await;
    assert_eq!((settlement.of(Outcome::Accepted), settlement.of(Outcome::Canceled)), (got, u64::from(5 * WINDOW) - got));
    assert_eq!(bed.got().len() as u64, got);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_few_people_in_doubt_however_many_lanes_there_are() {
    let bed = Bed::with(&[200; 16], |_, _| {}).await;
    bed.keeps_silent();
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let open: u64 = bed.stores.ledgers.list(BATCH).await.expect("listed").iter().map(|(_, ledger)| ledger.row.in_flight()).sum();
    // Two windows of what the account takes in 200 ms, whatever lanes they are of.
    assert!(open > 0 && open <= u64::from(2 * WINDOW), "{open}");
    worker.kill();
}

#[tokio::test(start_paused = true)]
async fn the_last_lane_gets_the_whole_rate() {
    let bed = Bed::with(&[WINDOW, 2 * WINDOW, 12 * WINDOW], |_, _| {}).await;
    let worker = bed.worker(1).await;
    for lane in [0, 1, 2] {
        bed.until_lane(lane, "it is done", Ledger::is_done).await;
    }
    let sizes: Vec<u32> = bed.windows_of(2).await.iter().map(|row| row.window.len()).collect();
    assert!(sizes[0] == WINDOW / 2, "while others have work it shares: {sizes:?}");
    // What was declared in small windows does not leave room for small ones only.
    assert!(sizes.iter().rev().skip(1).take(5).all(|size| *size == WINDOW), "alone it has all of it again: {sizes:?}");
    bed.once_each(0..15 * WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_two_tokens_name_is_worked_through_once() {
    let bed = Bed::new(3 * WINDOW).await;
    let worker = bed.worker(1).await;
    bed.give_all(&worker).await;
    bed.until_done().await;
    bed.give_all(&worker).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bed.once_each(0..3 * WINDOW);
    let key = LaneKey { lane: 0, ..LANE };
    let committed =
        worker.queue.committed.lock().expect("not poisoned").get(&crate::model::lane::partition_of(key.batch, 0)).copied();
    assert_eq!(committed, Some(2), "both are behind it");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_hears_the_answers_of_lanes_that_went_to_others_before() {
    let bed = Bed::new(2 * WINDOW).await;
    bed.answers_after(Duration::from_secs(20));
    let first = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    tokio::time::sleep(MOMENT).await;
    first.queue.push(QueueEvent::Revoked(vec![crate::model::lane::partition_of(BATCH, 0)]));
    while first.queue.released.lock().expect("not poisoned").is_empty() {
        first.queue.changed.notified().await;
    }
    let second = bed.worker(2).await;
    first.stop().await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.uncertain), (u64::from(2 * WINDOW), 0), "{ledger:?}");
    assert_eq!(bed.judged().await, 0);
    bed.once_each(0..2 * WINDOW);
    second.stop().await;
}
