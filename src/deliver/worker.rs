//! The worker: owns the queue's `recv`, keeps the tokens of its partitions, and serves a few lanes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Delivery;
use super::lane::{LaneEnd, LaneView, serve};
use crate::model::id::{BatchId, LaneKey, TaskCode};
use crate::model::seat::{Candidate, seats};
use crate::model::task::{SmsBatchPartitionTask, TaskStatus};
use crate::model::trace::TraceParent;
use crate::ports::queue::{DeliveryQueue, QueueError, QueueEvent};
use crate::runtime::mutation::{self, Bug};
use crate::runtime::offsets::Offsets;
use crate::runtime::pulse::{self, Turns};

/// How long revoked lanes may take to stop before they are given up.
const RELEASE_WITHIN: Duration = Duration::from_millis(800);
/// A lane that moved less long ago than this counts as moving.
const STILL_FROM: Duration = Duration::from_secs(5);
/// How often tokens are looked over.
const LOOK_OVER: Duration = Duration::from_millis(100);

/// A lane with tokens on this worker.
struct Slot {
    partition: u8,
    tokens: BTreeMap<u64, SmsBatchPartitionTask>,
    view: Arc<Mutex<LaneView>>,
    running: Option<Running>,
    /// It is not served before this, on the boot clock: the other one may be set back.
    not_before: Duration,
    /// Where in a trace its newest token came from.
    trace: Option<TraceParent>,
}

struct Running {
    /// What it is served under.
    dispatch: TaskCode,
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// Since when, on the boot clock.
    since: Duration,
}

struct Worker {
    ctx: Arc<Delivery>,
    queue: Arc<DeliveryQueue>,
    slots: BTreeMap<LaneKey, Slot>,
    partitions: BTreeMap<u8, Offsets>,
    /// When a lane of a batch was started last, on the boot clock.
    last: BTreeMap<BatchId, Duration>,
    /// Whose batches were served.
    tenants: BTreeMap<BatchId, String>,
    ended: mpsc::UnboundedSender<(LaneKey, LaneEnd)>,
}

/// Works until `stop` is cancelled, then drains: nothing new is handed over, answers are waited for up to `grace`, offsets
/// are committed, and the group is left. Ends early only when the queue is closed.
pub async fn run(ctx: Arc<Delivery>, queue: Arc<DeliveryQueue>, stop: CancellationToken, grace: Duration) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut worker = Worker::new(ctx.clone(), queue.clone(), ended);
    pulse::watch("deliverer", Turns::Always, worker.work(&mut ends, &stop)).await;
    let until = Instant::now() + grace;
    worker.drain(&mut ends, until).await;
    queue.leave().await;
    // Lanes that went to others a moment ago left windows here, and only this process will hear their answers.
    ctx.windows.close();
    if !mutation::is_on(Bug::ForgetGivenBack) && tokio::time::timeout_at(until, ctx.windows.wait()).await.is_err() {
        tracing::warn!(windows = ctx.windows.len(), "the time to stop is over before all answers came");
    }
}

impl Worker {
    fn new(ctx: Arc<Delivery>, queue: Arc<DeliveryQueue>, ended: mpsc::UnboundedSender<(LaneKey, LaneEnd)>) -> Worker {
        let (slots, partitions, last, tenants) = Default::default();
        Worker { ctx, queue, slots, partitions, last, tenants, ended }
    }

    /// Works until it is told to stop, or the queue is closed.
    async fn work(&mut self, ends: &mut mpsc::UnboundedReceiver<(LaneKey, LaneEnd)>, stop: &CancellationToken) {
        let queue = self.queue.clone();
        let mut look_over = tokio::time::interval(LOOK_OVER);
        look_over.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whoever holds nothing has looked that over, and sleeps until something comes.
        let mut is_idle = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((lane, end)) = ends.recv() => {
                    is_idle = false;
                    self.lane_ended(lane, end).await;
                }
                event = queue.recv() => match event {
                    Ok(event) => {
                        is_idle = false;
                        self.event(event, ends).await;
                    }
                    Err(QueueError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the delivery queue does not answer");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                },
                _ = look_over.tick(), if !is_idle => {
                    self.look_over().await;
                    is_idle = self.slots.is_empty();
                }
            }
        }
    }

