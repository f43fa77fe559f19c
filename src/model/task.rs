//! What travels in the queues: tokens, never truth. A lost one is sent again, a second one is ignored.

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
    let token = |slice| SmsBatchPartitionTask {
        batch_primary_key: key.batch,
        partition_key: key.lane,
        slice,
        task_code,
        status: TaskStatus::Queued,
    };
    let waiting = |token: &SmsBatchPartitionTask| token.judge(ledger) != TaskStatus::Done;
    (0..slices(ledger.len)).map(token).filter(waiting).map(|token| (partition_of(key.batch, key.lane), token)).collect()
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
        ledger.legs.clear();
        assert_eq!(judged(&ledger), [Done; 3]);
    }
}
