//! The two queues: tokens of preparation and of delivery.

use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::model::trace::TraceParent;

/// Why a queue did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// It may work later. A send may or may not have happened, which does not matter: tokens come twice anyway.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// The consumer was closed.
    #[error("the queue is closed")]
    Closed,
}

/// Sends tokens. `trace` is where in a trace the sending belongs; it travels beside each token.
#[async_trait::async_trait]
#[doc(alias = "MessageQueueSender")]
pub trait TaskSender: Send + Sync {
    /// Sends tokens of delivery, each to its lane's partition.
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, trace: Option<TraceParent>) -> Result<(), QueueError>;

    /// Sends tasks of preparation.
    async fn send_prepare(&self, tasks: Vec<PrepareTask>, trace: Option<TraceParent>) -> Result<(), QueueError>;
}

/// What a consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueEvent<T> {
    /// These partitions are mine from now on. One that is mine already begins anew: its log was lost, and the places of its tokens
    /// count from another beginning.
    Assigned(Vec<u8>),
    /// These are not mine any more. [`TaskQueue::released`] is called when their work has stopped, within a second.
    Revoked(Vec<u8>),
    /// A token.
    Task {
        /// Its partition.
        partition: u8,
        /// Its place in the partition.
        offset: u64,
        /// The token.
        task: T,
        /// Where in a trace its sending belonged, if it was traced.
        trace: Option<TraceParent>,
    },
}

/// Receives tokens of one topic as a member of its group.
///
/// Contract: one caller owns [`recv`](TaskQueue::recv) and never waits for work between two calls. Tokens of a partition
/// come in order, from the last committed offset on; after a rebalance some come again. Assignment is cooperative: a
/// subset may be revoked while the rest goes on.
#[async_trait::async_trait]
pub trait TaskQueue<T: Send>: Send + Sync {
    /// The next event. Cancel safe.
    async fn recv(&self) -> Result<QueueEvent<T>, QueueError>;

    /// Commits everything of a partition below `next_offset`. Never goes back.
    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError>;

    /// Says how many tokens of a partition the caller has: received, and not ended. A queue that bounds what a member has at once
    /// counts these where it is told, and else everything behind the committed offset: one token that lasts would then stop those
    /// behind it, of which the most may be over.
    fn holds(&self, _partition: u8, _tokens: u64) {}

    /// Says that the work on revoked partitions has stopped.
    async fn released(&self, partitions: &[u8]);

    /// Leaves the group.
    async fn leave(&self);
}

/// A member's end of the delivery topic.
pub type DeliveryQueue = dyn TaskQueue<SmsBatchPartitionTask>;
/// A member's end of the preparation topic.
pub type PrepareQueue = dyn TaskQueue<PrepareTask>;
