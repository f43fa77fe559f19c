//! A range's task: claim it, read it under the eyes of a watch, and finish it by one compare-and-set that names the attempt.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::reading::{Trouble, read_range};
use super::tools::{BEAT_EVERY, End, LOOK_EVERY, Tools, is_wanted};
use crate::model::batch::BatchRow;
use crate::model::code::{Code, Fault};
use crate::model::id::{RangeKey, TaskCode};
use crate::model::record::{RangeRow, RangeState, RowFault};
use crate::model::trace::TraceParent;
use crate::ports::StoreError;
use crate::ports::control::Versioned;
use crate::runtime::control::{change, load_row};
use crate::runtime::metrics;
use crate::runtime::retry::Schedule;
use crate::runtime::trace::{self, Piece, Span};

/// How long a task that was stopped tries to give its range back; after that the range waits until its holder looks dead.
const RELEASE_WITHIN: Duration = Duration::from_millis(500);

/// Carries out a range's task. The caller makes sure that it runs only once in this process: a claim that this worker left
/// behind is taken over at once.
///
/// # Errors
/// [`StoreError::Corrupt`] when a control row cannot be read.
pub async fn prepare_range(
    tools: &Tools,
    task_code: TaskCode,
    range: u32,
    trace: Option<TraceParent>,
    stop: &CancellationToken,
) -> Result<End, StoreError> {
    let key = RangeKey { batch: task_code.batch, range };
    let parent = trace.or_else(|| trace::place(Piece::Create(key.batch)));
    let mut waits = Schedule::new(Duration::from_millis(200), Duration::from_secs(10), tools.world.chance.next());
    loop {
        let attempt = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            claimed = begin(tools, task_code, key) => match claimed? {
                Ok(attempt) => attempt,
                Err(end) => return Ok(end),
            },
        };
        let mut span = Span::begin(Piece::Range(key, attempt.number), parent);
        span.note("range", range);
        span.note("attempt", attempt.number);
        let lines = span.lines();
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            end = carry_out(tools, task_code, key, &attempt, &mut span).instrument(lines) => Some(end?),
        };
        drop(span);
        match end {
            Some(Carried::Ended(end)) => return Ok(end),
            Some(Carried::Unwanted) => {
                release(tools, key, attempt.number).await;
                return Ok(End::OutOfDate);
            }
            None => {
                release(tools, key, attempt.number).await;
                return Ok(End::Stopped);
            }
            Some(Carried::MayPass(fault)) => {
                tracing::warn!(code = %fault.code, batch = %key.batch, range, context = %fault.context, "a range is read again");
                release(tools, key, attempt.number).await;
                let wait = waits.delay_for_ever();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(End::Stopped),
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

/// Fails a range that this worker holds, whatever the attempt: for a task that ended in a way no code foresaw.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub async fn fail_range(tools: &Tools, key: RangeKey, fault: &Fault) -> Result<(), StoreError> {
    let now = tools.world.clock.now();
    let state = RangeState::Failed(RowFault { code: fault.code, detail: fault.context.clone() });
    let failed = change_range(tools, key, |row| {
        if row.owner == tools.worker { row.finish(row.attempt, state.clone(), now).ok_or(()) } else { Err(()) }
    });
    failed.await.map(|_| ())
}

/// An attempt that holds the range.
struct Attempt {
    number: u32,
    row: RangeRow,
    batch: BatchRow,
}

/// How an attempt ended.
enum Carried {
    Ended(End),
    /// The batch was paused, canceled or dispatched anew.
    Unwanted,
    /// What went wrong may pass.
    MayPass(Fault),
}

async fn begin(tools: &Tools, task_code: TaskCode, key: RangeKey) -> Result<Result<Attempt, End>, StoreError> {
    let batch = match load_row(&*tools.batches, key.batch, &*tools.world.chance).await? {
        Some(batch) if is_wanted(&batch.row, task_code) => batch.row,
        _ => return Ok(Err(End::OutOfDate)),
    };
    if load_row(&*tools.ranges, key, &*tools.world.chance).await?.is_none() {
        return Ok(Err(End::OutOfDate));
    }
    let dead_after_ms = tools.settings.dead_after.as_millis() as u64;
    let claimed = change_range(tools, key, |row| {
        let mine = (row.owner == tools.worker).then(|| row.release(row.attempt)).flatten();
        let claimed = mine.as_ref().unwrap_or(row).claim(tools.worker, tools.world.clock.now(), dead_after_ms);
        claimed.ok_or(match row.state {
            RangeState::Waiting | RangeState::Claimed => End::Held,
            RangeState::Done(_) => End::Done,
            RangeState::Failed(_) => End::Failed,
        })
    });
    Ok(claimed.await?.map(|claimed| Attempt { number: claimed.row.attempt, row: claimed.row, batch }))
}

async fn carry_out(
    tools: &Tools,
    task_code: TaskCode,
    key: RangeKey,
    attempt: &Attempt,
    span: &mut Span,
) -> Result<Carried, StoreError> {
    let progress = AtomicU64::new(0);
    let read = tokio::select! {
        biased;
        carried = watch(tools, task_code, key, attempt.number, &progress) => return Ok(carried),
        read = read_range(tools, &attempt.batch, &attempt.row.plan, key, attempt.number, &progress, span.place()) => read,
    };
    let state = match read {
        Ok(totals) => RangeState::Done(Box::new(totals)),
        Err(Trouble::Fault(fault)) if fault.code.retryable() => {
            span.failed(fault.code);
            return Ok(Carried::MayPass(fault));
        }
        Err(Trouble::Fault(fault)) => failed(key, fault.code, fault.context),
        Err(Trouble::Store(error)) => failed(key, error.code(), error.to_string()),
    };
    match &state {
        RangeState::Done(totals) => {
            span.note("records", totals.records);
            span.note("messages", totals.messages);
            tracing::info!(batch = %key.batch, range = key.range, records = totals.records, "a range was prepared");
        }
        RangeState::Failed(fault) => span.failed(fault.code),
        RangeState::Waiting | RangeState::Claimed => {}
    }
    let end = if matches!(state, RangeState::Done(_)) { End::Done } else { End::Failed };
    let finished = change_range(tools, key, |row| {
        // The row may hold this very end already, when the answer to it was lost.
        row.finish(attempt.number, state.clone(), tools.world.clock.now())
            .ok_or(row.attempt == attempt.number && row.state == state)
    });
    let finished = finished.await?;
    if finished.is_ok() {
        counted(&state);
    }
    Ok(Carried::Ended(match finished {
        Ok(_) | Err(true) => end,
        Err(false) => End::OutOfDate,
    }))
}

/// Counts a range that this worker ended.
fn counted(state: &RangeState) {
    let RangeState::Done(totals) = state else {
        metrics::count(&metrics::PREPARE_RANGES, &["failed"], 1);
        return;
    };
    metrics::count(&metrics::PREPARE_RANGES, &["done"], 1);
    let rejected = totals.rejected.iter().map(|(_, records)| records).sum();
    for (result, records) in [("message", totals.messages), ("rejected", rejected), ("suppressed", totals.suppressed)] {
        metrics::count(&metrics::PREPARE_RECORDS, &[result], records);
    }
    for (code, records) in &totals.rejected {
        metrics::count(&metrics::PREPARE_REJECTED, &[code.as_str()], *records);
    }
    metrics::count(&metrics::PREPARE_PACKS, &[], totals.packs.iter().map(|packs| u64::from(*packs)).sum());
}

fn failed(key: RangeKey, code: Code, detail: String) -> RangeState {
    tracing::error!(%code, batch = %key.batch, range = key.range, context = %detail, "a range cannot be prepared");
    RangeState::Failed(RowFault { code, detail })
}

/// Shows signs of life, and ends when the attempt should: the batch does not want it, or somebody else has the range.
async fn watch(tools: &Tools, task_code: TaskCode, key: RangeKey, attempt: u32, progress: &AtomicU64) -> Carried {
    let mut last_beat = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match tools.batches.load(key.batch).await {
            Ok(Some(batch)) if is_wanted(&batch.row, task_code) => {}
            Ok(_) => return Carried::Unwanted,
            // A store that does not answer says nothing about the batch: the packs wait for it as well.
            Err(error) => {
                tracing::debug!(code = %error.code(), %error, "the batch could not be read");
                continue;
            }
        }
        if last_beat.elapsed() >= BEAT_EVERY {
            last_beat = Instant::now();
            let beat = change(&*tools.ranges, key, &*tools.world.chance, |row: &Versioned<RangeRow>| {
                row.row.beat(attempt, progress.load(Ordering::Relaxed), tools.world.clock.now()).ok_or(())
            });
            if let Ok(Err(())) = beat.await {
                return Carried::Ended(End::OutOfDate);
            }
        }
    }
}

async fn release(tools: &Tools, key: RangeKey, attempt: u32) {
    let released = change_range(tools, key, |row| row.release(attempt).ok_or(()));
    if tokio::time::timeout(RELEASE_WITHIN, released).await.is_err() {
        tracing::warn!(batch = %key.batch, range = key.range, "a range could not be given back in time");
    }
}

/// Changes the range's row. Every decision here looks at the newest row and knows its own effect when it sees it, so a
/// change whose answer was lost for good is simply decided again.
async fn change_range<R: Send>(
    tools: &Tools,
    key: RangeKey,
    mut decide: impl FnMut(&RangeRow) -> Result<RangeRow, R> + Send,
) -> Result<Result<Versioned<RangeRow>, R>, StoreError> {
    loop {
        match change(&*tools.ranges, key, &*tools.world.chance, |row: &Versioned<RangeRow>| decide(&row.row)).await {
            Err(StoreError::Unknown(_)) => {}
            answer => return answer,
        }
    }
}
