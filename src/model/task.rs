//! What travels in the queues: tokens, never truth. A lost one is sent again, a second one is ignored.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{BatchId, LaneKey, TaskCode};
use super::lane::partition_of;
use super::ledger::Ledger;
use super::limits::SLICE_RECIPIENTS;

/// A token of the delivery queue: about 5,000 recipients of one lane are to be sent under one dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[doc(alias = "PartitionProcessor")]
pub struct SmsBatchPartitionTask {
    /// The batch.
    pub batch_primary_key: BatchId,
    /// The lane.
    pub partition_key: u8,
    /// Which 5,000 of the lane.
    pub slice: u32,
    /// The dispatch it belongs to.
    pub task_code: TaskCode,
    /// Where it stands; a token in the queue is `Queued`.
    pub status: TaskStatus,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskStatus {
    /// In the queue or with a worker.
    Queued,
    /// The ledger is past its slice: its offset may be committed.
    Done,
    /// A newer dispatch, a pause or the end of the batch made it out of date.
    OutOfDate,
}

impl SmsBatchPartitionTask {
    /// The lane it is about.
    pub fn lane(&self) -> LaneKey {
        LaneKey { batch: self.batch_primary_key, lane: self.partition_key }
    }

    /// Where the token stands, given the lane's ledger: done once the ledger is past its slice, the last slice once the
    /// whole lane is done.
    pub fn judge(&self, ledger: &Ledger) -> TaskStatus {
        if ledger.is_done() {
            return TaskStatus::Done;
        }
        if ledger.task_number > self.task_code.number {
            return TaskStatus::OutOfDate;
        }
        let next = self.slice.saturating_add(1);
        let last = next >= slices(ledger.len);
        let end = next.saturating_mul(SLICE_RECIPIENTS);
        if !last && ledger.first_pass() >= end { TaskStatus::Done } else { TaskStatus::Queued }
    }
}

/// How many tokens a lane of `len` places has: at least one.
pub fn slices(len: u32) -> u32 {
    len.div_ceil(SLICE_RECIPIENTS).max(1)
}

/// The tokens of a lane that its ledger is not past, with their partition.
pub fn tokens_of(task_code: TaskCode, key: LaneKey, ledger: &Ledger) -> Vec<(u8, SmsBatchPartitionTask)> {
    let waiting = |token: &SmsBatchPartitionTask| token.judge(ledger) != TaskStatus::Done;
    let tokens = (0..slices(ledger.len)).map(|slice| token(task_code, key, slice)).filter(waiting);
    tokens.map(|token| (partition_of(key.batch, key.lane), token)).collect()
}

/// The token of a lane's last slice, with its partition. It is done only when the lane is, so it alone brings a worker to
/// everything that the lane has left.
pub fn last_token_of(task_code: TaskCode, key: LaneKey, ledger: &Ledger) -> (u8, SmsBatchPartitionTask) {
    (partition_of(key.batch, key.lane), token(task_code, key, slices(ledger.len) - 1))
}

fn token(task_code: TaskCode, key: LaneKey, slice: u32) -> SmsBatchPartitionTask {
    let (batch_primary_key, partition_key) = (key.batch, key.lane);
    SmsBatchPartitionTask { batch_primary_key, partition_key, slice, task_code, status: TaskStatus::Queued }
}

/// A lane that is not done and whose ledger did not move for so long gets its last token again.
const STILL: Duration = Duration::from_secs(30);
/// The most that lies between two such tokens of a lane that stays as it is.
///
/// A worker serves a few lanes at a time, so a lane may stand for as long as those before it take, with all its tokens safe
/// in the queue; nobody can tell that from a queue that was lost. Tokens sent again pile up behind the waiting ones, since
/// offsets are committed in order: a worker drops each as it comes, and they count for nothing when a partition is braked, but
/// whoever gets the partition reads all of them once more. One batch of 100 million puts 157 tokens of its one lane there into
/// each of 128 partitions, and takes 28 hours at 1,000 a second. Sent again every ten minutes, a lane that waits all that time adds
/// 168 to them. (All its tokens every 30 seconds would be 500,000.) The price: when a queue is lost, a lane that stood for long
/// before waits for up to ten minutes.
const STILL_MOST: Duration = Duration::from_secs(600);

/// What is known of a lane that is not done, for whoever sends its token again when it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    version: u64,
    task_number: u64,
    since: Duration,
    wait: Duration,
}

