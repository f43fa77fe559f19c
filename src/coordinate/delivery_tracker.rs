//! Following delivery: sends again what does not move, completes fences, and closes the step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::backlog::Backlog;
use crate::model::batch::BatchRow;
use crate::model::id::{BatchId, LaneKey};
use crate::model::ledger::Ledger;
use crate::model::state::{StepEvent, StepState};
use crate::model::step::CurrentStep;
use crate::model::task::{Standing, last_token_of};
use crate::ports::control::Versioned;
use crate::ports::queue::TaskSender;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::fence::fence;
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::trace::{self, Piece};

/// The ledgers of a batch as they were read.
type Lanes = Vec<(LaneKey, Versioned<Ledger>)>;

/// What this term has seen.
#[derive(Default)]
struct Term {
    lanes: BTreeMap<LaneKey, Standing>,
    /// Batches that have ended with all lanes done and closed: under which dispatch, and what their lanes come to. They wait for
    /// receipts, for days, and until they are dispatched anew none of their ledgers changes.
    ended: BTreeMap<BatchId, (u64, Backlog)>,
    /// Whether the first round of the term is over: what was running before it began gets a token at once.
    began: bool,
}

/// The job that follows deliveries. Safe to run twice at once.
#[doc(alias = "status_tracking")]
pub struct DeliveryStatusTracker {
    stores: Stores,
    world: World,
    sender: Arc<dyn TaskSender>,
    term: Mutex<Term>,
    unreadable: Unreadable,
}

impl DeliveryStatusTracker {
    /// A tracker that sends through `sender`.
    pub fn new(stores: Stores, world: World, sender: Arc<dyn TaskSender>) -> DeliveryStatusTracker {
        DeliveryStatusTracker { stores, world, sender, term: Mutex::default(), unreadable: Unreadable::default() }
    }

