//! The job that settles batches: recounts what has ended from the store until every accepted recipient has a final receipt
//! or has waited long enough.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::recount::recount;
use super::syncer::StatisticsSyncer;
use crate::model::account::{Account, LongMessage};
use crate::model::batch::BatchRow;
use crate::model::id::BatchId;
use crate::model::outcome::{OUTCOMES, Outcome};
use crate::model::report::Settlement;
use crate::model::step::CurrentStep;
use crate::ports::tallies::Tally;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::metrics;

/// The first pause between two recounts of a batch, and the longest: a recount reads the batch's whole history.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// When a batch is recounted next, on the boot clock: a wall clock that was set back must not hold a batch open for as long.
#[derive(Clone, Copy)]
struct Next {
    at: Duration,
    pause: Duration,
    receipts: u64,
    /// Not before this in any case: other batches, and the store, have as long for themselves as the last recount took.
    rested: Duration,
}

/// The job. A recount may take minutes, so it has rounds of its own: nothing else of the leader waits for it.
#[doc(alias = "msg_callback_statistic")]
pub struct MsgCallbackStatistic {
    stores: Stores,
    world: World,
    accounts: BTreeMap<String, Account>,
    syncer: StatisticsSyncer,
    next: Mutex<BTreeMap<BatchId, Next>>,
    /// Batches of this term whose latest recount does not add up, and by how much.
    unaccounted: Mutex<BTreeMap<BatchId, u128>>,
    unreadable: Unreadable,
}

impl MsgCallbackStatistic {
    /// Settles batches sent through these accounts.
    pub fn new(
        stores: Stores,
        world: World,
        accounts: BTreeMap<String, Account>,
        syncer: StatisticsSyncer,
    ) -> MsgCallbackStatistic {
        let (next, unaccounted, unreadable) = (Mutex::default(), Mutex::default(), Unreadable::default());
        MsgCallbackStatistic { stores, world, accounts, syncer, next, unaccounted, unreadable }
    }

    /// Whether a batch is to be recounted now: at growing pauses, and soon after the last receipts came in.
    pub(super) fn is_due(&self, batch: BatchId, wanted: u64, now: Duration) -> bool {
        let receipts =
            self.syncer.read(batch).into_iter().find(|(tally, _)| *tally == Tally::FinalReceipts).map_or(0, |(_, n)| n);
        let mut all = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = all.get_mut(&batch) else {
            all.insert(batch, Next { at: now + PAUSE.0, pause: PAUSE.0, receipts, rested: now });
            return true;
        };
        // All that were accepted seem to have their receipts, and some have come since the last look: likely the end.
        let complete = wanted > 0 && receipts >= wanted && receipts != next.receipts;
        if now < next.rested || now < next.at && !complete {
            return false;
        }
        let pause = (next.pause * 3 / 2).min(PAUSE.1);
        *next = Next { at: now + pause, pause, receipts, ..*next };
        true
    }

    /// A recount that began then has ended, or failed.
    pub(super) fn recounted(&self, batch: BatchId, began: Duration) {
        let now = self.world.clock.boot();
        if let Some(next) = self.next.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&batch) {
            next.rested = now + now.saturating_sub(began);
        }
    }

    /// How many final receipts there are, at least, when all have come: one for each accepted recipient, or one for each part that
    /// an account took which gives one a part. Fewer would be reached half-way, and each round behind that would be a recount.
    pub(super) fn receipts_wanted(&self, settlement: &Settlement) -> u64 {
        let each_part = |account: &String| {
            self.accounts.get(account).is_some_and(|account| {
                !account.receipts.one_per_message && account.capabilities.long_message != LongMessage::Payload
            })
        };
        let taken = settlement.segments_by_account.iter().filter(|(account, _)| each_part(account)).map(|(_, parts)| parts);
        taken.sum::<u64>().max(settlement.of(Outcome::Accepted))
    }

    async fn settle(&self, row: BatchRow) -> Result<bool, StoreError> {
        let (batch, now) = (row.batch.batch_id, self.world.clock.now());
        let settlement = recount(&self.stores, &row, &self.accounts, now).await?;
        self.account(batch, &settlement);
        if settlement.unaccounted() != 0 {
            tracing::error!(%batch, difference = %settlement.unaccounted(), "records are not accounted for");
        }
        let settled = settlement.settled;
        let stored = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
            // A retry may have opened the batch again meanwhile: then this count is of the past.
            if current.row.task_number != row.task_number || !current.row.step().state.is_final() {
                return Err(());
            }
            let mut next = current.row.clone();
            next.settlement = Some(settlement.clone());
            Ok(next)
        });
        let stored = stored.await?.is_ok();
        if settled && stored {
            self.publish(&settlement);
            self.syncer.clear_all_keys(batch);
            self.next.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
        }
        Ok(settled && stored)
    }

    /// A batch that does not add up stays in the sum, settled or not, until a recount of it does: the next batch that does add up
    /// must not hide it.
    fn account(&self, batch: BatchId, settlement: &Settlement) {
        let mut all = self.unaccounted.lock().unwrap_or_else(PoisonError::into_inner);
        match settlement.unaccounted().unsigned_abs() {
            0 => all.remove(&batch),
            difference => all.insert(batch, difference),
        };
        metrics::set(&metrics::STATISTICS_DIFFERENCE, &[], all.values().sum::<u128>() as f64);
    }

    fn publish(&self, settlement: &Settlement) {
        for outcome in OUTCOMES {
            metrics::count(&metrics::STATISTICS_OUTCOMES, &[outcome.name()], settlement.of(outcome));
        }
    }
}

#[async_trait::async_trait]
impl Job for MsgCallbackStatistic {
    fn name(&self) -> &'static str {
        "msg_callback_statistic"
    }

    fn new_term(&self) {
        // A recount that was dropped with an earlier term counted as done.
        self.next.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.unaccounted.lock().unwrap_or_else(PoisonError::into_inner).clear();
        metrics::set(&metrics::STATISTICS_DIFFERENCE, &[], 0.0);
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let (mut ended, mut changed) = (Vec::new(), false);
        let active = self.stores.batch_index.active().await?;
        for batch in &active {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, *batch).await? else { continue };
            if row.current_step == CurrentStep::Delivery && row.delivery.state.is_final() {
                ended.push(row);
            }
        }
        for row in ended {
            let wanted = row.settlement.as_ref().map_or(0, |settlement| self.receipts_wanted(settlement));
            let (batch, began) = (row.batch.batch_id, self.world.clock.boot());
            if self.is_due(batch, wanted, began) {
                let settled = self.settle(row).await;
                self.recounted(batch, began);
                changed |= self.unreadable.pass_over(self.name(), batch, settled)?.unwrap_or(false);
            }
        }
        self.next.lock().unwrap_or_else(PoisonError::into_inner).retain(|batch, _| active.contains(batch));
        Ok(changed)
    }
}
