//! How far a batch is: estimates from control rows and live counters, cheap enough to be asked for many times a second.

use serde::{Deserialize, Serialize};

use crate::model::batch::BatchRow;
use crate::model::ledger::LaneTotals;
use crate::model::record::RangeState;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::ports::tallies::{Tallies, Tally};
use crate::ports::{StoreError, Stores};

/// How far a batch is. Estimates that end at the recount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The current step and its state, as `DELIVERY RUNNING`.
    pub standing: String,
    /// Why the step is paused or failed.
    pub reason: Option<String>,
    /// Whether nothing will change any more but by late receipts.
    pub over: bool,
    /// Whether the seal has happened.
    pub sealed: bool,
    /// Records of the source; 0 while it is not planned.
    pub records: u64,
    /// Records read.
    pub prepared: u64,
    /// Lanes of the batch.
    pub lanes: u64,
    /// Lanes that are sealed.
    pub lanes_sealed: u64,
    /// Recipients who will get a message; 0 before the seal.
    pub recipients: u64,
    /// Recipients with an outcome.
    pub ended: u64,
    /// Of those, taken by an account.
    pub accepted: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Of those, uncertain.
    pub uncertain: u64,
    /// Recipients in open windows.
    pub in_flight: u64,
    /// Accepted recipients or parts with a final receipt.
    pub receipts: u64,
    /// Receipts that say DELIVRD.
    pub delivered: u64,
}

/// Reads how far a batch is. `tallies` are the live counters of the process that sends, where there is one.
pub async fn progress(stores: &Stores, row: &BatchRow, tallies: Option<&dyn Tallies>) -> Result<Progress, StoreError> {
    let id = row.batch.batch_id;
    let (name, step) = match row.current_step {
        CurrentStep::Preparation => ("PREPARATION", &row.preparation),
        CurrentStep::Delivery => ("DELIVERY", &row.delivery),
    };
    let mut progress = Progress {
        standing: format!("{name} {}", step.state.name()),
        reason: step.reason.as_ref().map(|(code, text)| format!("{code} {text}")),
        over: row.is_over(),
        sealed: row.sealed.is_some(),
        records: row.records,
        lanes: u64::from(row.lanes),
        ..Progress::default()
    };
    if let Some(sealed) = &row.sealed {
        progress.prepared = row.records;
        progress.recipients = sealed.totals.recipients;
    } else if row.preparation.state != StepState::Initial {
        for (_, range) in stores.ranges.list(id).await? {
            let read = match &range.row.state {
                RangeState::Done(totals) => totals.records,
                RangeState::Claimed => range.row.progress,
                RangeState::Waiting | RangeState::Failed(_) => 0,
            };
            progress.prepared = progress.prepared.saturating_add(read);
        }
        let live = tallies.map_or(0, |tallies| tallies.read(id, Tally::Prepared));
        progress.prepared = progress.prepared.max(live.min(row.records));
    }
    if row.lanes > 0 {
        let mut totals = LaneTotals::default();
        for (_, ledger) in stores.ledgers.list(id).await? {
            progress.lanes_sealed += 1;
            progress.in_flight += ledger.row.in_flight();
            totals.add(&ledger.row.totals);
        }
        progress.ended = totals.settled();
        (progress.accepted, progress.failed, progress.uncertain) = (totals.accepted, totals.failed, totals.uncertain);
    }
    match &row.settlement {
        Some(settlement) if tallies.is_none() || settlement.settled => {
            progress.delivered = settlement.delivery_num;
            let told = settlement.deliveries.iter().filter(|(name, _)| *name != "pending");
            progress.receipts = told.fold(0, |sum, (_, n)| sum.saturating_add(*n));
        }
        Some(_) | None => {
            progress.receipts = tallies.map_or(0, |tallies| tallies.read(id, Tally::FinalReceipts));
            progress.delivered = tallies.map_or(0, |tallies| tallies.read(id, Tally::DeliveredReceipts));
        }
    }
    Ok(progress)
}
