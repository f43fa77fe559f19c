//! What is looked at when a window is declared: the law, the suppression list, the account's session, damaged packs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fakes::{BATCH, Bed, LANE, START, WINDOW, not_now, number, taken};
use super::lane::LOOK_AT_HOURS;
use crate::model::answer::NotNow;
use crate::model::batch::SmsBatch;
use crate::model::id::{BatchId, LaneKey, Msisdn, TaskCode};
use crate::model::ledger::Ledger;
use crate::model::outcome::Outcome;
use crate::model::schedule::{LateStart, SendingHours};
use crate::model::task::tokens_of;

#[tokio::test(start_paused = true)]
async fn who_said_stop_after_the_seal_gets_nothing() {
    let bed = Bed::new(3 * WINDOW).await;
    bed.stores.suppressions.add(&[Msisdn(number(3))]).await.expect("stored");
    bed.answers_after(Duration::from_secs(3));
    let worker = bed.worker(1).await;
    bed.until("two windows are open", |ledger| ledger.open.len() == 2).await;
    // This one while the batch is being sent.
    bed.stores.suppressions.add(&[Msisdn(number(3 * WINDOW - 1))]).await.expect("stored");
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.suppressed, ledger.totals.accepted), (2, u64::from(3 * WINDOW - 2)));
    let times = bed.times();
    assert!(!times.contains_key(&number(3)) && !times.contains_key(&number(3 * WINDOW - 1)));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whether_numbers_were_erased_is_read_now_and_then_for_all_lanes() {
    let bed = Bed::with(&[10 * WINDOW; 4], |_, _| {}).await;
    let worker = bed.worker(1).await;
    for lane in 0..4 {
        bed.until_lane(lane, "it is done", Ledger::is_done).await;
    }
    let took = bed.world.clock.boot().as_millis() as u32;
    let (asked, windows) = (bed.documents.times.load(Ordering::Relaxed), bed.windows().await.len());
    assert!(asked <= took / 300 + 1 && asked > 1 && windows > 8, "{asked} times in {took} ms");
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_store_is_away_for_a_moment_goes_on_in_a_moment() {
    let bed = Bed::new(WINDOW).await;
    bed.documents.is_away.store(true, Ordering::Relaxed);
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((bed.got().len(), bed.ledger().await.first_pass()), (0, 0), "nobody knows whom it may send to");
    bed.documents.is_away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bed.ledger().await.totals.accepted, u64::from(WINDOW));
    bed.once_each(0..WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_not_declared_in_time_gets_nothing_unless_the_batch_says_so() {
    for (late_start, sent) in [(LateStart::Hold, WINDOW), (LateStart::Cancel, WINDOW), (LateStart::Send, 3 * WINDOW)] {
        let bed = Bed::with(&[3 * WINDOW], |batch, _| {
            (batch.not_after, batch.late_start) = (Some(START.plus(Duration::from_secs(60))), late_start);
        })
        .await;
        bed.allows(WINDOW);
        let worker = bed.worker(1).await;
        tokio::time::sleep(Duration::from_secs(80)).await;
        bed.allows(u32::MAX / 2);
        let ledger = bed.until_done().await;
        assert_eq!((ledger.totals.accepted, ledger.totals.expired), (u64::from(sent), u64::from(3 * WINDOW - sent)));
        bed.once_each(0..sent);
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_expired_is_told_so_though_no_account_could_send_it() {
    let limit = Duration::from_secs(60);
    let night = SendingHours { from: 22 * 60, to: 23 * 60, zone: "UTC".into() };
    for hours in [Some(night), None] {
        let mut bed = Bed::with(&[3_000], |batch, _| {
            (batch.not_after, batch.late_start) = (Some(START.plus(limit)), LateStart::Hold);
            batch.hours = hours;
        })
        .await;
        bed.is_up(false);
        let worker = bed.worker(1).await;
        tokio::time::sleep(limit - Duration::from_secs(1)).await;
        let ledger = bed.ledger().await;
        assert_eq!((ledger.first_pass(), ledger.open.len()), (0, 0), "it is not over yet");
        tokio::time::sleep(LOOK_AT_HOURS + Duration::from_secs(10)).await;
        let ledger = bed.ledger().await;
        assert!(ledger.is_done() && ledger.totals.expired == 3_000, "{ledger:?}");
        assert_eq!(bed.got().len(), 0);
        let settlement = bed.recount().await;
        assert_eq!((settlement.of(Outcome::Expired), settlement.unaccounted()), (3_000, 0), "{settlement:?}");
        assert_eq!(worker.ctx.turns.open("main"), 0, "it left no account less room");
        worker.stop().await;
        // As where its account is not configured any more.
        let mut routes = (*bed.routes).clone();
        routes.remove("main");
        bed.routes = Arc::new(routes);
        let other = LaneKey { batch: BatchId(8), lane: 0 };
        let mut asked = SmsBatch { batch_id: other.batch, ..SmsBatch::new("list", "Hello", "main") };
        asked.not_after = Some(START);
        bed.batch(asked, &[WINDOW]).await;
        let worker = bed.idle(2);
        for (partition, token) in tokens_of(TaskCode { batch: other.batch, number: 1 }, other, &Ledger::sealed(WINDOW)) {
            worker.give(partition, token);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let ledger = bed.stores.ledgers.load(other).await.expect("read").expect("there").row;
        assert!(ledger.is_done() && ledger.totals.expired == u64::from(WINDOW), "{ledger:?}");
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_outside_its_hours_is_not_claimed_and_goes_on_when_they_begin() {
    let hours = SendingHours { from: 8 * 60 + 10, to: 22 * 60, zone: "UTC".into() };
    let bed = Bed::with(&[WINDOW], |batch, _| batch.hours = Some(hours)).await;
    let version = async || bed.stores.ledgers.load(LANE).await.expect("read").expect("there").version;
    let before = version().await;
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(9 * 60)).await;
    assert_eq!((version().await, bed.got().len()), (before, 0));
    bed.until_done().await;
    bed.once_each(0..WINDOW);
    assert!(bed.got().iter().all(|got| got.at >= Duration::from_secs(600)));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_declared_outside_the_hours_of_its_account() {
    let bed = Bed::with(&[WINDOW], |_, account| {
        account.hours = Some(SendingHours { from: 8 * 60 + 10, to: 22 * 60, zone: "UTC".into() });
    })
    .await;
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(9 * 60)).await;
    assert_eq!((bed.got().len(), bed.ledger().await.first_pass()), (0, 0), "it is nine minutes past eight");
    bed.until_done().await;
    bed.once_each(0..WINDOW);
    assert!(bed.got().iter().all(|got| got.at >= Duration::from_secs(600)));
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_session_declares_nothing() {
    let bed = Bed::new(WINDOW).await;
    bed.is_up(false);
    let worker = bed.worker(1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let ledger = bed.ledger().await;
    assert_eq!((ledger.owner, ledger.first_pass(), bed.got().len()), (worker.ctx.worker, 0, 0));
    assert!(worker.ctx.turns.wanted().contains("main"), "it says that it waits for one");
    bed.is_up(true);
    bed.until_done().await;
    bed.once_each(0..WINDOW);
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn people_of_a_pack_that_cannot_be_read_fail_and_their_lane_goes_on() {
    let bed = Bed::new(2_500).await;
    *bed.packs.damaged.lock().expect("not poisoned") = Some(1);
    let worker = bed.worker(1).await;
    let ledger = bed.until_done().await;
    assert_eq!((ledger.totals.accepted, ledger.totals.failed), (1_500, 1_000));
    let got: BTreeSet<u64> = bed.times().into_keys().collect();
    assert_eq!(got, (0..1_000).chain(2_000..2_500).map(number).collect());
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn parts_of_two_batches_to_one_person_do_not_share_a_reference() {
    let bed = Bed::new(WINDOW).await;
    let other = SmsBatch { batch_id: BatchId(8), ..SmsBatch::new("list", "Hello", "main") };
    let second = LaneKey { batch: other.batch_id, lane: 0 };
    bed.batch(other, &[WINDOW]).await;
    let mut refused = BTreeSet::new();
    bed.answers(move |submit| {
        let first = refused.insert(submit.key.clone());
        (Duration::from_millis(20), if first { not_now(NotNow::Throttled) } else { taken(submit) })
    });
    let worker = bed.worker(1).await;
    for (partition, token) in tokens_of(TaskCode { batch: second.batch, number: 1 }, second, &Ledger::sealed(WINDOW)) {
        worker.give(partition, token);
    }
    bed.until_done().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    for seq in 0..WINDOW {
        let of = |batch| -> Vec<u16> {
            let got = bed.got().into_iter().filter(|got| got.batch == batch && got.submit.number.0 == number(seq));
            got.map(|got| got.submit.reference).collect()
        };
        let (first, second) = (of(BATCH), of(second.batch));
        assert_eq!((first.len(), second.len()), (2, 2));
        assert!(first[0] == first[1] && second[0] == second[1], "a part that is sent again keeps its reference");
        assert_ne!(first[0], second[0], "a handset would put parts of two messages together");
    }
    worker.stop().await;
}
