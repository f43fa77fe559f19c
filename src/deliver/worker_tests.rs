//! What a worker holds, and whom it serves when there is too much for it at once.

use std::collections::BTreeSet;

use super::*;
use crate::deliver::fakes::{BATCH, Bed, LANE, WINDOW};
use crate::model::batch::{BatchRow, Command, SmsBatch};
use crate::model::ledger::Ledger;
use crate::model::seat::SEATS;
use crate::model::task::tokens_of;

#[tokio::test(start_paused = true)]
async fn a_token_that_is_sent_again_for_a_lane_that_waits_is_not_kept() {
    let bed = Bed::new(12_000).await;
    bed.is_up(false);
    let process = bed.idle(1);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut worker = Worker::new(process.ctx.clone(), process.queue.clone(), ended);
    let tokens = tokens_of(TaskCode { batch: BATCH, number: 1 }, LANE, &Ledger::sealed(12_000));
    for round in 0..100 {
        for (at, (partition, task)) in tokens.iter().enumerate() {
            let offset = (round * tokens.len() + at) as u64;
            worker.event(QueueEvent::Task { partition: *partition, offset, task: *task, trace: None }, &mut ends).await;
        }
    }
    let held: Vec<u64> = worker.slots[&LANE].tokens.keys().copied().collect();
    assert_eq!(held, [0, 1, 2], "of each slice the first");
    assert_eq!(process.queue.held.lock().expect("not poisoned").get(&tokens[0].0), Some(&3), "the rest does not count as held");
    // The same one again, as after a fetch that was begun anew, does not end itself.
    let (partition, task) = tokens[1];
    worker.event(QueueEvent::Task { partition, offset: 1, task, trace: None }, &mut ends).await;
    assert_eq!(worker.slots[&LANE].tokens.len(), 3);
    worker.end_tokens(LANE, |_| true);
    let committed = worker.partitions.get_mut(&partition).and_then(Offsets::to_commit);
    assert_eq!(committed, Some(300), "all of them are over with the lane");
    worker.commit().await;
    assert_eq!(process.queue.held.lock().expect("not poisoned").get(&partition), Some(&0));
    process.kill();
}

