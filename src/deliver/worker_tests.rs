//! What a worker holds.

use super::*;
use crate::deliver::fakes::{BATCH, Bed, LANE};
use crate::model::id::TaskCode;
use crate::model::ledger::Ledger;
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
    // The same one again, as after a fetch that was begun anew, does not end itself.
    let (partition, task) = tokens[1];
    worker.event(QueueEvent::Task { partition, offset: 1, task, trace: None }, &mut ends).await;
    assert_eq!(worker.slots[&LANE].tokens.len(), 3);
    worker.end_tokens(LANE, |_| true);
    let committed = worker.partitions.get_mut(&partition).and_then(Offsets::to_commit);
    assert_eq!(committed, Some(300), "all of them are over with the lane");
    process.kill();
}
