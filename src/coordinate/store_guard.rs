//! Pausing while the disk is full: what runs is paused with a clear reason, and goes on by itself once there is room.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::batch::BatchRow;
use crate::model::code::Code;
use crate::model::state::{StepEvent, StepState};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::change;
use crate::runtime::job::{Job, Unreadable};

/// How often the room is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// The job that watches the store's room.
pub struct StoreGuard {
    stores: Stores,
    world: World,
    last: Mutex<Option<Duration>>,
    unreadable: Unreadable,
}

impl StoreGuard {
    /// Watches this store.
    pub fn new(stores: Stores, world: World) -> StoreGuard {
        StoreGuard { stores, world, last: Mutex::new(None), unreadable: Unreadable::default() }
    }

    async fn apply(&self, full: Option<String>) -> Result<bool, StoreError> {
        let now = self.world.clock.now();
        let mut changed = false;
        for batch in self.stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, batch).await? else { continue };
            let Some(event) = event_of(&row, full.is_some()) else { continue };
            let reason = full.clone().map(|text| (Code::StoreFull, text));
            let done = change(&*self.stores.batches, batch, &*self.world.chance, |current| {
                // Another state than the one decided on is decided on in the next round.
                if event_of(&current.row, full.is_some()) != Some(event) {
                    return Err(());
                }
                current.row.after(event, reason.clone(), now).map_err(|_| ())
            });
            if self.unreadable.pass_over(self.name(), batch, done.await)?.is_some_and(|done| done.is_ok()) {
                changed = true;
                match &full {
                    Some(text) => tracing::error!(%batch, code = %Code::StoreFull, text, "the disk is full: the batch is paused"),
                    None => tracing::warn!(%batch, "there is room again: the batch goes on"),
                }
            }
        }
        Ok(changed)
    }
}

/// What a full or a roomy store means for a batch: only what the guard itself paused goes on by itself.
fn event_of(row: &BatchRow, full: bool) -> Option<StepEvent> {
    match (row.step().state, full) {
        (StepState::Running, true) => Some(StepEvent::Pause),
        (StepState::Paused, false) if row.waits_for_room() => Some(StepEvent::Resume),
        _ => None,
    }
}

#[async_trait::async_trait]
impl Job for StoreGuard {
    fn name(&self) -> &'static str {
        "store_guard"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        let now = self.world.clock.boot();
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.saturating_sub(last) < EVERY) {
                return Ok(false);
            }
            *last = Some(now);
        }
        match self.stores.meta.room().await {
            Ok(()) => self.apply(None).await,
            Err(StoreError::Full(text)) => self.apply(Some(text)).await,
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::Command;
    use crate::model::batch::tests::batch;
    use crate::model::state::Refusal;
    use crate::model::time::Timestamp;

    #[test]
    fn only_what_the_guard_paused_goes_on_by_itself() {
        let now = Timestamp(1);
        let row = BatchRow::created(batch(), String::new(), now);
        let running =
            row.command(Command::EntryProcess, now).and_then(|r| r.after(StepEvent::Start, None, now)).expect("running");
        assert_eq!(event_of(&running, true), Some(StepEvent::Pause));
        assert_eq!(event_of(&running, false), None);
        let by_guard = running.after(StepEvent::Pause, Some((Code::StoreFull, "no room".into())), now).expect("paused");
        assert_eq!((event_of(&by_guard, true), event_of(&by_guard, false)), (None, Some(StepEvent::Resume)));
        let by_hand = running.command(Command::Pause, now).expect("paused");
        assert_eq!(event_of(&by_hand, false), None);
        // An operator who pauses what the guard has paused already wants it to stay so.
        assert!(by_guard.can_pause() && !by_hand.can_pause());
        let taken_over = by_guard.command(Command::Pause, now).expect("it is a pause of its own");
        assert_eq!((taken_over.step().state, &taken_over.step().reason), (StepState::Paused, &None));
        assert_eq!((event_of(&taken_over, false), taken_over.changes.len()), (None, by_guard.changes.len() + 1));
        assert_eq!(taken_over.command(Command::Pause, now), Err(Refusal::Already));
    }
}
