//! A declare and its window, in one task. A lane that is given up in the middle of its declare (a partition is taken away and the
//! store is slow, or the answer is lost and somebody else changed the row meanwhile) leaves nobody behind as handed over for all
//! anybody knows: the task finds out what became of the declare, and a window that nobody runs is completed with "not sent".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::context::Delivery;
use super::declare::Prepared;
use super::followed::Followed;
use super::readings::Reading;
use super::turns::Turn;
use super::window::{self, Ended, Job, forever};
use crate::model::id::{LaneKey, WindowKey};
use crate::model::ledger::{Ledger, OpenWindow};
use crate::model::pack::PackKey;
use crate::model::trace::TraceParent;
use crate::model::window::RetryEntry;
use crate::ports::StoreError;
use crate::ports::control::Versioned;
use crate::ports::provider::Route;
use crate::runtime::control::change_from;
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::store;

/// What became of a change of a ledger: the row behind it, or the row that did not allow it.
pub(super) type Changing = Result<Result<Versioned<Ledger>, Box<Versioned<Ledger>>>, StoreError>;

/// What the lane is told as soon as it is known.
pub(super) struct Told {
    /// What became of the declare.
    pub changing: Changing,
    /// It was not tried: the reading was too old by then.
    pub stale: bool,
}

/// A window that is about to be declared, with all that running it needs.
pub(super) struct Declaring {
    pub ctx: Arc<Delivery>,
    pub route: Route,
    pub lane: LaneKey,
    /// The dispatch.
    pub number: u64,
    pub reading: Reading,
    /// It is given back when no window takes it.
    pub turn: Turn,
    /// As it will be declared; its name follows from the row's version.
    pub window: OpenWindow,
    pub entries: Vec<RetryEntry>,
    pub prepared: Prepared,
    /// When declaring it began, on the boot clock.
    pub declared: Duration,
    /// On the boot clock: nothing is handed over later.
    pub send_by: Duration,
    pub trace: Option<TraceParent>,
    pub packs: BTreeMap<u32, PackKey>,
    /// Cancelled when the lane hands nothing over any more.
    pub halt: CancellationToken,
    pub ended: mpsc::UnboundedSender<(u64, Result<Ended, StoreError>)>,
}

impl Declaring {
    /// Begins, from the row that the lane holds; what became of the declare is heard from what is given back.
    pub fn begin(self, held: Versioned<Ledger>) -> oneshot::Receiver<Told> {
        let (told, heard) = oneshot::channel();
        let (tasks, open) = (self.ctx.tasks.clone(), self.ctx.windows.token());
        tasks.spawn("window", async move {
            let _open = open;
            self.run(held, told).await;
        });
        heard
    }

    async fn run(mut self, held: Versioned<Ledger>, told: oneshot::Sender<Told>) {
        let mut stale = false;
        let changing = self.change(held, &mut stale).await;
        let is_unknown = matches!(changing, Err(StoreError::Unknown(_)));
        match &changing {
            Ok(Ok(held)) => self.window.window = held.version,
            // Nobody waits for it: whoever stands declared by it is not handed over.
            Err(StoreError::Unknown(_)) => {
                self.halt = CancellationToken::new();
                self.halt.cancel();
            }
            _ => {
                drop(self.turn);
                let _ = told.send(Told { changing, stale });
                return;
            }
        }
        // Who does not hear it any more has cancelled `halt`.
        let is_heard = told.send(Told { changing, stale }).is_ok();
        if mutation::is_on(Bug::LeaveDeclared) && (is_unknown || !is_heard) || is_unknown && !self.is_open().await {
            return;
        }
        let Declaring { ctx, route, lane, window, entries, prepared, declared, send_by, .. } = self;
        self.turn.taken(window.len());
        let key = WindowKey { lane, window: window.window };
        let followed =
            Followed::begin(key, &window, &entries, self.packs, self.trace, ctx.world.clock.boot().saturating_sub(declared));
        metrics::count(&metrics::DELIVER_WINDOWS, &["declared"], 1);
        let job = Job {
            key,
            followed,
            window,
            entries,
            submits: prepared.submits,
            local: prepared.local,
            declared,
            send_by,
            hours: self.reading.row.batch.hours.clone(),
            stop: self.halt,
        };
        let lines = job.followed.lines();
        let end = window::run(ctx, route, job).instrument(lines).await;
        // Nobody listens when the lane was given up: the answers are durable all the same.
        let _ = self.ended.send((key.window, end));
    }

    /// The declare itself. Loading may have taken long: the promise of a pause rests on the reading's age at this moment.
    async fn change(&mut self, held: Versioned<Ledger>, stale: &mut bool) -> Changing {
        let Declaring { ctx, lane, number, reading, window, .. } = self;
        let clock = ctx.world.clock.clone();
        change_from(&*ctx.stores.ledgers, *lane, &*ctx.world.chance, Some(held), |current| {
            *stale = !reading.is_fresh(&*clock);
            window.window = current.version + 1;
            let declared = (!*stale).then(|| current.row.declare(window.clone(), *number, clock.now()).ok());
            declared.flatten().ok_or_else(|| Box::new(current.clone()))
        })
        .await
    }

    /// Whether the window stands in the ledger although nobody answered its declare.
    async fn is_open(&self) -> bool {
        let read = store(forever(&self.ctx), || self.ctx.stores.ledgers.load(self.lane)).await;
        read.ok().flatten().is_some_and(|ledger| {
            ledger.row.open.iter().any(|open| open.window == self.window.window && open.declarer == self.window.declarer)
        })
    }
}
