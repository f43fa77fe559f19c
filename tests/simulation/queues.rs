//! The queue and the leader's lock behind a network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smsfleet::model::id::WorkerId;
use smsfleet::model::state::StepState;
use smsfleet::model::step::CurrentStep;
use smsfleet::model::task::{PrepareTask, SmsBatchPartitionTask, TaskStatus};
use smsfleet::model::trace::TraceParent;
use smsfleet::ports::clock::{Chance, Clock};
use smsfleet::ports::lease::Lease;
use smsfleet::ports::queue::{QueueError, QueueEvent, TaskQueue, TaskSender};
use smsfleet::ports::{StoreError, Stores};

use super::faults::Trouble;
use super::network::Network;

/// The way into the queue: tokens that come twice, come late, or are lost with or without an error.
pub struct TroubledSender(pub Arc<dyn TaskSender>, pub Trouble);

impl TroubledSender {
    async fn send<F, Fut>(&self, send: F) -> Result<(), QueueError>
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), QueueError>> + Send,
    {
        self.1.wait().await;
        // There are few tokens, and a run that loses some learns more than one that loses none.
        if !self.1.is_mixed(4) {
            return send().await;
        }
        let draw = self.1.chance.next();
        let late = Duration::from_millis(draw >> 8 & 0x3fff);
        match draw % 4 {
            0 => {
                self.1.fire("token twice");
                send().await?;
                tokio::time::sleep(late / 8).await;
                send().await
            }
            1 => {
                self.1.fire("token late");
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = send().await;
                });
                Ok(())
            }
            2 => {
                self.1.fire("token sent, with an error");
                send().await?;
                Err(QueueError::Unavailable("no answer".into()))
            }
            _ => {
                self.1.fire("token not sent");
                Err(QueueError::Unavailable("not now".into()))
            }
        }
    }
}

#[async_trait::async_trait]
impl TaskSender for TroubledSender {
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let inner = self.0.clone();
        self.send(move || {
            let (inner, tasks) = (inner.clone(), tasks.clone());
            async move { inner.send_delivery(tasks, trace).await }
        })
        .await
    }

    async fn send_prepare(&self, tasks: Vec<PrepareTask>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let inner = self.0.clone();
        self.send(move || {
            let (inner, tasks) = (inner.clone(), tasks.clone());
            async move { inner.send_prepare(tasks, trace).await }
        })
        .await
    }
}

/// The leader's lock behind a network: away, or taken without the taker being told.
pub struct TroubledLease(pub Arc<dyn Lease>, pub Trouble);

#[async_trait::async_trait]
impl Lease for TroubledLease {
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError> {
        self.1.wait().await;
        let answer = self.0.acquire(name, token, ttl).await;
        self.1.wait().await;
        if self.1.is_mixed(1) {
            self.1.fire("lease without an answer");
            return Err(StoreError::Unknown("no answer".into()));
        }
        answer
    }

    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError> {
        self.1.wait().await;
        self.0.release(name, token).await
    }
}

/// A member's end of a topic: away for a while, and commits that do not arrive.
pub struct TroubledQueue<T>(pub Arc<dyn TaskQueue<T>>, pub Trouble);

#[async_trait::async_trait]
impl<T: Send + Sync + 'static> TaskQueue<T> for TroubledQueue<T> {
    async fn recv(&self) -> Result<QueueEvent<T>, QueueError> {
        if self.1.is_mixed(1) && self.1.chance.next().is_multiple_of(4) {
            self.1.fire("queue away");
            return Err(QueueError::Unavailable("not now".into()));
        }
        self.0.recv().await
    }

    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError> {
        if self.1.is_mixed(2) {
            self.1.fire("commit lost");
            return Err(QueueError::Unavailable("no answer".into()));
        }
        self.0.commit(partition, next_offset).await
    }

    async fn released(&self, partitions: &[u8]) {
        self.0.released(partitions).await;
    }

    async fn leave(&self) {
        self.0.leave().await;
    }
}

/// Looks on as a deliverer takes tokens and commits them: what is committed is done or out of date, and what was taken away is let
/// go of.
pub struct WitnessedQueue {
    pub inner: Arc<dyn TaskQueue<SmsBatchPartitionTask>>,
    pub worker: WorkerId,
    pub network: Arc<Network>,
    /// Without troubles: what is true.
    pub stores: Stores,
    pub clock: Arc<dyn Clock>,
    pub taken: Mutex<BTreeMap<(u8, u64), SmsBatchPartitionTask>>,
}

impl WitnessedQueue {
    /// Tokens that are committed by this, and were not before.
    fn committed(&self, partition: u8, next_offset: u64) -> Vec<SmsBatchPartitionTask> {
        let mut taken = self.taken.lock().expect("not poisoned");
        taken.extract_if((partition, 0)..(partition, next_offset), |_, _| true).map(|(_, token)| token).collect()
    }

    /// Whether somebody has to do something for a token still, as the store says.
    async fn is_open(&self, token: &SmsBatchPartitionTask) -> Result<bool, StoreError> {
        let Some(batch) = self.stores.batches.load(token.lane().batch).await? else { return Ok(false) };
        let number = token.task_code.number;
        let runs = batch.row.current_step == CurrentStep::Delivery && batch.row.delivery.state == StepState::Running;
        if !runs || batch.row.task_number != number {
            return Ok(false);
        }
        let Some(ledger) = self.stores.ledgers.load(token.lane()).await? else { return Ok(true) };
        Ok(token.judge(&ledger.row) == TaskStatus::Queued)
    }
}

#[async_trait::async_trait]
impl TaskQueue<SmsBatchPartitionTask> for WitnessedQueue {
    async fn recv(&self) -> Result<QueueEvent<SmsBatchPartitionTask>, QueueError> {
        let event = self.inner.recv().await?;
        let now = self.clock.now();
        match &event {
            QueueEvent::Assigned(partitions) => {
                self.taken.lock().expect("not poisoned").retain(|(partition, _), _| !partitions.contains(partition));
                self.network.known().given(self.worker, partitions, now);
            }
            QueueEvent::Revoked(partitions) => self.network.known().taken_away(self.worker, partitions, now),
            QueueEvent::Task { partition, offset, task, .. } => {
                self.taken.lock().expect("not poisoned").insert((*partition, *offset), *task);
            }
        }
        Ok(event)
    }

    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError> {
        self.inner.commit(partition, next_offset).await?;
        for token in self.committed(partition, next_offset) {
            if self.is_open(&token).await.unwrap_or(false) && self.network.known().restored.is_none() {
                let wrong = format!("a token was committed while there is work for it: {token:?} by {}", self.worker);
                self.network.known().wrong.push(wrong);
            }
        }
        Ok(())
    }

    async fn released(&self, partitions: &[u8]) {
        self.inner.released(partitions).await;
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }
}