impl Standing {
    /// A lane as it is seen for the first time, or just after it moved: its ledger's version, and the batch's dispatch. `now` is
    /// by a clock that is never set.
    pub fn new(version: u64, task_number: u64, now: Duration) -> Standing {
        Standing { version, task_number, since: now, wait: STILL }
    }

    /// What is known after another look, and whether the lane's token is to be sent again. The time between two of them doubles
    /// until the lane moves or is dispatched anew.
    pub fn look(self, version: u64, task_number: u64, now: Duration) -> (Standing, bool) {
        if (self.version, self.task_number) != (version, task_number) {
            return (Standing::new(version, task_number, now), false);
        }
        if now.saturating_sub(self.since) < self.wait {
            return (self, false);
        }
        (Standing { since: now, wait: (self.wait * 2).min(STILL_MOST), ..self }, true)
    }
}

/// A token of the preparation queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrepareTask {
    /// Read one range.
    Range {
        /// The dispatch of the preparation step.
        task_code: TaskCode,
        /// Which range.
        range: u32,
    },
    /// Seal some lanes.
    Seal {
        /// The dispatch of the preparation step.
        task_code: TaskCode,
        /// The first lane.
        from: u8,
        /// The last lane, included.
        to: u8,
    },
}

impl PrepareTask {
    /// The dispatch it belongs to.
    pub fn task_code(&self) -> TaskCode {
        match self {
            PrepareTask::Range { task_code, .. } | PrepareTask::Seal { task_code, .. } => *task_code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::WorkerId;

    #[test]
    fn a_token_is_done_when_the_ledger_is_past_its_slice_and_the_last_when_the_lane_is() {
        let code = |number| TaskCode { batch: BatchId(7), number };
        let key = LaneKey { batch: BatchId(7), lane: 3 };
        let mut ledger = Ledger::sealed(15_000).claim(WorkerId(1), 2).expect("claimed");
        let tokens: Vec<_> = tokens_of(code(2), key, &ledger).into_iter().map(|(_, token)| token).collect();
        let judged = |ledger: &Ledger| tokens.iter().map(|token| token.judge(ledger)).collect::<Vec<_>>();
        use TaskStatus::{Done, OutOfDate, Queued};
        assert_eq!(judged(&ledger), [Queued; 3]);
        ledger.legs[0].declared = 4_999;
        assert_eq!(judged(&ledger), [Queued; 3]);
        ledger.legs[0].declared = 5_000;
        assert_eq!(judged(&ledger), [Done, Queued, Queued]);
        assert_eq!(tokens_of(code(2), key, &ledger).len(), 2, "what is sent again is what is left");
        ledger.legs[0].declared = 15_000;
        assert_eq!(judged(&ledger), [Done, Done, Queued], "the last stays for whoever answers are waited for");
        assert_eq!(judged(&ledger.fence(3).expect("fenced")), [OutOfDate; 3]);
        assert_eq!([last_token_of(code(2), key, &ledger)], tokens_of(code(2), key, &ledger)[..]);
        ledger.legs.clear();
        assert_eq!(judged(&ledger), [Done; 3]);
    }

    #[test]
    fn a_lane_that_stands_is_sent_again_at_growing_intervals_until_it_moves() {
        let mut standing = Standing::new(1, 1, Duration::ZERO);
        let mut sent = vec![];
        let mut look = |standing: Standing, version, number, seconds: u64| {
            let (next, again) = standing.look(version, number, Duration::from_secs(seconds));
            if again {
                sent.push(seconds);
            }
            next
        };
        for seconds in 0..=2_130 {
            standing = look(standing, 1, 1, seconds);
        }
        // It moved, and later it was dispatched anew.
        for seconds in 2_131..=2_170 {
            standing = look(standing, 2, 1, seconds);
        }
        for seconds in 2_171..=2_210 {
            standing = look(standing, 2, 2, seconds);
        }
        assert_eq!(sent, [30, 90, 210, 450, 930, 1_530, 2_130, 2_161, 2_201]);
    }
}
