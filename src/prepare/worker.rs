//! The preparer: takes tasks from the queue, carries out a few at once, and commits what has ended.
//!
//! One loop owns the queue and everything that is known of the tasks; the tasks themselves run beside it. Nothing here
//! decides what is true: a task that comes twice, too late or not at all harms nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::task::{AbortHandle, JoinError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::range::{fail_range, prepare_range};
use super::seal::{fail_seal, seal_lanes};
use super::tools::{End, Tools};
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, RangeKey};
use crate::model::task::PrepareTask;
use crate::model::trace::TraceParent;
use crate::ports::StoreError;
use crate::ports::queue::{PrepareQueue, QueueError, QueueEvent};
use crate::runtime::offsets::Offsets;
use crate::runtime::pulse::{self, Turns};
use crate::runtime::retry::Schedule;
use crate::runtime::task::spawn;

/// Work on revoked partitions has stopped within this time.
const RELEASE_WITHIN: Duration = Duration::from_millis(900);
/// How long a stop waits for running tasks to give their ranges back.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// A commit that takes longer is given up: the tokens come again and are ended again.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);
/// Whoever waits for tasks turns this often: one that does not has locked itself up (`runtime::pulse`).
const TURN: Duration = Duration::from_secs(10);

/// The partitions of the preparation topic that a preparer has, for people who watch.
#[derive(Clone, Default)]
pub struct Partitions(Arc<Mutex<BTreeSet<u8>>>);

