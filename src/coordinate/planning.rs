//! Planning: splits the source of a batch into ranges and stores the plan once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::model::batch::{BatchRow, SmsBatch};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, RangeKey};
use crate::model::lane::lanes_for;
use crate::model::record::{RangeRow, SourcePlan};
use crate::model::state::{Refusal, StepEvent, StepState};
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::control::{Cas, Versioned};
use crate::ports::source::{Source, SourceSpec};
use crate::ports::{StoreError, Stores, World};
use crate::runtime::control::{change, create, load_row};
use crate::runtime::job::{Job, Unreadable};
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::Schedule;
use crate::runtime::task::Tasks;
use crate::runtime::trace::{self, Piece, Span};

/// Before a list that could not be looked at is looked at again.
const PLAN_AGAIN_FIRST: Duration = Duration::from_millis(500);
/// Between two looks at most.
const PLAN_AGAIN_MOST: Duration = Duration::from_secs(15);
/// Then the batch fails with what was wrong.
const PLAN_AGAIN_TIMES: u32 = 6;

/// Lists looked at at once. Each holds some pieces of its list in memory, and the first minute of a day may ask for many.
const LOOKS_AT_ONCE: usize = 4;

/// Checks a batch against the columns of its source, before anything is prepared.
pub type Check = Arc<dyn Fn(&SmsBatch, &[String]) -> Result<(), Fault> + Send + Sync>;

/// The job that plans. A large source takes seconds to look at, so each plan is a task of its own, which ends with the term, and
/// with the batch's wish to be planned. Few look at once: the rest stays READY, and the most urgent is next.
pub struct Planning {
    stores: Stores,
    world: World,
    source: Arc<dyn Source>,
    check: Check,
    range_records: u32,
    looks: Arc<Semaphore>,
    /// The plans of this term.
    plans: Mutex<BTreeMap<BatchId, AbortHandle>>,
    unreadable: Unreadable,
    /// Their owner, so that they end with the process too.
    tasks: Tasks,
}

impl Planning {
    /// Plans batches of `source` into ranges of about `range_records`.
    pub fn new(
        stores: Stores,
        world: World,
        source: Arc<dyn Source>,
        check: Check,
        range_records: u32,
        tasks: Tasks,
    ) -> Planning {
        Planning {
            stores,
            world,
            source,
            check,
            range_records,
            looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            plans: Mutex::default(),
            unreadable: Unreadable::default(),
            tasks,
        }
    }

    fn begin(&self, batch: BatchId, row: BatchRow, look: Option<OwnedSemaphorePermit>) {
        let (stores, world, source, check) = (self.stores.clone(), self.world.clone(), self.source.clone(), self.check.clone());
        let (range_records, looks) = (self.range_records, Turn { looks: self.looks.clone(), mine: look });
        let planning = self.tasks.spawn("plan", async move {
            let work = plan(&stores, &world, &*source, &check, range_records, row, looks);
            let planned = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(planned) => planned,
                // A list or a template that makes a library panic must end its batch with a code, and not wait for ever.
                Err(_) => {
                    tracing::error!(%batch, code = %Code::Internal, "planning panicked");
                    let fault = Fault::new(Code::Internal, "planning the batch failed inside");
                    let mut span = Span::begin(Piece::Plan(batch), trace::place(Piece::Create(batch)));
                    fail(&stores, &world, batch, fault, &mut span).await
                }
            };
            if let Err(error) = planned {
                tracing::warn!(%batch, code = %error.code(), "a plan could not be stored; it is made again");
            }
        });
        self.plans().insert(batch, planning.abort_handle());
    }

    fn plans(&self) -> MutexGuard<'_, BTreeMap<BatchId, AbortHandle>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Job for Planning {
    fn name(&self) -> &'static str {
        "planning"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        self.plans().retain(|_, plan| !plan.is_finished());
        let mut ready = BTreeMap::new();
        for batch in self.stores.batch_index.active().await? {
            let Some(row) = self.unreadable.row(self.name(), &self.stores, batch).await? else { continue };
            if row.current_step == CurrentStep::Preparation && row.preparation.state == StepState::Ready {
                ready.insert(batch, row);
            }
        }
        // The list of a batch that was paused or canceled meanwhile is not looked at to its end.
        self.plans().retain(|batch, plan| {
            let wanted = ready.remove(batch).is_some();
            if !wanted {
                plan.abort();
            }
            wanted
        });
        let mut ready: Vec<(BatchId, BatchRow)> = ready.into_iter().collect();
        ready.sort_by_key(|(batch, row)| (Reverse(row.batch.priority), row.created, *batch));
        for (batch, row) in ready {
            // What was planned before is only started again: nothing is looked at.
            let look = match self.looks.clone().try_acquire_owned() {
                Ok(look) => Some(look),
                Err(_) if row.fingerprint.is_some() => None,
                Err(_) => continue,
            };
            self.begin(batch, row, look);
        }
        Ok(false)
    }

    fn end_term(&self) {
        for (_, plan) in std::mem::take(&mut *self.plans()) {
            plan.abort();
        }
    }
}