    async fn event(&mut self, event: QueueEvent<SmsBatchPartitionTask>, ends: &mut mpsc::UnboundedReceiver<(LaneKey, LaneEnd)>) {
        match event {
            QueueEvent::Assigned(partitions) => {
                for partition in &partitions {
                    self.partitions.remove(partition);
                }
                self.ctx.note(|holds| holds.partitions.extend(partitions));
            }
            QueueEvent::Revoked(partitions) => {
                self.ctx.note(|holds| holds.partitions.retain(|partition| !partitions.contains(partition)));
                self.release(partitions.iter().copied().collect(), ends).await;
                self.queue.released(&partitions).await;
            }
            QueueEvent::Task { partition, offset, task, trace } => {
                self.partitions.entry(partition).or_insert_with(|| Offsets::new(offset)).received(offset);
                let slot = self.slots.entry(task.lane()).or_insert_with(|| Slot {
                    partition,
                    tokens: BTreeMap::new(),
                    view: Arc::default(),
                    running: None,
                    not_before: Duration::ZERO,
                    trace: None,
                });
                slot.trace = trace.or(slot.trace);
                let same = |held: &SmsBatchPartitionTask| (held.task_code, held.slice) == (task.task_code, task.slice);
                if slot.tokens.iter().any(|(at, held)| *at != offset && same(held)) {
                    // Sent again for a lane that waits here: the one that is held says it all.
                    if let Some(offsets) = self.partitions.get_mut(&partition) {
                        offsets.ended(offset);
                        self.queue.holds(partition, offsets.held());
                    }
                    return;
                }
                let is_news = slot.tokens.is_empty() && slot.running.is_none();
                slot.tokens.insert(offset, task);
                // The others find their lane served, or waiting already: it is looked at when its time has come.
                if is_news {
                    self.start_lanes();
                }
            }
        }
    }

    /// Starts lanes, a few at once, and stops some whose time is over when others wait.
    fn start_lanes(&mut self) {
        let boot = self.ctx.world.clock.boot();
        let may_run = |slot: &&Slot| slot.running.is_some() || !slot.tokens.is_empty() && slot.not_before <= boot;
        let lanes: Vec<Candidate> = self
            .slots
            .iter()
            .filter(|(_, slot)| may_run(slot))
            .map(|(key, slot)| Candidate {
                lane: *key,
                tenant: self.tenants.get(&key.batch).map_or("", String::as_str),
                since: slot.running.as_ref().map(|running| running.since),
                is_leaving: slot.running.as_ref().is_some_and(|running| running.stop.is_cancelled()),
                last: self.last.get(&key.batch).copied(),
            })
            .collect();
        let seating = seats(&lanes, self.ctx.turns.lanes_at_once(), boot);
        for key in seating.stop {
            if let Some(running) = self.slots.get(&key).and_then(|slot| slot.running.as_ref()) {
                running.stop.cancel();
            }
        }
        for key in seating.start {
            self.last.insert(key.batch, boot);
            self.start(key);
        }
    }

