//! What is due, and sending its tokens.
//!
//! A delivery that is READY and due becomes RUNNING under a new `task_code` by one compare-and-set; then the tokens of its
//! lanes are queued. A leader that dies between the two leaves nothing to repair: the tracker sends what does not move.
//!
//! Architecture invariant: no token is sent for a batch that is not RUNNING in the store.

use std::sync::Arc;

use crate::model::batch::BatchRow;
use crate::model::code::Code;
use crate::model::schedule::StartDecision;
use crate::model::state::{StepEvent, StepState};
use crate::model::step::CurrentStep;
use crate::model::task::tokens_of;
use crate::ports::queue::TaskSender;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::metrics;
use crate::runtime::trace::{self, Piece, Span};

/// The job that dispatches what is due.
#[doc(alias = "dispatch_batch")]
pub struct DispatchBatch {
    stores: Stores,
    world: World,
    sender: Arc<dyn TaskSender>,
    unreadable: Unreadable,
}

impl DispatchBatch {
    /// Dispatches through `sender`.
    pub fn new(stores: Stores, world: World, sender: Arc<dyn TaskSender>) -> DispatchBatch {
        DispatchBatch { stores, world, sender, unreadable: Unreadable::default() }
    }

    async fn dispatch(&self, row: &BatchRow) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        let late = || Some((Code::StartMissed, format!("not_after was {}", row.batch.not_after.unwrap_or(now))));
        let (event, reason) = match row.start_decision(now) {
            StartDecision::Wait(_) => return Ok(false),
            StartDecision::Start => (StepEvent::Start, None),
            StartDecision::Hold => (StepEvent::Pause, late()),
            StartDecision::Cancel => (StepEvent::Cancel, late()),
        };
        let batch = row.batch.batch_id;
        let changed = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
            // Decided on what was read: another reading decides again in the next round.
            if current.row.task_number != row.task_number || current.row.delivery.state != StepState::Ready {
                return Err(());
            }
            current.row.after(event, reason.clone(), now).map_err(|_| ())
        });
        let Ok(running) = changed.await? else { return Ok(false) };
        if event == StepEvent::Start {
            self.send_tokens(&running.row).await?;
        }
        Ok(true)
    }

    /// Queues the tokens of every lane to its partition.
    async fn send_tokens(&self, row: &BatchRow) -> Result<(), StoreError> {
        let ledgers = self.stores.ledgers.list(row.batch.batch_id).await?;
        let tokens: Vec<_> = ledgers.iter().flat_map(|(key, ledger)| tokens_of(row.task_code(), *key, &ledger.row)).collect();
        metrics::count(&metrics::DISPATCH_TOKENS, &["delivery"], tokens.len() as u64);
        let mut span = Span::begin(Piece::Dispatch(row.task_code()), trace::place(Piece::Create(row.batch.batch_id)));
        span.note("tokens", tokens.len());
        if let Err(error) = self.sender.send_delivery(tokens, span.place()).await {
            span.failed(Code::ServerUnavailable);
            tracing::warn!(%error, batch = %row.batch.batch_id, "tokens could not be sent; the tracker sends what does not move");
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Job for DispatchBatch {
    fn name(&self) -> &'static str {
        "dispatch_batch"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let mut due = Vec::new();
        for batch in self.stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, batch).await? else { continue };
            let ready = row.current_step == CurrentStep::Delivery && row.delivery.state == StepState::Ready;
            // What an order changes is not whole while it is pending.
            if ready && row.orders.pending.is_none() {
                due.push(row);
            }
        }
        due.sort_by_key(|row| (std::cmp::Reverse(row.batch.priority), row.created));
        let mut changed = false;
        for row in due {
            let dispatched = self.dispatch(&row).await;
            changed |= self.unreadable.pass_over(self.name(), row.batch.batch_id, dispatched)?.unwrap_or(false);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests;