impl Partitions {
    /// Those it has now.
    pub fn now(&self) -> BTreeSet<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<u8>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Runs a preparer until `stop` is cancelled, or the queue is closed; then gives its ranges back and leaves the queue.
/// Its partitions are shown in `partitions`.
pub async fn run(tools: Arc<Tools>, queue: Arc<PrepareQueue>, partitions: Partitions, stop: CancellationToken) {
    let mut worker = Worker::new(tools, queue, partitions);
    pulse::watch("preparer", Turns::Always, worker.work(&stop)).await;
    worker.drain().await;
}

async fn overdue(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// The queue's next event, after a wait when it failed the last time. Cancel safe, as the queue is.
async fn next_event(queue: &PrepareQueue, again_at: Option<Instant>) -> Result<QueueEvent<PrepareTask>, QueueError> {
    if let Some(at) = again_at {
        tokio::time::sleep_until(at).await;
    }
    queue.recv().await
}

/// Places of a token in the queue: the same task may have come more than once.
type Tokens = Vec<(u8, u64)>;
type Ended = (u64, Result<Result<End, StoreError>, JoinError>);

struct Running {
    task: PrepareTask,
    tokens: Tokens,
    stop: CancellationToken,
    abort: AbortHandle,
}

impl Drop for Running {
    /// A task never outlives the loop that started it.
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Partitions that were taken away while tasks of theirs still ran.
struct Revoked {
    partitions: Vec<u8>,
    tasks: BTreeSet<u64>,
    until: Instant,
}

struct Worker {
    tools: Arc<Tools>,
    queue: Arc<PrepareQueue>,
    /// With the place in a trace that its first token came from.
    waiting: VecDeque<(PrepareTask, Tokens, Option<TraceParent>)>,
    tasks: BTreeMap<u64, Running>,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    last_id: u64,
    offsets: BTreeMap<u8, Offsets>,
    revoked: Vec<Revoked>,
    partitions: Partitions,
    queue_waits: Schedule,
    queue_again_at: Option<Instant>,
}

impl Worker {
    fn new(tools: Arc<Tools>, queue: Arc<PrepareQueue>, partitions: Partitions) -> Worker {
        let queue_waits = Schedule::new(Duration::from_millis(100), Duration::from_secs(5), tools.world.chance.next());
        Worker {
            tools,
            queue,
            waiting: VecDeque::new(),
            tasks: BTreeMap::new(),
            running: FuturesUnordered::new(),
            last_id: 0,
            offsets: BTreeMap::new(),
            revoked: vec![],
            partitions,
            queue_waits,
            queue_again_at: None,
        }
    }

    /// Works until it is told to stop, or the queue is closed.
    async fn work(&mut self, stop: &CancellationToken) {
        loop {
            self.start_waiting();
            self.commit().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((id, ended)) = self.running.next(), if !self.running.is_empty() => self.ended(id, ended).await,
                () = overdue(self.revoked.first().map(|revoked| revoked.until)) => self.abort_overdue().await,
                event = next_event(&*self.queue, self.queue_again_at) => match event {
                    Ok(event) => self.apply(event).await,
                    Err(QueueError::Closed) => return,
                    Err(error @ QueueError::Unavailable(_)) => self.queue_failed(&error),
                },
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    fn queue_failed(&mut self, error: &QueueError) {
        tracing::warn!(%error, "the preparation queue is waited for");
        self.queue_again_at = Some(Instant::now() + self.queue_waits.delay_for_ever());
    }

    async fn apply(&mut self, event: QueueEvent<PrepareTask>) {
        self.queue_again_at = None;
        self.queue_waits.begin_again();
        match event {
            QueueEvent::Assigned(assigned) => {
                self.offsets.retain(|partition, _| !assigned.contains(partition));
                self.partitions.change(|partitions| partitions.extend(assigned));
            }
            QueueEvent::Revoked(revoked) => {
                self.partitions.change(|partitions| partitions.retain(|partition| !revoked.contains(partition)));
                self.revoke(revoked).await;
            }
            QueueEvent::Task { partition, offset, task, trace } => {
                self.offsets.entry(partition).or_insert_with(|| Offsets::new(offset)).received(offset);
                self.take(task, (partition, offset), trace);
            }
        }
    }

    /// A task that waits or runs already is not carried out again: its tokens end together.
    fn take(&mut self, task: PrepareTask, token: (u8, u64), trace: Option<TraceParent>) {
        let waiting = self.waiting.iter_mut().find(|(waiting, ..)| *waiting == task).map(|(_, tokens, _)| tokens);
        let running = self.tasks.values_mut().find(|running| running.task == task && !running.stop.is_cancelled());
        match waiting.or(running.map(|running| &mut running.tokens)) {
            Some(tokens) => tokens.push(token),
            None => self.waiting.push_back((task, vec![token], trace)),
        }
    }

    /// Starts what waits, in order. Tasks about the same range or lanes run one after the other.
    fn start_waiting(&mut self) {
        while self.tasks.len() < self.tools.settings.tasks.max(1) {
            let free = |task: &PrepareTask| self.tasks.values().all(|running| subject(&running.task) != subject(task));
            let Some(place) = self.waiting.iter().position(|(task, ..)| free(task)) else { return };
            let Some((task, tokens, trace)) = self.waiting.remove(place) else { return };
            self.last_id += 1;
            let (id, stop) = (self.last_id, CancellationToken::new());
            let work = carry_out(Arc::clone(&self.tools), task.clone(), trace, stop.clone());
            let handle = spawn("prepare", pulse::watch("preparation task", Turns::WhenWoken, work));
            self.tasks.insert(id, Running { task, tokens, stop, abort: handle.abort_handle() });
            self.running.push(handle.map(move |ended| (id, ended)).boxed());
        }
    }

    async fn ended(&mut self, id: u64, ended: Result<Result<End, StoreError>, JoinError>) {
        let Some(task) = self.tasks.remove(&id) else { return };
        let is_over = match ended {
            Ok(Ok(End::Stopped)) | Err(_) => false,
            Ok(Ok(End::Done | End::OutOfDate | End::Held | End::Failed)) => true,
            Ok(Err(error)) => {
                tracing::error!(code = %error.code(), %error, batch = %task.task.task_code().batch, "a preparation task failed");
                true
            }
        };
        if is_over {
            for (partition, offset) in &task.tokens {
                if let Some(offsets) = self.offsets.get_mut(partition) {
                    offsets.ended(*offset);
                }
            }
        }
        for revoked in &mut self.revoked {
            revoked.tasks.remove(&id);
        }
        self.release_stopped().await;
    }

    /// Stops what was only there for these partitions.
    async fn revoke(&mut self, partitions: Vec<u8>) {
        let kept = |tokens: &mut Tokens| {
            tokens.retain(|(partition, _)| !partitions.contains(partition));
            !tokens.is_empty()
        };
        self.waiting.retain_mut(|(_, tokens, _)| kept(tokens));
        let mut stopping = BTreeSet::new();
        for (id, running) in &mut self.tasks {
            if !kept(&mut running.tokens) {
                running.stop.cancel();
                stopping.insert(*id);
            }
        }
        for partition in &partitions {
            self.offsets.remove(partition);
        }
        self.revoked.push(Revoked { partitions, tasks: stopping, until: Instant::now() + RELEASE_WITHIN });
        self.release_stopped().await;
    }

    async fn release_stopped(&mut self) {
        let stopped: Vec<Revoked> = self.revoked.extract_if(.., |revoked| revoked.tasks.is_empty()).collect();
        for revoked in stopped {
            self.queue.released(&revoked.partitions).await;
        }
    }

    /// What has not stopped in time is cut off: its range waits until its holder looks dead.
    async fn abort_overdue(&mut self) {
        let now = Instant::now();
        for revoked in &mut self.revoked {
            if revoked.until <= now {
                for id in std::mem::take(&mut revoked.tasks) {
                    if let Some(running) = self.tasks.get(&id) {
                        running.abort.abort();
                    }
                }
            }
        }
        self.release_stopped().await;
    }

    async fn commit(&mut self) {
        for (&partition, offsets) in &mut self.offsets {
            let Some(next) = offsets.to_commit() else { continue };
            match tokio::time::timeout(COMMIT_WITHIN, self.queue.commit(partition, next)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, partition, "a commit failed; the tokens come again"),
                Err(_) => tracing::debug!(partition, "a commit took too long; the tokens come again"),
            }
        }
    }

    /// Everything stops, what can be is committed, and the queue is left.
    async fn drain(mut self) {
        self.waiting.clear();
        for running in self.tasks.values() {
            running.stop.cancel();
        }
        let until = Instant::now() + DRAIN_WITHIN;
        while let Ok(Some((id, ended))) = tokio::time::timeout_at(until, self.running.next()).await {
            self.ended(id, ended).await;
        }
        self.commit().await;
        self.queue.leave().await;
    }
}

/// What a task is about. Two tasks about the same do not run at once.
fn subject(task: &PrepareTask) -> (BatchId, u32) {
    match task {
        PrepareTask::Range { task_code, range } => (task_code.batch, *range),
        PrepareTask::Seal { task_code, from, .. } => (task_code.batch, u32::MAX - u32::from(*from)),
    }
}

async fn carry_out(
    tools: Arc<Tools>,
    task: PrepareTask,
    trace: Option<TraceParent>,
    stop: CancellationToken,
) -> Result<End, StoreError> {
    let work = async {
        match task {
            PrepareTask::Range { task_code, range } => prepare_range(&tools, task_code, range, trace, &stop).await,
            PrepareTask::Seal { task_code, from, to } => seal_lanes(&tools, task_code, from, to, &stop).await,
        }
    };
    // A record that makes a library panic must end its batch with a code, not a worker, and not come again for ever.
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    if ended.is_err() {
        tracing::error!(code = %Code::Internal, batch = %task.task_code().batch, "a preparation task panicked");
    }
    match (ended, task) {
        (Err(_), PrepareTask::Range { task_code, range }) => {
            let fault = Fault::new(Code::Internal, "the preparation of the range failed inside");
            fail_range(&tools, RangeKey { batch: task_code.batch, range }, &fault).await?;
            Ok(End::Failed)
        }
        (Err(_), PrepareTask::Seal { task_code, .. }) => {
            fail_seal(&tools, task_code, &Fault::new(Code::Internal, "sealing a lane failed inside")).await
        }
        // The ranges are done and stay it: no task but this one meets what is damaged.
        (Ok(Err(error @ StoreError::Corrupt(_))), PrepareTask::Seal { task_code, .. }) => {
            fail_seal(&tools, task_code, &Fault::new(error.code(), error.to_string())).await
        }
        (Ok(end), _) => end,
    }
}