/// Turns to look at a list, and the one that is had.
struct Turn {
    looks: Arc<Semaphore>,
    mine: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Lets others look for so long, and waits for the next turn.
    async fn pass(&mut self, delay: Duration) {
        self.mine = None;
        tokio::time::sleep(delay).await;
        // Nobody closes it.
        self.mine = self.looks.clone().acquire_owned().await.ok();
    }
}

/// Plans one batch, or only starts it again when it was planned before.
async fn plan(
    stores: &Stores,
    world: &World,
    source: &dyn Source,
    check: &Check,
    range_records: u32,
    row: BatchRow,
    mut turn: Turn,
) -> Result<(), StoreError> {
    let (batch, now) = (row.batch.batch_id, world.clock.now());
    if row.fingerprint.is_some() && !mutation::is_on(Bug::PlanAgain) {
        let start = |row: &Versioned<BatchRow>| row.row.after_preparing(StepEvent::Start, None, now);
        let started = change(&*stores.batches, batch, &*world.chance, start).await?;
        log_refusal(batch, started.map(|_| ()));
        return Ok(());
    }
    let spec =
        SourceSpec { table_name: row.batch.table_name.clone(), dialect: row.batch.dialect.clone(), ..SourceSpec::default() };
    let mut span = Span::begin(Piece::Plan(batch), trace::place(Piece::Create(batch)));
    let mut schedule: Option<Schedule> = None;
    let found = loop {
        match source.plan(&spec, range_records).await {
            Err(fault) if fault.code.retryable() => {
                let schedule = schedule.get_or_insert_with(|| {
                    Schedule::new(PLAN_AGAIN_FIRST, PLAN_AGAIN_MOST, world.chance.next()).up_to(PLAN_AGAIN_TIMES)
                });
                let Some(delay) = schedule.next_delay() else { break Err(fault) };
                tracing::warn!(%batch, %fault, "the list cannot be looked at now; it is tried again");
                turn.pass(delay).await;
                // A batch that was paused or canceled meanwhile is not planned.
                if stores.batches.load(batch).await?.is_none_or(|now| now.row.preparation.state != StepState::Ready) {
                    return Ok(());
                }
            }
            found => break found,
        }
    };
    drop(turn);
    let planned = match found {
        Ok(plan) => check(&row.batch, &plan.columns).map(|()| plan),
        Err(fault) => Err(fault),
    };
    let planned = match planned {
        Ok(plan) => plan,
        Err(fault) => return fail(stores, world, batch, fault, &mut span).await,
    };
    span.note("records", planned.records);
    span.note("ranges", planned.ranges.len());
    for (range, plan) in planned.ranges.iter().enumerate() {
        let key = RangeKey { batch, range: range as u32 };
        if create(&*stores.ranges, key, &*world.chance, &RangeRow::planned(plan.clone())).await? == Cas::Applied {
            continue;
        }
        if mutation::is_on(Bug::PlanAgain) {
            let _ = change(&*stores.ranges, key, &*world.chance, |_| Ok::<_, Refusal>(RangeRow::planned(plan.clone()))).await?;
            continue;
        }
        // Another leader looked at the list before: what it saw of it, and what was seen now, are one plan or none.
        let stored = load_row(&*stores.ranges, key, &*world.chance).await?;
        if stored.is_some_and(|stored| stored.row.plan != *plan) {
            let fault = Fault::new(Code::SourceChanged, "the list changed while it was planned");
            return fail(stores, world, batch, fault, &mut span).await;
        }
    }
    let started = change(&*stores.batches, batch, &*world.chance, |row| start(&row.row, &planned, now)).await?;
    log_refusal(batch, started.map(|_| ()));
    Ok(())
}

/// Ends a batch that cannot be planned, unless another leader has planned it meanwhile.
async fn fail(stores: &Stores, world: &World, batch: BatchId, fault: Fault, span: &mut Span) -> Result<(), StoreError> {
    span.failed(fault.code);
    span.lines().in_scope(|| tracing::warn!(%batch, code = %fault.code, "the batch cannot be prepared; its reason says why"));
    let (reason, now) = (Some((fault.code, fault.context)), world.clock.now());
    let failed = change(&*stores.batches, batch, &*world.chance, |row| match row.row.fingerprint {
        Some(_) => Err(Refusal::Already),
        None => row.row.after_preparing(StepEvent::Fail, reason.clone(), now),
    });
    log_refusal(batch, failed.await?.map(|_| ()));
    Ok(())
}

/// The row after its first dispatch, with what the plan found. A second leader's plan loses to the first, and starts nothing when
/// what the first planned is prepared by now and waits for its time.
fn start(row: &BatchRow, plan: &SourcePlan, now: Timestamp) -> Result<BatchRow, Refusal> {
    let mut next = row.after_preparing(StepEvent::Start, None, now)?;
    if row.fingerprint.is_none() || mutation::is_on(Bug::PlanAgain) {
        next.fingerprint = Some(plan.fingerprint.clone());
        next.columns = plan.columns.clone();
        next.dialect = plan.dialect.clone();
        next.records = plan.records;
        next.ranges = plan.ranges.len() as u32;
        next.lanes = lanes_for(plan.records, row.batch.min_recipients_per_lane);
    }
    Ok(next)
}

fn log_refusal(batch: BatchId, changed: Result<(), Refusal>) {
    if let Err(refusal) = changed {
        tracing::info!(%batch, %refusal, "the batch changed while it was planned");
    }
}
