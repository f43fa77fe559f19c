//! What the preparation works with: its ports, and the few numbers that can be set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::model::account::Capabilities;
use crate::model::batch::BatchRow;
use crate::model::id::{TaskCode, WorkerId};
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::ports::batches::{BatchRows, Ledgers, RangeRows};
use crate::ports::links::Links;
use crate::ports::packs::{Manifests, Packs, Rejects};
use crate::ports::source::Source;
use crate::ports::suppressions::Suppressions;
use crate::ports::tallies::Tallies;
use crate::ports::{StoreError, Stores, World};
use crate::runtime::retry::{self, Schedule};

/// What the account can do that would send a provider type's messages today; `None` for an unknown type.
pub type Accounts = Arc<dyn Fn(&str) -> Option<Capabilities> + Send + Sync>;

/// Numbers of the preparation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tasks carried out at once.
    pub tasks: usize,
    /// A range whose holder showed no sign of life for this long may be claimed by another.
    pub dead_after: Duration,
}

/// Tasks at once unless somebody says otherwise: each holds some tens of megabytes of texts, and a container without a limit of its
/// own counts all cores of its machine.
const TASKS_USUALLY: usize = 8;

impl Default for Settings {
    fn default() -> Settings {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Settings { tasks: cores.min(TASKS_USUALLY), dead_after: Duration::from_secs(10) }
    }
}

/// How often a running range shows a sign of life.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How often a running task looks whether it is still wanted.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The ports of preparation, and who uses them.
#[derive(Clone)]
pub struct Tools {
    /// Batch rows.
    pub batches: Arc<dyn BatchRows>,
    /// Range rows.
    pub ranges: Arc<dyn RangeRows>,
    /// Lane ledgers.
    pub ledgers: Arc<dyn Ledgers>,
    /// Packs.
    pub packs: Arc<dyn Packs>,
    /// Records that never became a message.
    pub rejects: Arc<dyn Rejects>,
    /// Manifests.
    pub manifests: Arc<dyn Manifests>,
    /// Numbers that get nothing.
    pub suppressions: Arc<dyn Suppressions>,
    /// Numbers for short links.
    pub links: Arc<dyn Links>,
    /// Live counters.
    pub tallies: Arc<dyn Tallies>,
    /// Where records come from.
    pub source: Arc<dyn Source>,
    /// Time and chance.
    pub world: World,
    /// Accounts.
    pub accounts: Accounts,
    /// This worker.
    pub worker: WorkerId,
    /// Numbers.
    pub settings: Settings,
}

impl Tools {
    /// The preparation's share of the store's ports, and the rest.
    pub fn new(
        stores: &Stores,
        world: World,
        source: Arc<dyn Source>,
        accounts: Accounts,
        tallies: Arc<dyn Tallies>,
        worker: WorkerId,
        settings: Settings,
    ) -> Tools {
        Tools {
            batches: Arc::clone(&stores.batches),
            ranges: Arc::clone(&stores.ranges),
            ledgers: Arc::clone(&stores.ledgers),
            packs: Arc::clone(&stores.packs),
            rejects: Arc::clone(&stores.rejects),
            manifests: Arc::clone(&stores.manifests),
            suppressions: Arc::clone(&stores.suppressions),
            links: Arc::clone(&stores.links),
            tallies,
            source,
            world,
            accounts,
            worker,
            settings,
        }
    }

    /// Calls a data row's port until it answers, however long that takes; a full disk is said once. Dropping the future
    /// gives up. Only [`StoreError::Corrupt`] comes out.
    pub async fn patiently<T, F, Fut>(&self, what: &'static str, call: F) -> Result<T, StoreError>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, StoreError>> + Send,
        T: Send,
    {
        let stalled = AtomicBool::new(false);
        let schedule = Schedule::new(Duration::from_millis(50), Duration::from_secs(5), self.world.chance.next());
        let answer = retry::store(schedule, || async {
            let answer = call().await;
            if let Err(error) = &answer
                && !stalled.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(code = %error.code(), %error, what, "preparation waits for the store");
            }
            answer
        });
        let answer = answer.await;
        if answer.is_ok() && stalled.load(Ordering::Relaxed) {
            tracing::info!(what, "preparation goes on");
        }
        answer
    }
}

/// Whether a task of this dispatch is still to be carried out.
pub fn is_wanted(row: &BatchRow, task_code: TaskCode) -> bool {
    row.current_step == CurrentStep::Preparation
        && row.preparation.state == StepState::Running
        && row.task_number == task_code.number
}

/// How a task ended. The token of any but `Stopped` may be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is done, by this worker or before.
    Done,
    /// The batch does not want it any more.
    OutOfDate,
    /// Another worker has it and lives.
    Held,
    /// The range cannot be read; its row says why.
    Failed,
    /// This worker was told to stop.
    Stopped,
}
