//! One lane while a worker serves it: the owner of its ledger.
//!
//! The loop is: close what has ended, judge what others left, then, while the batch runs and its reading is fresh, wait for
//! a turn and declare the next window. One compare-and-set is in flight at a time; windows are answered meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::Delivery;
use super::declare::{Declared, is_too_late, within_hours};
use super::declaring::Changing;
use super::ending::{self, Plan};
use super::judge::{judge, ripe_after};
use super::loader::Loader;
use super::readings::Reading;
use super::turns::{Seat, Turn};
use super::window::Ended;
use crate::model::id::{LaneKey, TaskCode};
use crate::model::ledger::{Ledger, LedgerRefusal, Leg};
use crate::model::limits::LANE_WINDOWS_MAX;
use crate::model::trace::TraceParent;
use crate::model::turn::Claim;
use crate::model::window::OnUncertain;
use crate::ports::StoreError;
use crate::ports::control::Versioned;
use crate::runtime::control::{change, change_from, load_row};
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::trace::{self, Piece};

/// How long a lane outside the batch's hours is left alone: the zone's clock may be set meanwhile.
pub(super) const LOOK_AT_HOURS: Duration = Duration::from_secs(20);

/// How serving a lane ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneEnd {
    /// Nothing is left in it.
    Done,
    /// The dispatch is not the batch's newest any more, or the batch does not run.
    OutOfDate,
    /// What is left has to wait so long.
    Later(Duration),
    /// Somebody else owns it, or nobody can tell: claim it again if a token says so.
    Lost,
    /// The worker was told to stop serving it.
    Stopped,
    /// Something of it cannot be read.
    Broken(StoreError),
}

/// What the worker sees of a lane: kept between two servings.
#[derive(Default)]
pub struct LaneView {
    /// The ledger as it was last stored.
    pub ledger: Option<Ledger>,
    /// Foreign windows, and when they were first seen on the boot clock.
    pub seen: BTreeMap<u64, Duration>,
    /// When the ledger last moved while the lane was served, on the boot clock; `None` while it is not served.
    pub moved: Option<Duration>,
}

/// What came of a change of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is stored.
    Done,
    /// The row does not allow it, and the lane is still this worker's; the row is held as it is now.
    Refused,
    /// The lane is somebody else's, or nobody can tell what became of the change.
    Lost,
}

/// A lane being served.
pub(super) struct Lane {
    pub(super) ctx: Arc<Delivery>,
    pub(super) key: LaneKey,
    pub(super) task: TaskCode,
    pub(super) held: Versioned<Ledger>,
    pub(super) loader: Loader,
    /// Whether the batch wants those sent again who are not answered.
    resend: bool,
    /// The dispatch's place in the batch's trace.
    pub(super) trace: Option<TraceParent>,
    pub(super) view: Arc<Mutex<LaneView>>,
    /// Windows that this serving declared and that have not ended.
    pub(super) mine: BTreeSet<u64>,
    pub(super) ended: mpsc::UnboundedSender<(u64, Result<Ended, StoreError>)>,
    /// Cancelled when nothing more may be handed over.
    pub(super) halt: CancellationToken,
}

/// Serves a lane under a dispatch until one of [`LaneEnd`].
pub async fn serve(
    ctx: Arc<Delivery>,
    key: LaneKey,
    task: TaskCode,
    view: Arc<Mutex<LaneView>>,
    trace: Option<TraceParent>,
    stop: CancellationToken,
) -> LaneEnd {
    let trace = trace.or_else(|| trace::place(Piece::Dispatch(task)));
    match begin(&ctx, key, task).await {
        Ok(Ok((held, loader, reading))) => {
            let (ended, mut ends) = mpsc::unbounded_channel();
            let resend = reading.row.batch.on_uncertain == OnUncertain::Resend || mutation::is_on(Bug::ResendUnasked);
            let (mine, halt) = (BTreeSet::new(), CancellationToken::new());
            let mut lane = Lane { ctx, key, task, held, loader, resend, trace, view, mine, ended, halt };
            lane.show();
            // Also when this is dropped: what is being declared then is not handed over.
            let _halt = lane.halt.clone().drop_guard();
            let claim =
                Claim { tenant: reading.row.batch.tenant.clone(), priority: reading.row.batch.priority, batch: key.batch };
            let seat = lane.ctx.turns.enter(claim, reading.row.batch.provider_type.clone());
            let end = lane.work(&seat, &mut ends, &stop).await.unwrap_or_else(LaneEnd::Broken);
            lane.show();
            lane.lock_view().moved = None;
            end
        }
        Ok(Err(end)) => end,
        Err(StoreError::Unknown(_)) => LaneEnd::Lost,
        Err(error) => LaneEnd::Broken(error),
    }
}

