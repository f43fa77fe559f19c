//! A message broker in memory: topics with partitions, a group of members each, offsets, cooperative assignment.
//!
//! It keeps nothing over a restart and needs not: tokens are filled in again from the ledgers.

mod assign;
#[cfg(test)]
pub mod filled;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::topic::Topic;
pub use self::topic::{MemberId, MemberQueue};
use crate::model::limits::DELIVERY_PARTITIONS;
use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::model::trace::TraceParent;
use crate::ports::queue::{QueueError, TaskSender};

/// Partitions of the preparation topic.
pub const PREPARE_PARTITIONS: u8 = 16;

/// The two topics.
#[derive(Clone)]
pub struct MemoryBroker {
    prepare: Arc<Topic<PrepareTask>>,
    delivery: Arc<Topic<SmsBatchPartitionTask>>,
    members: Arc<AtomicU64>,
    next_prepare: Arc<AtomicU64>,
}

impl Default for MemoryBroker {
    fn default() -> MemoryBroker {
        MemoryBroker::new()
    }
}

impl MemoryBroker {
    /// Empty topics without members.
    pub fn new() -> MemoryBroker {
        MemoryBroker {
            prepare: Arc::new(Topic::new(u16::from(PREPARE_PARTITIONS))),
            delivery: Arc::new(Topic::new(DELIVERY_PARTITIONS)),
            members: Arc::default(),
            next_prepare: Arc::default(),
        }
    }

    /// Where tokens are sent.
    pub fn sender(&self) -> Arc<dyn TaskSender> {
        Arc::new(self.clone())
    }

    /// Joins the group of the delivery topic.
    pub fn join_delivery(&self) -> Arc<MemberQueue<SmsBatchPartitionTask>> {
        Arc::new(MemberQueue::join(self.delivery.clone(), self.next_member()))
    }

    /// Joins the group of the preparation topic.
    pub fn join_prepare(&self) -> Arc<MemberQueue<PrepareTask>> {
        Arc::new(MemberQueue::join(self.prepare.clone(), self.next_member()))
    }

    /// Throws a member out without asking it, as a session's time-out does after a crash: its partitions go to the others
    /// at once, from their committed offsets on.
    pub fn expel(&self, member: MemberId) {
        self.prepare.remove(member);
        self.delivery.remove(member);
    }

    /// A member's session ends because its process stands: its partitions go to the others at once, and it hears of nothing
    /// until [`MemoryBroker::wake`].
    pub fn sleep(&self, member: MemberId) {
        self.prepare.sleep(member);
        self.delivery.sleep(member);
    }

    /// A member whose session ended is told so: that what it had is taken away. It joins anew.
    pub fn wake(&self, member: MemberId) {
        self.prepare.wake(member);
        self.delivery.wake(member);
    }

    /// Takes partitions of both topics away from whoever has them, as a rebalance does that moves some while the others go on.
    /// They are given out again once they were let go of. Gives back how many there were.
    pub fn take_away(&self, which: impl Fn(u8) -> bool) -> usize {
        self.prepare.take_away(&which) + self.delivery.take_away(&which)
    }

    /// Loses every token, as a broker does whose disk was lost. Gives back how many there were.
    pub fn lose_all(&self) -> usize {
        self.prepare.lose_all() + self.delivery.lose_all()
    }

    /// Tokens that were not committed yet: preparation, delivery.
    pub fn lag(&self) -> (u64, u64) {
        (self.prepare.lag(), self.delivery.lag())
    }

    /// Committed offsets of the delivery topic, by partition.
    pub fn committed(&self) -> Vec<u64> {
        self.delivery.committed()
    }

    fn next_member(&self) -> MemberId {
        MemberId(self.members.fetch_add(1, Ordering::Relaxed))
    }
}

#[async_trait::async_trait]
impl TaskSender for MemoryBroker {
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        self.delivery.append(tasks, trace);
        Ok(())
    }

    async fn send_prepare(&self, tasks: Vec<PrepareTask>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let first = self.next_prepare.fetch_add(tasks.len() as u64, Ordering::Relaxed);
        let partition = |at: usize| ((first + at as u64) % u64::from(PREPARE_PARTITIONS)) as u8;
        self.prepare.append(tasks.into_iter().enumerate().map(|(at, task)| (partition(at), task)).collect(), trace);
        Ok(())
    }
}