    fn start(&mut self, key: LaneKey) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(dispatch) = slot.tokens.values().map(|token| token.task_code).max() else { return };
        let (ctx, view, stop, ended) = (self.ctx.clone(), slot.view.clone(), CancellationToken::new(), self.ended.clone());
        let (trace, since) = (slot.trace, self.ctx.world.clock.boot());
        let lane_stop = stop.clone();
        self.ctx.note(|holds| {
            holds.lanes.insert(key);
        });
        let task = self.ctx.tasks.spawn("lane", async move {
            let end = pulse::watch("lane", Turns::WhenWoken, serve(ctx, key, dispatch, view, trace, lane_stop)).await;
            let _ = ended.send((key, end));
        });
        slot.running = Some(Running { dispatch, task, stop, since });
    }

    async fn lane_ended(&mut self, key: LaneKey, end: LaneEnd) {
        self.take_end(key, end).await;
        self.commit().await;
        self.start_lanes();
    }

    /// What the end of a lane means for its tokens, and for when it is looked at again.
    async fn take_end(&mut self, key: LaneKey, end: LaneEnd) {
        let now = self.ctx.world.clock.boot();
        self.ctx.note(|holds| {
            holds.lanes.remove(&key);
        });
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let Some(Running { dispatch: served, .. }) = slot.running.take() else { return };
        match end {
            LaneEnd::Done | LaneEnd::OutOfDate => {
                // Says nothing of a newer dispatch, whose token may have come meanwhile: that has a look of its own.
                let is_current = end == LaneEnd::OutOfDate && self.runs_under(key, served).await;
                self.end_tokens(key, |token| token.task_code < served || token.task_code == served && !is_current);
            }
            LaneEnd::Later(wait) => slot.not_before = now + wait,
            LaneEnd::Lost => slot.not_before = now + Duration::from_millis(100),
            LaneEnd::Stopped => {}
            LaneEnd::Broken(error) => {
                tracing::error!(lane = %key, code = %error.code(), %error, "a lane cannot be served; it is tried again");
                slot.not_before = now + Duration::from_secs(5);
            }
        }
    }

    /// Whether the lane's batch is known to run under this dispatch.
    async fn runs_under(&self, key: LaneKey, dispatch: TaskCode) -> bool {
        let reading = self.ctx.readings.get(key.batch).await.ok().flatten();
        reading.is_some_and(|reading| reading.is_running(dispatch.number))
    }

    fn end_tokens(&mut self, key: LaneKey, ends: impl Fn(&SmsBatchPartitionTask) -> bool) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let done: Vec<u64> = slot.tokens.iter().filter(|(_, token)| ends(token)).map(|(offset, _)| *offset).collect();
        for offset in done {
            slot.tokens.remove(&offset);
            if let Some(offsets) = self.partitions.get_mut(&slot.partition) {
                offsets.ended(offset);
            }
        }
        if slot.tokens.is_empty() && slot.running.is_none() {
            self.slots.remove(&key);
        }
    }

    /// Ends the tokens that the ledgers are past, commits, and starts what has become due.
    async fn look_over(&mut self) {
        let keys: Vec<LaneKey> = self.slots.keys().copied().collect();
        for key in keys {
            let ledger =
                self.slots.get(&key).and_then(|slot| slot.view.lock().unwrap_or_else(PoisonError::into_inner).ledger.clone());
            if let Some(ledger) = ledger {
                // A ledger as it was under an older dispatch says nothing of a newer one, which may have more to send.
                let is_of_it = |token: &SmsBatchPartitionTask| token.task_code.number <= ledger.task_number;
                self.end_tokens(key, |token| is_of_it(token) && token.judge(&ledger) == TaskStatus::Done);
            }
        }
        let held: BTreeSet<BatchId> = self.slots.keys().map(|key| key.batch).collect();
        self.last.retain(|batch, _| held.contains(batch));
        self.tenants.extend(self.ctx.turns.tenants());
        self.tenants.retain(|batch, _| held.contains(batch));
        self.note_still();
        self.commit().await;
        self.start_lanes();
    }

    /// Notes which lanes stand although they are served. Those that wait to be served stand for good reasons.
    fn note_still(&self) {
        let now = self.ctx.world.clock.boot();
        let mut still: BTreeMap<u8, Duration> = BTreeMap::new();
        for slot in self.slots.values().filter(|slot| slot.running.is_some()) {
            let moved = slot.view.lock().unwrap_or_else(PoisonError::into_inner).moved;
            if let Some(stood) = moved.map(|moved| now.saturating_sub(moved)).filter(|stood| *stood >= STILL_FROM) {
                let longest = still.entry(slot.partition).or_default();
                *longest = stood.max(*longest);
            }
        }
        self.ctx.note(|holds| holds.still = still);
    }

    async fn commit(&mut self) {
        for (partition, offsets) in &mut self.partitions {
            self.queue.holds(*partition, offsets.held());
            if let Some(next) = offsets.to_commit()
                && let Err(error) = self.queue.commit(*partition, next).await
            {
                // Not committed means: comes again, and is ignored then.
                tracing::debug!(%error, partition, "an offset was not committed");
            }
        }
    }

    /// Stops serving lanes of these partitions within a second. Windows that are still being answered go on and write their
    /// answers; whoever gets the lane judges them.
    async fn release(&mut self, partitions: BTreeSet<u8>, ends: &mut mpsc::UnboundedReceiver<(LaneKey, LaneEnd)>) {
        if mutation::is_on(Bug::KeepRevoked) {
            return;
        }
        let leaving: BTreeSet<LaneKey> =
            self.slots.iter().filter(|(_, slot)| partitions.contains(&slot.partition)).map(|(key, _)| *key).collect();
        self.stop_lanes(&leaving, ends, Instant::now() + RELEASE_WITHIN).await;
        self.commit().await;
        self.slots.retain(|key, _| !leaving.contains(key));
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    async fn stop_lanes(
        &mut self,
        lanes: &BTreeSet<LaneKey>,
        ends: &mut mpsc::UnboundedReceiver<(LaneKey, LaneEnd)>,
        until: Instant,
    ) {
        for key in lanes {
            if let Some(running) = self.slots.get(key).and_then(|slot| slot.running.as_ref()) {
                running.stop.cancel();
            }
        }
        while lanes.iter().any(|key| self.slots.get(key).is_some_and(|slot| slot.running.is_some())) {
            match tokio::time::timeout_at(until, ends.recv()).await {
                Ok(Some((key, end))) if lanes.contains(&key) => {
                    let running = self.slots.get_mut(&key).and_then(|slot| slot.running.take());
                    if let Some(Running { dispatch: served, .. }) = running
                        && end == LaneEnd::Done
                    {
                        // A newer dispatch's token, that came meanwhile, is for whoever has the lane next.
                        self.end_tokens(key, |token| token.task_code <= served);
                    }
                }
                // The end of another lane means what it always does. Were it cut off, its tokens would stay, and it be looked at again.
                Ok(Some((key, end))) => drop(tokio::time::timeout_at(until, self.take_end(key, end)).await),
                Ok(None) | Err(_) => break,
            }
        }
        for key in lanes {
            if let Some(running) = self.slots.get_mut(key).and_then(|slot| slot.running.take()) {
                running.task.abort();
            }
        }
        self.ctx.note(|holds| holds.lanes.retain(|key| !lanes.contains(key)));
    }

    async fn drain(&mut self, ends: &mut mpsc::UnboundedReceiver<(LaneKey, LaneEnd)>, until: Instant) {
        let all: BTreeSet<LaneKey> = self.slots.keys().copied().collect();
        self.stop_lanes(&all, ends, until).await;
        self.commit().await;
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