type Begun = (Versioned<Ledger>, Loader, Reading);

/// Claims the lane, if the batch runs under this dispatch.
async fn begin(ctx: &Arc<Delivery>, key: LaneKey, task: TaskCode) -> Result<Result<Begun, LaneEnd>, StoreError> {
    let reading = match ctx.readings.get(key.batch).await? {
        Some(reading) if reading.is_running(task.number) || reading.is_settling(task.number) => reading,
        Some(reading) if reading.row.task_number < task.number => {
            // The reading is older than the token: look again.
            ctx.readings.forget(key.batch);
            match ctx.readings.get(key.batch).await? {
                Some(reading) if reading.is_running(task.number) || reading.is_settling(task.number) => reading,
                // A dispatch is stored before its tokens are sent: this one belongs to a time that a restore took back.
                _ => return Ok(Err(LaneEnd::OutOfDate)),
            }
        }
        _ => return Ok(Err(LaneEnd::OutOfDate)),
    };
    if waits_for_hours(ctx, key, task, &reading).await? {
        return Ok(Err(LaneEnd::Later(LOOK_AT_HOURS)));
    }
    let Some(manifest) = ctx.stores.manifests.get(key).await? else {
        return Err(StoreError::Corrupt(format!("lane {} has no manifest", key.lane)));
    };
    let worker = ctx.worker;
    let mut left = None;
    let claim = |current: &Versioned<Ledger>| {
        // What a former owner left open when it died tells how long the lane stood.
        let foreign = current.row.open.iter().filter(|open| open.declarer != worker);
        left = foreign.map(|open| open.declared_at).max();
        let mut row = current.row.claim(worker, task.number)?;
        if mutation::is_on(Bug::CursorFromToken) {
            row.legs.iter_mut().for_each(|leg| leg.declared = 0);
        }
        Ok(row)
    };
    let claimed = change(&*ctx.stores.ledgers, key, &*ctx.world.chance, claim).await?;
    if let (Ok(_), Some(left)) = (&claimed, left) {
        metrics::observe(&metrics::DELIVER_TAKE_OVER, &[], ctx.world.clock.now().since(left));
    }
    match claimed {
        Ok(held) => Ok(Ok((held, Loader::new(key, manifest, &ctx.stores), reading))),
        Err(LedgerRefusal::Closed) => Ok(Err(LaneEnd::Done)),
        Err(_) => Ok(Err(LaneEnd::OutOfDate)),
    }
}

/// Whether nothing of a lane may be sent at this hour, and nothing is left to settle. It is not claimed for a look at the clock:
/// thousands of lanes may wait for the morning.
async fn waits_for_hours(ctx: &Delivery, key: LaneKey, task: TaskCode, reading: &Reading) -> Result<bool, StoreError> {
    let (batch, now) = (&reading.row.batch, ctx.world.clock.now());
    if !reading.is_running(task.number) || is_too_late(batch, now) || within_hours(&*ctx.world.clock, batch, now) {
        return Ok(false);
    }
    let ledger = load_row(&*ctx.stores.ledgers, key, &*ctx.world.chance).await?;
    Ok(ledger.is_some_and(|Versioned { row, .. }| row.open.is_empty() && !row.is_done() && row.task_number <= task.number))
}

/// What a lane does next.
enum Step {
    /// Wait for a turn and declare up to this many, through this account alone if it is named.
    Declare(Reading, u32, Option<String>),
    /// Declare up to this many as expired.
    Expire(Reading, u32),
    /// Wait for windows to end, or until this long has passed.
    Wait(Duration),
    /// Stop handing over; when all windows have ended, leave.
    Leave(LaneEnd),
}

