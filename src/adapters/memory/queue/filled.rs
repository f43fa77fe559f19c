//! A queue that a test fills, and whose commits it sees.

// A poisoned lock means that a test has failed already.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::ports::queue::{QueueError, QueueEvent, TaskQueue};

/// Holds what it was given, for one reader.
pub struct FilledQueue<T> {
    events: Mutex<VecDeque<QueueEvent<T>>>,
    /// The next offset of each partition.
    pub committed: Mutex<BTreeMap<u8, u64>>,
    /// How many tokens of each partition the reader says it has.
    pub held: Mutex<BTreeMap<u8, u64>>,
    /// Partitions that were let go, in order.
    pub released: Mutex<Vec<u8>>,
    /// Told of every change.
    pub changed: Notify,
}

impl<T> Default for FilledQueue<T> {
    fn default() -> FilledQueue<T> {
        let (events, committed, held, released, changed) = Default::default();
        FilledQueue { events, committed, held, released, changed }
    }
}

impl<T> FilledQueue<T> {
    /// Something happens.
    pub fn push(&self, event: QueueEvent<T>) {
        self.events.lock().unwrap().push_back(event);
        self.changed.notify_waiters();
    }
}

#[async_trait::async_trait]
impl<T: Send> TaskQueue<T> for FilledQueue<T> {
    async fn recv(&self) -> Result<QueueEvent<T>, QueueError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(event) = self.events.lock().unwrap().pop_front() {
                return Ok(event);
            }
            changed.await;
        }
    }

    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError> {
        let before = self.committed.lock().unwrap().insert(partition, next_offset);
        assert!(before.is_none_or(|before| before < next_offset), "a commit went back");
        self.changed.notify_waiters();
        Ok(())
    }

    fn holds(&self, partition: u8, tokens: u64) {
        self.held.lock().unwrap().insert(partition, tokens);
    }

    async fn released(&self, partitions: &[u8]) {
        self.released.lock().unwrap().extend(partitions);
        self.changed.notify_waiters();
    }

    async fn leave(&self) {}
}
