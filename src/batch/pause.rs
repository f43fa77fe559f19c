//! What a pause is good for: what may still go out after its answer, and, for those who wait, when the last message did.
//!
//! A pause makes the dispatch out of date in the batch row, so that workers stop within a second, and then in every ledger, so
//! that nothing is declared behind the answer. What was declared before may still be handed over, by a worker that has not
//! heard of the pause yet, until its windows' send-by limit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::id::{BatchId, LaneKey};
use crate::model::ledger::Ledger;
use crate::model::time::Timestamp;
use crate::ports::control::Versioned;
use crate::ports::{StoreError, Stores};
use crate::runtime::mutation::{self, Bug};

/// How often somebody who waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What holds once a pause was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReceipt {
    /// Number of the pause: every dispatch with a smaller one is out of date.
    pub task_number: u64,
    /// When the answer was made: nothing was declared later.
    pub cut: Timestamp,
    /// Recipients declared and not answered at the cut.
    pub in_flight: u64,
    /// Of these, recipients that may still be handed over after the cut, at most. Workers that run give most of them back
    /// within a second.
    pub may_still_go: u64,
    /// Nothing is handed over after this instant.
    pub until: Timestamp,
    /// Recipients with an outcome at the cut.
    pub settled: u64,
    /// How it ended; there when the caller waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<PauseEnd>,
}

/// What was seen of a pause by somebody who waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseEnd {
    /// Whether nothing is in flight any more. If not, the time was over, or the batch went on.
    pub still: bool,
    /// When the last message of the batch was handed to an account, as far as closed windows tell; `None` when none was. A
    /// window whose worker died counts until its limit.
    pub last_submit: Option<Timestamp>,
    /// Recipients whose outcome came since the cut.
    pub answered: u64,
    /// Recipients still in flight.
    pub in_flight: u64,
}

type Lanes = [(LaneKey, Versioned<Ledger>)];

impl PauseReceipt {
    /// The receipt of a pause behind whose fence the lanes stand at `now`.
    pub fn of(task_number: u64, lanes: &Lanes, now: Timestamp) -> PauseReceipt {
        let open = || lanes.iter().flat_map(|(_, ledger)| &ledger.row.open);
        PauseReceipt {
            task_number,
            cut: now,
            in_flight: in_flight(lanes),
            may_still_go: open().filter(|window| window.send_by > now).map(|window| u64::from(window.len())).sum(),
            until: open().map(|window| window.send_by).max().map_or(now, |limit| limit.max(now)).plus(stretched()),
            settled: settled(lanes),
            end: None,
        }
    }
}

/// What [`Bug::PromiseNothing`] adds.
fn stretched() -> Duration {
    if mutation::is_on(Bug::PromiseNothing) { Duration::from_secs(3_600) } else { Duration::ZERO }
}

/// Waits until nothing of a paused batch is in flight, for `most` at most.
pub(super) async fn wait(
    stores: &Stores,
    batch: BatchId,
    receipt: &PauseReceipt,
    most: Duration,
) -> Result<PauseEnd, StoreError> {
    let deadline = tokio::time::Instant::now() + most;
    loop {
        let lanes = stores.ledgers.list(batch).await?;
        let left = in_flight(&lanes);
        let went_on = lanes.iter().any(|(_, ledger)| ledger.row.task_number > receipt.task_number);
        let now = tokio::time::Instant::now();
        if left == 0 || went_on || now >= deadline {
            return Ok(PauseEnd {
                still: left == 0 && !went_on,
                last_submit: lanes.iter().filter_map(|(_, ledger)| ledger.row.handed).max(),
                answered: settled(&lanes).saturating_sub(receipt.settled),
                in_flight: left,
            });
        }
        tokio::time::sleep(LOOK_EVERY.min(deadline - now)).await;
    }
}

fn in_flight(lanes: &Lanes) -> u64 {
    lanes.iter().map(|(_, ledger)| ledger.row.in_flight()).sum()
}

fn settled(lanes: &Lanes) -> u64 {
    lanes.iter().map(|(_, ledger)| ledger.row.totals.settled()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::WorkerId;
    use crate::model::ledger::OpenWindow;

    #[test]
    fn only_what_may_still_be_handed_over_counts_and_until_its_last_limit() {
        let window = |from: u32, to: u32, send_by: i64| OpenWindow {
            window: u64::from(from),
            leg: 0,
            from,
            to,
            account: "a".into(),
            declarer: WorkerId(1),
            declared_at: Timestamp(0),
            send_by: Timestamp(send_by),
        };
        let lane = |open| {
            let row = Ledger { open, ..Ledger::sealed(100) };
            (LaneKey { batch: BatchId(1), lane: 0 }, Versioned { version: 1, nonce: 0, row })
        };
        let lanes = [lane(vec![window(0, 10, 900), window(10, 30, 1_500)]), lane(vec![window(0, 5, 1_200)]), lane(vec![])];
        let receipt = PauseReceipt::of(3, &lanes, Timestamp(1_000));
        assert_eq!((receipt.in_flight, receipt.may_still_go, receipt.until), (35, 25, Timestamp(1_500)));
        let quiet = PauseReceipt::of(3, &[lane(vec![])], Timestamp(1_000));
        assert_eq!((quiet.in_flight, quiet.may_still_go, quiet.until), (0, 0, Timestamp(1_000)));
    }
}
