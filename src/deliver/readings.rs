//! Recent readings of batch rows: a worker declares only while its last reading is younger than a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::batch::BatchRow;
use crate::model::id::BatchId;
use crate::model::limits::{BATCH_READING_EVERY, BATCH_READING_MAX};
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::ports::StoreError;
use crate::ports::batches::BatchRows;
use crate::ports::clock::Clock;

/// A batch row, and when reading it began.
#[derive(Clone)]
pub struct Reading {
    /// The row.
    pub row: Arc<BatchRow>,
    started: Duration,
}

impl Reading {
    /// Whether a declare may still rest on it.
    pub fn is_fresh(&self, clock: &dyn Clock) -> bool {
        clock.boot().saturating_sub(self.started) < BATCH_READING_MAX
    }

    /// Whether the batch is being delivered under the dispatch `task_number`.
    pub fn is_running(&self, task_number: u64) -> bool {
        self.row.current_step == CurrentStep::Delivery
            && self.row.delivery.state == StepState::Running
            && self.row.task_number == task_number
    }

    /// Whether the batch has ended under the dispatch `task_number`: nothing is declared, but open windows are settled.
    pub fn is_settling(&self, task_number: u64) -> bool {
        self.row.current_step == CurrentStep::Delivery
            && self.row.delivery.state.is_final()
            && self.row.task_number == task_number
    }
}

/// Readings by batch.
pub struct Readings {
    rows: Arc<dyn BatchRows>,
    clock: Arc<dyn Clock>,
    cache: Mutex<BTreeMap<BatchId, Reading>>,
}

impl Readings {
    /// Readings of these rows.
    pub fn new(rows: Arc<dyn BatchRows>, clock: Arc<dyn Clock>) -> Readings {
        Readings { rows, clock, cache: Mutex::new(BTreeMap::new()) }
    }

    /// A recent reading, made now when the last one is not recent; `None` when there is no such batch.
    pub async fn get(&self, batch: BatchId) -> Result<Option<Reading>, StoreError> {
        let now = self.clock.boot();
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&batch).cloned();
        if let Some(reading) = cached
            && now.saturating_sub(reading.started) < BATCH_READING_EVERY
        {
            return Ok(Some(reading));
        }
        let Some(row) = self.rows.load(batch).await? else { return Ok(None) };
        let reading = Reading { row: Arc::new(row.row), started: now };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, reading| now.saturating_sub(reading.started) < BATCH_READING_MAX);
        cache.insert(batch, reading.clone());
        Ok(Some(reading))
    }

    /// Makes the next [`get`](Readings::get) read: something said that the row has changed.
    pub fn forget(&self, batch: BatchId) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(&batch);
    }
}