    /// Follows one batch, and adds its lanes to the backlog. Returns whether its row changed.
    async fn track(&self, row: &BatchRow, first_round: bool, backlog: &mut Backlog) -> Result<bool, StoreError> {
        if let Some(lanes) = self.ended(row) {
            backlog.merge(&lanes);
            return Ok(false);
        }
        let ledgers = self.stores.ledgers.list(row.batch.batch_id).await?;
        let now = self.world.clock.now();
        let sent = row.delivery.state == StepState::Running
            && row.batch.hours.as_ref().is_none_or(|hours| self.world.clock.allows(hours, now));
        ledgers.iter().for_each(|(_, ledger)| backlog.add(&ledger.row, sent.then_some(now)));
        // What a pending order adds is not there yet: the batch only looks done.
        let whole = row.orders.pending.is_none() || row.delivery.state.is_final();
        if ledgers.len() < usize::from(row.lanes) || !whole {
            return Ok(false);
        }
        match row.delivery.state {
            StepState::Running => {
                let done = |ledger: &Ledger| ledger.is_done() || mutation::is_on(Bug::FinishOpen) && ledger.undeclared() == 0;
                if ledgers.iter().all(|(_, ledger)| done(&ledger.row)) {
                    return self.finish(row, ledgers).await;
                }
                self.send_again(row, &ledgers, first_round).await;
                Ok(false)
            }
            // An end that was not fenced to its end: whoever began it may be dead.
            StepState::Canceled | StepState::CompletedSucceeded | StepState::CompletedFailed => {
                let ledgers = self.close(row, ledgers).await?;
                // Open windows are still answered, and judged, by whoever has the lane.
                self.send_again(row, &ledgers, first_round).await;
                if ledgers.iter().all(|(_, ledger)| ledger.row.is_done()) {
                    let mut lanes = Backlog::default();
                    ledgers.iter().for_each(|(_, ledger)| lanes.add(&ledger.row, None));
                    self.term().ended.insert(row.batch.batch_id, (row.task_number, lanes));
                }
                Ok(false)
            }
            // A paused lane's last window may be done, and the pause outlives everything there was to send.
            StepState::Paused if ledgers.iter().all(|(_, ledger)| ledger.row.is_done()) => self.finish(row, ledgers).await,
            StepState::Initial | StepState::Ready | StepState::Paused => Ok(false),
        }
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the lanes of a batch come to that was seen to have ended under its newest dispatch.
    fn ended(&self, row: &BatchRow) -> Option<Backlog> {
        let (number, lanes) = self.term().ended.get(&row.batch.batch_id).copied()?;
        (number == row.task_number && row.delivery.state.is_final()).then_some(lanes)
    }

    /// Fences every lane, then closes the step: nothing can be declared behind its back.
    async fn finish(&self, row: &BatchRow, ledgers: Lanes) -> Result<bool, StoreError> {
        self.close(row, ledgers).await?;
        let now = self.world.clock.now();
        let batch = row.batch.batch_id;
        let closed = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
            // An order may have opened the batch again since it was read.
            if current.row.task_number != row.task_number {
                return Err(());
            }
            current.row.after(StepEvent::Succeed, None, now).map_err(|_| ())
        });
        Ok(closed.await?.is_ok())
    }

    /// Makes sure that nothing is ever declared again in these lanes.
    async fn close(&self, row: &BatchRow, ledgers: Lanes) -> Result<Lanes, StoreError> {
        let number = row.task_number;
        fence(&*self.stores.ledgers, &*self.world.chance, ledgers, |read| read.row.fence_closed(number)).await
    }

    async fn send_again(&self, row: &BatchRow, ledgers: &[(LaneKey, Versioned<Ledger>)], first_round: bool) {
        let now = self.world.clock.boot();
        if mutation::is_on(Bug::LostWakeUp) {
            return;
        }
        let mut tokens = Vec::new();
        {
            let mut term = self.term();
            for (key, ledger) in ledgers {
                if ledger.row.is_done() {
                    term.lanes.remove(key);
                    continue;
                }
                let (standing, still) = match term.lanes.get(key) {
                    Some(known) => known.look(ledger.version, row.task_number, now),
                    None => (Standing::new(ledger.version, row.task_number, now), first_round),
                };
                term.lanes.insert(*key, standing);
                if still {
                    tokens.push(last_token_of(row.task_code(), *key, &ledger.row));
                }
            }
        }
        if tokens.is_empty() {
            return;
        }
        metrics::count(&metrics::DISPATCH_TOKENS, &["delivery"], tokens.len() as u64);
        if let Err(error) = self.sender.send_delivery(tokens, trace::place(Piece::Dispatch(row.task_code()))).await {
            tracing::warn!(%error, "tokens could not be sent again; the next round tries");
        }
    }
}

fn show(backlog: &Backlog) {
    for (state, recipients) in backlog.recipients() {
        metrics::set(&metrics::COORDINATE_RECIPIENTS, &[state], recipients as f64);
    }
    for (state, lanes) in backlog.lanes() {
        metrics::set(&metrics::COORDINATE_LANES, &[state], lanes as f64);
    }
    metrics::set(&metrics::QUEUE_LAG_RECIPIENTS, &["delivery"], backlog.sendable() as f64);
}

#[async_trait::async_trait]
impl Job for DeliveryStatusTracker {
    fn name(&self) -> &'static str {
        "delivery_status_tracking"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let first_round = !self.term().began;
        let (mut changed, mut backlog) = (false, Backlog::default());
        let mut active: Vec<BatchId> = self.stores.batch_index.active().await?;
        active.sort_unstable();
        for batch in &active {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, *batch).await? else { continue };
            if row.current_step == CurrentStep::Delivery {
                let tracked = self.track(&row, first_round, &mut backlog).await;
                changed |= self.unreadable.pass_over(self.name(), *batch, tracked)?.unwrap_or(false);
            }
        }
        show(&backlog);
        let mut term = self.term();
        term.began = true;
        term.lanes.retain(|key, _| active.binary_search(&key.batch).is_ok());
        term.ended.retain(|batch, _| active.binary_search(batch).is_ok());
        Ok(changed)
    }

    fn new_term(&self) {
        *self.term() = Term::default();
    }
}
