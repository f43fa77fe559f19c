//! The stage as a whole, over stand-ins of its ports: whatever fails or comes twice, every record is accounted for once.

// A poisoned lock means that a test has failed already.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fakes::{Bed, record};
use super::range::prepare_range;
use super::seal::seal_lanes;
use super::tools::End;
use super::worker::{self, Partitions};
use crate::adapters::memory::queue::filled::FilledQueue;
use crate::model::batch::tests::batch;
use crate::model::batch::{Command, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{Msisdn, TaskCode};
use crate::model::lane::lane_of;
use crate::model::pack::{Manifest, PackKey, SealTotals};
use crate::model::record::{RangeState, RangeTotals, Record, RejectKind, RowFault};
use crate::model::state::{StepEvent, StepState};
use crate::model::task::PrepareTask;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::queue::QueueEvent;

/// Records with every kind of trouble: each tenth number is invalid, each 7th name is empty, each 13th number is the one
/// before, each 50th record is malformed.
fn records(count: u64) -> Vec<Record> {
    let number = |n: u64| format!("138{n:08}");
    let make = |n: u64| match n {
        _ if n % 50 == 49 => {
            let fault = RowFault { code: Code::RowMalformed, detail: "has 1 field".into() };
            Record { record: n, line: n + 2, fields: Err(fault) }
        }
        _ if n % 10 == 9 => record(n, "12345", "x"),
        _ if n % 13 == 12 => record(n, &number(n - 1), "再来"),
        _ => record(n, &number(n), if n % 7 == 6 { "" } else { "张三" }),
    };
    (0..count).map(make).collect()
}

fn request() -> SmsBatch {
    SmsBatch {
        content: "Hi {{name}}, {{url}}".into(),
        url: Some("https://shop.example".into()),
        link_base: "https://s.example/".into(),
        content_signature: "店".into(),
        ..batch()
    }
}

fn bed(count: u64, range_records: usize, lanes: u16) -> Bed {
    let bed = Bed::new(request(), records(count), range_records, lanes);
    bed.data.suppressed.lock().unwrap().extend([Msisdn(8_613_800_000_000), Msisdn(8_613_800_000_004)]);
    bed
}

fn done(bed: &Bed, range: u32) -> RangeTotals {
    match bed.range(range).state {
        RangeState::Done(totals) => *totals,
        other => panic!("range {range} is {other:?}"),
    }
}

async fn prepare_all(bed: &Bed, worker: u64) {
    let (tools, stop) = (bed.tools(worker), CancellationToken::new());
    for range in 0..bed.batch().ranges {
        let end = prepare_range(&tools, bed.task_code(), range, None, &stop).await;
        assert_eq!(end, Ok(End::Done));
    }
}

async fn seal_all(bed: &Bed, worker: u64) -> Result<End, StoreError> {
    let last = (bed.batch().lanes - 1) as u8;
    seal_lanes(&bed.tools(worker), bed.task_code(), 0, last, &CancellationToken::new()).await
}

fn manifests(bed: &Bed) -> Vec<Arc<Manifest>> {
    bed.data.manifests.lock().unwrap().values().cloned().collect()
}

/// Rule 1 for preparation: every record is rejected, suppressed, a duplicate, or somebody who gets one message, and all of
/// it can be read back from the store.
fn check_conservation(bed: &Bed) {
    let mut seen = BTreeMap::new();
    let mut totals = SealTotals::default();
    let lanes = bed.batch().lanes;
    let packs = bed.data.packs.lock().unwrap();
    for (lane, manifest) in bed.data.manifests.lock().unwrap().iter() {
        totals.add(&manifest.totals);
        let ledger = bed.ledgers.rows.lock().unwrap()[lane].row.clone();
        assert_eq!(ledger.len, manifest.len());
        for pack in &manifest.packs {
            let key = PackKey { lane: *lane, range: pack.range, attempt: pack.attempt, n: pack.n };
            for (place, message) in packs[&key].messages.iter().enumerate() {
                assert_eq!(lane_of(message.number, lanes), lane.lane);
                let struck = manifest.is_struck(pack.first_seq + place as u32);
                assert!(seen.insert(message.record, (message.number, struck)).is_none(), "record {} twice", message.record);
            }
        }
    }
    let mut recipients = BTreeMap::new();
    for (record, (number, struck)) in &seen {
        let first = recipients.entry(*number).or_insert(*record);
        assert_eq!(*struck, first != record, "of a number's records the first gets the message");
    }
    assert_eq!(totals.recipients, recipients.len() as u64);
    assert_eq!(totals.recipients + totals.duplicates, seen.len() as u64);
    let rejects = bed.data.rejects.lock().unwrap();
    let (mut rejected, mut suppressed) = (0, 0);
    for range in 0..bed.batch().ranges {
        let (attempt, found) = (bed.range(range).attempt, done(bed, range));
        let winners = rejects.iter().filter(|((key, of, _), _)| key.range == range && *of == attempt);
        let of_range: Vec<_> = winners.flat_map(|(_, rejects)| rejects).collect();
        let rejected_here: u64 = found.rejected.iter().map(|(_, count)| count).sum();
        assert_eq!(of_range.len() as u64, rejected_here + found.suppressed);
        assert_eq!(found.records, rejected_here + found.suppressed + found.messages, "range {range}");
        rejected += rejected_here;
        suppressed += of_range.iter().filter(|reject| reject.kind == RejectKind::Suppressed).count();
        for reject in of_range {
            assert!(seen.insert(reject.record, (Msisdn(0), true)).is_none(), "record {} twice", reject.record);
        }
    }
    assert!(rejected > 0 && suppressed > 0 && totals.duplicates > 0, "the list has all kinds");
    assert!(seen.keys().copied().eq(0..bed.batch().records), "every record is accounted for");
}

#[tokio::test(start_paused = true)]
async fn every_record_is_accounted_for() {
    let bed = bed(9_000, 2_500, 4);
    prepare_all(&bed, 1).await;
    assert_eq!(seal_all(&bed, 1).await, Ok(End::Done));
    check_conservation(&bed);
    let codes: std::collections::BTreeSet<String> = {
        let packs = bed.data.packs.lock().unwrap();
        let messages = packs.values().flat_map(|pack| &pack.messages);
        messages.map(|message| message.link.as_ref().expect("a link").code.clone()).collect()
    };
    let messages: u64 = (0..4).map(|range| done(&bed, range).messages).sum();
    assert_eq!(codes.len() as u64, messages, "every message has a code of its own");
    let sample = &done(&bed, 0).samples[0];
    assert!(sample.text.starts_with("【店】Hi ") && sample.text.contains(", https://s.example/"), "{sample:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_all_the_time_loses_and_repeats_nothing() {
    for every in [2, 3, 5] {
        let bed = bed(3_000, 1_000, 2);
        bed.trouble.every(every);
        prepare_all(&bed, 1).await;
        assert_eq!(seal_all(&bed, 1).await, Ok(End::Done));
        check_conservation(&bed);
    }
}

#[tokio::test(start_paused = true)]
async fn packs_of_a_crashed_attempt_are_ghosts() {
    let bed = bed(12_000, 12_000, 1);
    *bed.list.slow.lock().unwrap() = Duration::from_secs(1);
    // The first worker dies after it has written packs and before it finishes.
    let (tools, stop) = (bed.tools(1), CancellationToken::new());
    let crash = tokio::time::timeout(Duration::from_millis(11_500), prepare_range(&tools, bed.task_code(), 0, None, &stop));
    assert!(crash.await.is_err());
    let ghosts = bed.data.packs.lock().unwrap().len();
    assert!(ghosts > 0);
    let held = prepare_range(&bed.tools(2), bed.task_code(), 0, None, &stop).await;
    assert_eq!((held, bed.range(0).attempt), (Ok(End::Held), 1), "it may still live");
    tokio::time::sleep(Duration::from_secs(10)).await;
    prepare_all(&bed, 2).await;
    assert_eq!(bed.range(0).attempt, 2);
    assert!(bed.data.packs.lock().unwrap().len() > ghosts);
    assert_eq!(seal_all(&bed, 2).await, Ok(End::Done));
    check_conservation(&bed);
    assert!(manifests(&bed).iter().flat_map(|manifest| &manifest.packs).all(|pack| pack.attempt == 2));
}

#[tokio::test(start_paused = true)]
async fn of_two_attempts_the_one_that_holds_the_range_wins() {
    let bed = bed(5_000, 5_000, 2);
    (*bed.list.slow.lock().unwrap(), *bed.data.late.lock().unwrap()) = (Duration::from_secs(1), Duration::from_secs(30));
    let (frozen, awake, stop) = (bed.tools(1), bed.tools(2), CancellationToken::new());
    let mut first = std::pin::pin!(prepare_range(&frozen, bed.task_code(), 0, None, &stop));
    // It has read everything and sent its packs off when it freezes: nobody polls it any more, and they arrive much later.
    assert!(tokio::time::timeout(Duration::from_secs(7), &mut first).await.is_err());
    *bed.data.late.lock().unwrap() = Duration::ZERO;
    // In the list everybody stands one line further on by then, so that every place of a pack is another person.
    let rest = records(4_999).into_iter().map(|one| Record { record: one.record + 1, line: one.line + 1, ..one });
    let changed: Vec<Record> = std::iter::once(record(0, "13900000000", "李四")).chain(rest).collect();
    *bed.list.changed.lock().unwrap() = Some(changed.clone());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(prepare_range(&awake, bed.task_code(), 0, None, &stop).await, Ok(End::Done));
    assert_eq!((bed.range(0).attempt, seal_all(&bed, 2).await), (2, Ok(End::Done)));
    assert!(bed.data.packs.lock().unwrap().keys().all(|key| key.attempt == 2), "those of the first are still on their way");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(first.await, Ok(End::OutOfDate));
    assert!(bed.data.packs.lock().unwrap().keys().any(|key| key.attempt == 1), "they have arrived");
    check_conservation(&bed);
    // Who is sent to stands where the second reading had them, in every pack that the manifests name.
    let (packs, mut people) = (bed.data.packs.lock().unwrap(), 0);
    for (lane, manifest) in bed.data.manifests.lock().unwrap().iter() {
        for pack in &manifest.packs {
            let key = PackKey { lane: *lane, range: pack.range, attempt: pack.attempt, n: pack.n };
            for message in &packs[&key].messages {
                let fields = changed[message.record as usize].fields.as_ref().expect("it became a message");
                assert_eq!(message.number.digits(), format!("86{}", fields[0]));
                people += 1;
            }
        }
    }
    assert!(people > 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_lane_sealed_twice_has_one_manifest() {
    let bed = bed(4_000, 1_000, 4);
    prepare_all(&bed, 1).await;
    // The first to seal dies between manifest and ledger of a lane, so the second finds a manifest without a ledger.
    assert_eq!(seal_all(&bed, 1).await, Ok(End::Done));
    let before = manifests(&bed);
    bed.ledgers.rows.lock().unwrap().clear();
    assert_eq!(seal_all(&bed, 2).await, Ok(End::Done));
    assert_eq!(manifests(&bed), before);
    bed.data.manifests.lock().unwrap().clear();
    bed.ledgers.rows.lock().unwrap().clear();
    assert_eq!(seal_all(&bed, 3).await, Ok(End::Done));
    assert_eq!(manifests(&bed), before, "the same packs give the same manifest");
    check_conservation(&bed);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sealed_before_all_ranges_are_done_or_when_a_pack_is_missing() {
    let bed = bed(2_000, 1_000, 2);
    let (tools, stop) = (bed.tools(1), CancellationToken::new());
    assert_eq!(prepare_range(&tools, bed.task_code(), 0, None, &stop).await, Ok(End::Done));
    assert_eq!(seal_all(&bed, 1).await, Ok(End::OutOfDate));
    assert_eq!(prepare_range(&tools, bed.task_code(), 1, None, &stop).await, Ok(End::Done));
    bed.data.packs.lock().unwrap().pop_first();
    assert!(matches!(seal_all(&bed, 1).await, Err(StoreError::Corrupt(_))));
    assert!(manifests(&bed).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_paused_batch_stops_its_ranges_and_they_go_on_after_it() {
    let bed = bed(5_000, 5_000, 2);
    *bed.list.slow.lock().unwrap() = Duration::from_secs(1);
    let (tools, stop, old) = (bed.tools(1), CancellationToken::new(), bed.task_code());
    let (end, ()) = tokio::join!(prepare_range(&tools, old, 0, None, &stop), async {
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        bed.change_batch(|row| row.command(Command::Pause, Timestamp(1)).expect("paused"));
    });
    assert_eq!((end, bed.range(0).state), (Ok(End::OutOfDate), RangeState::Waiting));
    assert_eq!(prepare_range(&tools, old, 0, None, &stop).await, Ok(End::OutOfDate), "an old token does nothing");
    bed.change_batch(|row| {
        let resumed = row.command(Command::Resume, Timestamp(2)).expect("resumed");
        resumed.after(StepEvent::Start, None, Timestamp(2)).expect("dispatched")
    });
    prepare_all(&bed, 1).await;
    assert_eq!(seal_all(&bed, 1).await, Ok(End::Done));
    check_conservation(&bed);
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_may_pass_is_read_again_and_another_fails_the_range() {
    let bed = bed(3_000, 3_000, 1);
    let hiccup = || Fault::new(Code::StoreUnavailable, "the disk did not answer");
    bed.list.faults.lock().unwrap().extend([hiccup(), hiccup()]);
    prepare_all(&bed, 1).await;
    assert_eq!(bed.range(0).attempt, 3);

    let bed = self::bed(3_000, 3_000, 1);
    bed.list.faults.lock().unwrap().push_back(Fault::new(Code::SourceChanged, "another size"));
    let end = prepare_range(&bed.tools(1), bed.task_code(), 0, None, &CancellationToken::new()).await;
    assert_eq!(end, Ok(End::Failed));
    assert!(matches!(bed.range(0).state, RangeState::Failed(fault) if fault.code == Code::SourceChanged));
}

#[tokio::test(start_paused = true)]
async fn a_range_with_fewer_records_than_planned_fails() {
    let mut bed = bed(1_000, 1_000, 1);
    Arc::get_mut(&mut bed.list).expect("not shared yet").records.pop();
    let end = prepare_range(&bed.tools(1), bed.task_code(), 0, None, &CancellationToken::new()).await;
    assert_eq!(end, Ok(End::Failed));
    assert!(matches!(bed.range(0).state, RangeState::Failed(fault) if fault.code == Code::SourceChanged));
}

fn token(bed: &Bed, partition: u8, offset: u64, range: u32) -> QueueEvent<PrepareTask> {
    QueueEvent::Task { partition, offset, task: PrepareTask::Range { task_code: bed.task_code(), range }, trace: None }
}

async fn until(queue: &FilledQueue<PrepareTask>, what: impl Fn(&FilledQueue<PrepareTask>) -> bool) {
    tokio::time::timeout(Duration::from_secs(600), async {
        loop {
            let changed = queue.changed.notified();
            if what(queue) {
                return;
            }
            changed.await;
        }
    })
    .await
    .expect("it happens within ten simulated minutes");
}

#[tokio::test(start_paused = true)]
async fn a_worker_commits_what_has_ended_and_seals() {
    let bed = bed(8_000, 1_000, 4);
    let (queue, stop) = (Arc::new(FilledQueue::default()), CancellationToken::new());
    let running = tokio::spawn(worker::run(bed.tools(1), queue.clone(), Partitions::default(), stop.clone()));
    for range in 0..8 {
        queue.push(token(&bed, 0, u64::from(range), range));
    }
    // One token comes twice, and one is out of date.
    queue.push(token(&bed, 1, 5, 7));
    let old = TaskCode { number: 0, ..bed.task_code() };
    queue.push(QueueEvent::Task { partition: 1, offset: 6, task: PrepareTask::Range { task_code: old, range: 0 }, trace: None });
    until(&queue, |queue| *queue.committed.lock().unwrap() == BTreeMap::from([(0, 8), (1, 7)])).await;
    for lanes in [(0, 1), (2, 3)] {
        let task = PrepareTask::Seal { task_code: bed.task_code(), from: lanes.0, to: lanes.1 };
        queue.push(QueueEvent::Task { partition: 0, offset: 8 + u64::from(lanes.0), task, trace: None });
    }
    until(&queue, |queue| queue.committed.lock().unwrap()[&0] == 11).await;
    stop.cancel();
    running.await.expect("it ends");
    assert_eq!(bed.list.opened.load(std::sync::atomic::Ordering::Relaxed), 8, "no range was read twice");
    check_conservation(&bed);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_cannot_be_sealed_ends_its_batch_with_a_code() {
    let bed = bed(2_000, 1_000, 2);
    prepare_all(&bed, 1).await;
    bed.data.packs.lock().unwrap().pop_first();
    let (queue, stop) = (Arc::new(FilledQueue::default()), CancellationToken::new());
    let running = tokio::spawn(worker::run(bed.tools(1), queue.clone(), Partitions::default(), stop.clone()));
    let seal = |offset: u64, task_code: TaskCode| {
        let task = PrepareTask::Seal { task_code, from: 0, to: 1 };
        queue.push(QueueEvent::Task { partition: 0, offset, task, trace: None });
    };
    // Of an older dispatch nothing is said.
    seal(0, TaskCode { number: 0, ..bed.task_code() });
    until(&queue, |queue| queue.committed.lock().unwrap().get(&0) == Some(&1)).await;
    assert_eq!(bed.batch().preparation.state, StepState::Running);
    seal(1, bed.task_code());
    until(&queue, |queue| queue.committed.lock().unwrap().get(&0) == Some(&2)).await;
    stop.cancel();
    running.await.expect("it ends");
    let step = bed.batch().preparation;
    assert_eq!((step.state, step.reason.map(|(code, _)| code)), (StepState::CompletedFailed, Some(Code::StoreCorrupt)));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_released_within_a_second_and_its_range_is_free() {
    let bed = bed(8_000, 4_000, 2);
    *bed.list.slow.lock().unwrap() = Duration::from_secs(20);
    let (queue, stop, partitions) = (Arc::new(FilledQueue::default()), CancellationToken::new(), Partitions::default());
    queue.push(QueueEvent::Assigned(vec![0, 1]));
    let running = tokio::spawn(worker::run(bed.tools(1), queue.clone(), partitions.clone(), stop.clone()));
    queue.push(token(&bed, 0, 0, 0));
    queue.push(token(&bed, 1, 0, 1));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(partitions.now(), [0, 1].into());
    let revoked = tokio::time::Instant::now();
    queue.push(QueueEvent::Revoked(vec![0]));
    until(&queue, |queue| *queue.released.lock().unwrap() == [0]).await;
    assert_eq!(partitions.now(), [1].into());
    assert!(revoked.elapsed() < Duration::from_secs(1));
    assert_eq!((bed.range(0).state, bed.range(1).state), (RangeState::Waiting, RangeState::Claimed));
    until(&queue, |queue| queue.committed.lock().unwrap().get(&1) == Some(&1)).await;
    stop.cancel();
    running.await.expect("it ends");
    assert_eq!(queue.committed.lock().unwrap().get(&0), None, "what was taken away is not committed");
    *bed.list.slow.lock().unwrap() = Duration::ZERO;
    prepare_range(&bed.tools(2), bed.task_code(), 0, None, &CancellationToken::new()).await.expect("read");
    assert_eq!(seal_all(&bed, 2).await, Ok(End::Done));
    check_conservation(&bed);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_gives_its_ranges_back() {
    let bed = bed(4_000, 2_000, 2);
    *bed.list.slow.lock().unwrap() = Duration::from_secs(20);
    let (queue, stop) = (Arc::new(FilledQueue::default()), CancellationToken::new());
    let running = tokio::spawn(worker::run(bed.tools(1), queue.clone(), Partitions::default(), stop.clone()));
    queue.push(token(&bed, 0, 0, 0));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bed.range(0).state, RangeState::Claimed);
    stop.cancel();
    running.await.expect("it ends");
    assert_eq!(bed.range(0).state, RangeState::Waiting);
    assert!(queue.committed.lock().unwrap().is_empty());
}