#[tokio::test(start_paused = true)]
async fn how_a_dispatch_ended_says_nothing_of_a_newer_one_whose_token_came_meanwhile() {
    for end in [LaneEnd::OutOfDate, LaneEnd::Done] {
        let bed = Bed::new(WINDOW).await;
        bed.keeps_silent();
        let process = bed.idle(1);
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut worker = Worker::new(process.ctx.clone(), process.queue.clone(), ended);
        let mut arrives = async |number, worker: &mut Worker| {
            let tokens = tokens_of(TaskCode { batch: BATCH, number }, LANE, &Ledger::sealed(WINDOW));
            let (partition, task) = tokens[0];
            let offset = number - 1;
            worker.event(QueueEvent::Task { partition, offset, task, trace: None }, &mut ends).await;
            partition
        };
        arrives(1, &mut worker).await;
        assert!(worker.slots[&LANE].running.is_some());
        // Paused and let go on at once: the lane, and whoever reads the batch here, know of the pause alone.
        let now = bed.world.clock.now();
        bed.change_row(|row| row.command(Command::Pause, now).expect("it runs")).await;
        worker.ctx.readings.forget(BATCH);
        worker.ctx.readings.get(BATCH).await.expect("read");
        bed.change_row(|row| BatchRow { task_number: 2, ..row.command(Command::Resume, now).expect("it is paused") }).await;
        let partition = arrives(2, &mut worker).await;
        // What the lane saw last: all is done, as the older dispatch had it.
        let done = Ledger { task_number: 1, legs: vec![], ..Ledger::sealed(WINDOW) };
        worker.slots[&LANE].view.lock().expect("not poisoned").ledger = Some(done);
        worker.lane_ended(LANE, end.clone()).await;
        worker.look_over().await;
        let slot = &worker.slots[&LANE];
        assert_eq!(slot.tokens.keys().copied().collect::<Vec<_>>(), [1], "{end:?}");
        assert_eq!(slot.running.as_ref().map(|running| running.dispatch.number), Some(2), "{end:?}");
        assert_eq!(process.queue.committed.lock().expect("not poisoned").get(&partition), Some(&1), "{end:?}");
        process.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_keeps_no_lane_waiting() {
    let broken = LaneEnd::Broken(crate::ports::StoreError::Corrupt("on purpose".into()));
    for end in [LaneEnd::Lost, broken, LaneEnd::Later(Duration::from_secs(20))] {
        let bed = Bed::new(WINDOW).await;
        bed.keeps_silent();
        // It booted an hour ahead of the others.
        bed.clock.skew(3_600_000);
        let process = bed.idle(1);
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut worker = Worker::new(process.ctx.clone(), process.queue.clone(), ended);
        let (partition, task) = tokens_of(TaskCode { batch: BATCH, number: 1 }, LANE, &Ledger::sealed(WINDOW))[0];
        worker.event(QueueEvent::Task { partition, offset: 0, task, trace: None }, &mut ends).await;
        worker.take_end(LANE, end.clone()).await;
        worker.start_lanes();
        assert!(worker.slots[&LANE].running.is_none(), "it waits: {end:?}");
        bed.clock.skew(0);
        tokio::time::sleep(Duration::from_secs(21)).await;
        worker.start_lanes();
        assert!(worker.slots[&LANE].running.is_some(), "{end:?}");
        process.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_that_end_while_others_are_released_end_as_they_always_do() {
    let other = LaneKey { batch: BatchId(BATCH.0 + 1), lane: 0 };
    let later = Duration::from_secs(60);
    for end in [LaneEnd::Done, LaneEnd::Later(later)] {
        let bed = Bed::new(WINDOW).await;
        let process = bed.idle(1);
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut worker = Worker::new(process.ctx.clone(), process.queue.clone(), ended.clone());
        // Both are served under the first dispatch, and have a token of the second as well.
        for (key, partition) in [(LANE, 3), (other, 4)] {
            let token = |number| {
                let code = TaskCode { batch: key.batch, number };
                tokens_of(code, key, &Ledger::sealed(WINDOW))[0].1
            };
            let task = worker.ctx.tasks.spawn("lane", std::future::pending());
            let dispatch = TaskCode { batch: key.batch, number: 1 };
            let running = Running { dispatch, task, stop: CancellationToken::new(), since: Duration::ZERO };
            let mut offsets = Offsets::new(0);
            (0..2).for_each(|offset| offsets.received(offset));
            worker.partitions.insert(partition, offsets);
            let (view, tokens) = (Arc::default(), BTreeMap::from([(0, token(1)), (1, token(2))]));
            let slot = Slot { partition, tokens, view, running: Some(running), not_before: Duration::ZERO, trace: None };
            worker.slots.insert(key, slot);
            worker.ctx.note(|holds| {
                holds.lanes.insert(key);
            });
        }
        ended.send((other, end.clone())).expect("the worker listens");
        ended.send((LANE, LaneEnd::Done)).expect("the worker listens");
        worker.event(QueueEvent::Revoked(vec![3]), &mut ends).await;
        assert_eq!(worker.ctx.holds().lanes, BTreeSet::new(), "{end:?}");
        assert_eq!(worker.slots.keys().collect::<Vec<_>>(), [&other], "{end:?}");
        let kept = &worker.slots[&other];
        let wanted = if end == LaneEnd::Done { (vec![1], Duration::ZERO) } else { (vec![0, 1], later) };
        assert_eq!((kept.tokens.keys().copied().collect::<Vec<u64>>(), kept.not_before), wanted, "{end:?}");
        let committed = process.queue.committed.lock().expect("not poisoned").clone();
        let wanted = if end == LaneEnd::Done { BTreeMap::from([(3, 1), (4, 1)]) } else { BTreeMap::from([(3, 1)]) };
        assert_eq!(committed, wanted, "{end:?}: a newer dispatch's token is not over");
        assert_eq!(*process.queue.released.lock().expect("not poisoned"), [3]);
        process.kill();
    }
}

/// A worker that is given the tokens of many batches with one lane each.
async fn crowd(bed: &Bed, batches: usize, people: u32) -> (crate::deliver::fakes::Worker, Vec<LaneKey>) {
    let worker = bed.worker(1).await;
    let mut lanes = vec![LANE];
    for number in 1..batches {
        let batch = BatchId(BATCH.0 + number as u128);
        let lane = LaneKey { batch, lane: 0 };
        bed.batch(SmsBatch { batch_id: batch, ..SmsBatch::new("list", "Hello", "main") }, &[people]).await;
        for (partition, token) in tokens_of(TaskCode { batch, number: 1 }, lane, &Ledger::sealed(people)) {
            worker.give(partition, token);
        }
        lanes.push(lane);
    }
    (worker, lanes)
}

#[tokio::test(start_paused = true)]
async fn many_batches_are_served_a_few_at_once_and_none_waits_for_the_end_of_others() {
    let bed = Bed::new(WINDOW).await;
    // No lane comes to its end.
    bed.is_up(false);
    let (worker, lanes) = crowd(&bed, 50, WINDOW).await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let served = worker.ctx.holds().lanes.len();
        assert!(served <= 2 * SEATS, "{served} lanes at once");
    }
    for lane in lanes {
        let ledger = bed.stores.ledgers.load(lane).await.expect("read").expect("there").row;
        assert_eq!(ledger.owner, worker.ctx.worker, "{lane} was never served");
    }
    worker.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lanes_that_make_room_for_others_are_worked_through_and_nobody_is_sent_twice() {
    let bed = Bed::new(5 * WINDOW).await;
    let (worker, lanes) = crowd(&bed, 30, 5 * WINDOW).await;
    for lane in &lanes {
        let done = async || bed.stores.ledgers.load(*lane).await.expect("read").expect("there").row;
        while !done().await.is_done() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let totals = done().await.totals;
        assert_eq!((totals.accepted, totals.uncertain), (u64::from(5 * WINDOW), 0), "{lane}");
    }
    let got: BTreeSet<_> = bed.got().iter().map(|got| (got.batch, got.submit.number)).collect();
    assert_eq!((got.len(), bed.got().len()), (30 * 5 * WINDOW as usize, 30 * 5 * WINDOW as usize));
    worker.stop().await;
}