impl Lane {
    async fn work(
        &mut self,
        seat: &Seat,
        ends: &mut mpsc::UnboundedReceiver<(u64, Result<Ended, StoreError>)>,
        stop: &CancellationToken,
    ) -> Result<LaneEnd, StoreError> {
        let mut pending: Vec<Ended> = Vec::new();
        loop {
            while let Ok((window, end)) = ends.try_recv() {
                self.mine.remove(&window);
                pending.push(end?);
            }
            pending.extend(self.judge_foreign().await?);
            if !pending.is_empty() && !self.close(std::mem::take(&mut pending)).await? {
                return Ok(LaneEnd::Lost);
            }
            match self.next_step(stop).await {
                Step::Leave(end) => {
                    self.halt.cancel();
                    if self.mine.is_empty() {
                        return Ok(end);
                    }
                    self.wait_for_end(ends, &mut pending, Duration::from_millis(200)).await?;
                }
                Step::Wait(most) => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        waited = self.wait_for_end(ends, &mut pending, most) => waited?,
                    }
                }
                Step::Expire(reading, most) => {
                    let Some(turn) = self.ctx.turns.to_expire(&reading.row.batch.provider_type, most) else {
                        self.wait_for_end(ends, &mut pending, Duration::from_millis(200)).await?;
                        continue;
                    };
                    if !self.declare(reading, turn).await? {
                        return Ok(LaneEnd::Lost);
                    }
                }
                Step::Declare(reading, most, only) => {
                    if !self.ctx.turns.is_open(&reading.row.batch.provider_type, only.as_deref()) {
                        // It waits for an account, and does not stand still by itself.
                        self.lock_view().moved = Some(self.ctx.world.clock.boot());
                    }
                    let turn = tokio::select! {
                        biased;
                        () = stop.cancelled() => None,
                        Some((window, end)) = ends.recv() => {
                            self.mine.remove(&window);
                            pending.push(end?);
                            None
                        }
                        turn = seat.turn(most, only.as_deref()) => Some(turn),
                        () = tokio::time::sleep(crate::model::limits::BATCH_READING_EVERY) => None,
                    };
                    if let Some(turn) = turn
                        && !self.declare(reading, turn).await?
                    {
                        return Ok(LaneEnd::Lost);
                    }
                }
            }
        }
    }

    async fn wait_for_end(
        &mut self,
        ends: &mut mpsc::UnboundedReceiver<(u64, Result<Ended, StoreError>)>,
        pending: &mut Vec<Ended>,
        most: Duration,
    ) -> Result<(), StoreError> {
        if let Ok(Some((window, end))) = tokio::time::timeout(most, ends.recv()).await {
            self.mine.remove(&window);
            pending.push(end?);
        }
        Ok(())
    }

    async fn next_step(&self, stop: &CancellationToken) -> Step {
        if stop.is_cancelled() {
            return Step::Leave(LaneEnd::Stopped);
        }
        let ledger = &self.held.row;
        if ledger.is_done() {
            return Step::Leave(LaneEnd::Done);
        }
        let reading = match self.ctx.readings.get(self.key.batch).await {
            Ok(Some(reading)) => reading,
            Ok(None) => return Step::Leave(LaneEnd::OutOfDate),
            // The store does not answer: nothing is declared on an old reading.
            Err(_) => return Step::Wait(Duration::from_millis(100)),
        };
        let settling = reading.is_settling(self.task.number);
        if !settling && !reading.is_running(self.task.number) || ledger.task_number != self.task.number {
            return Step::Leave(LaneEnd::OutOfDate);
        }
        if settling && !ledger.closed {
            // The fence is on its way.
            return Step::Wait(Duration::from_millis(200));
        }
        if ledger.closed {
            // Only open windows are left to settle.
            return if self.mine.is_empty() { self.wait_or_leave() } else { Step::Wait(Duration::from_millis(200)) };
        }
        // Also those that an earlier serving of this worker left open: the ledger counts them too.
        if ledger.open.iter().filter(|open| open.declarer == self.ctx.worker).count() >= LANE_WINDOWS_MAX {
            return Step::Wait(Duration::from_millis(200));
        }
        let now = self.ctx.world.clock.now();
        if is_too_late(&reading.row.batch, now)
            && let Ok(leg) = ledger.next_leg(now)
        {
            // For that no account need be up, nor any hours allow it.
            return Step::Expire(reading.clone(), leg.len - leg.declared);
        }
        if !within_hours(&*self.ctx.world.clock, &reading.row.batch, now) {
            return if self.mine.is_empty() {
                Step::Leave(LaneEnd::Later(LOOK_AT_HOURS))
            } else {
                Step::Wait(Duration::from_millis(200))
            };
        }
        let (turns, provider_type) = (&self.ctx.turns, &reading.row.batch.provider_type);
        let only = |leg: &Leg| turns.only(provider_type, leg).map(str::to_owned);
        let may_go = |leg: &Leg| turns.only(provider_type, leg).is_none_or(|only| turns.is_open(provider_type, Some(only)));
        // Rests of messages wait for the account that took the other parts, and hold nobody else up; when they are all there is,
        // the lane waits with them.
        match ledger.next_leg_of(now, may_go).or_else(|_| ledger.next_leg(now)) {
            Ok(leg) => Step::Declare(reading.clone(), leg.len - leg.declared, only(leg)),
            Err(_) if self.mine.is_empty() => self.wait_or_leave(),
            Err(_) => Step::Wait(self.until_due().min(Duration::from_millis(200))),
        }
    }

    /// Nothing is open here and nothing can be declared now: waits when it is for a moment, else leaves the lane.
    fn wait_or_leave(&self) -> Step {
        let wait = self.until_due().min(self.until_ripe());
        if wait <= Duration::from_millis(300) {
            return Step::Wait(wait.max(Duration::from_millis(1)));
        }
        Step::Leave(LaneEnd::Later(wait))
    }

    fn until_due(&self) -> Duration {
        let now = self.ctx.world.clock.now();
        let due = if self.held.row.closed { None } else { self.held.row.next_due() };
        due.map_or(Duration::from_secs(3600), |due| due.since(now))
    }

    /// How long until a foreign window should be looked at again: soon, as its declarer may still complete it.
    fn until_ripe(&self) -> Duration {
        let foreign = self.held.row.open.iter().any(|open| !self.mine.contains(&open.window));
        if foreign { Duration::from_secs(1) } else { Duration::from_secs(3600) }
    }

    async fn judge_foreign(&mut self) -> Result<Vec<Ended>, StoreError> {
        let now = self.ctx.world.clock.boot();
        let mut ended = Vec::new();
        for window in self.held.row.open.clone() {
            if self.mine.contains(&window.window) {
                continue;
            }
            let seen = *self.lock_view().seen.entry(window.window).or_insert(now);
            let ripe = now.saturating_sub(seen) >= ripe_after(&self.ctx, &window);
            if let Some(end) = judge(&self.ctx, self.key, &window, &mut self.loader, ripe).await? {
                self.lock_view().seen.remove(&window.window);
                ended.push(end);
            }
        }
        Ok(ended)
    }

    /// Closes windows by one change of the ledger. False when the lane is somebody else's now.
    async fn close(&mut self, ended: Vec<Ended>) -> Result<bool, StoreError> {
        let plan: Plan = ending::plan(&self.ctx, self.key, &self.held.row, &mut self.loader, ended, self.resend).await?;
        if plan.is_empty() {
            return Ok(true);
        }
        let worker = self.ctx.worker;
        Ok(self.change(|current| ending::apply(&current.row, worker, &plan)).await? == Changed::Done)
    }

    /// Changes the ledger from the row that is held.
    pub(super) async fn change(
        &mut self,
        mut decide: impl FnMut(&Versioned<Ledger>) -> Result<Ledger, LedgerRefusal> + Send,
    ) -> Result<Changed, StoreError> {
        let (ledgers, chance) = (self.ctx.stores.ledgers.clone(), self.ctx.world.chance.clone());
        let held = Some(self.held.clone());
        let changing =
            change_from(&*ledgers, self.key, &*chance, held, |current| decide(current).map_err(|_| Box::new(current.clone())));
        self.took(changing.await)
    }

    /// Holds the row as it is after a change.
    pub(super) fn took(&mut self, changing: Changing) -> Result<Changed, StoreError> {
        match changing {
            Ok(Ok(held)) => {
                self.held = held;
                self.show();
                Ok(Changed::Done)
            }
            // A fence went up, and the lane is still this worker's: its windows are closed as ever.
            Ok(Err(current)) if current.row.owner == self.ctx.worker => {
                self.ctx.readings.forget(self.key.batch);
                self.held = *current;
                self.show();
                Ok(Changed::Refused)
            }
            Ok(Err(_)) | Err(StoreError::Unknown(_)) => {
                self.ctx.readings.forget(self.key.batch);
                Ok(Changed::Lost)
            }
            Err(error) => Err(error),
        }
    }

    /// False when the lane is somebody else's now.
    async fn declare(&mut self, reading: Reading, turn: Turn) -> Result<bool, StoreError> {
        match super::declare::declare(self, reading, turn).await? {
            Declared::Window(name) => {
                self.mine.insert(name);
                Ok(true)
            }
            Declared::Nothing | Declared::Refused => Ok(true),
            Declared::Lost => Ok(false),
        }
    }

    fn lock_view(&self) -> std::sync::MutexGuard<'_, LaneView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let mut view = self.lock_view();
        view.ledger = Some(self.held.row.clone());
        view.moved = Some(self.ctx.world.clock.boot());
    }
}
