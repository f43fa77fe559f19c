//! One member of a topic's group: a thread that polls, and the end from which a task receives. The two meet in plain books
//! behind a lock, so that neither waits for the other.
//!
//! It knows nothing of what tokens mean.

mod context;
mod place;
mod standing;
mod state;
mod thread;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use self::state::State;
use crate::model::code::{Code, Fault};
use crate::ports::queue::{QueueError, QueueEvent, TaskQueue};

/// Leaving a group takes a tenth of a second; with a broker that is away it is not waited for longer than this.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// What the thread and the receiving task share.
struct Shared<T> {
    topic: String,
    /// The queue's name as a label of metrics.
    queue: &'static str,
    state: Mutex<State<T>>,
    changed: Notify,
    is_leaving: AtomicBool,
    has_broken: AtomicBool,
}

impl<T> Shared<T> {
    fn with<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, after which there may be something to receive.
    fn change<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        let result = self.with(act);
        // One caller receives; if it does not wait now, the permit is there when it does.
        self.changed.notify_one();
        result
    }

    fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    fn leave(&self) {
        self.change(State::close);
        self.is_leaving.store(true, Ordering::Relaxed);
    }
}

/// A member's end of a topic. Dropped, it leaves the group.
pub(super) struct KafkaQueue<T> {
    shared: Arc<Shared<T>>,
    /// `true` once the thread has ended.
    ended: watch::Receiver<bool>,
}

impl<T: DeserializeOwned + Send + 'static> KafkaQueue<T> {
    /// Joins the group that is named like the topic.
    pub(super) fn join(topic: &str, queue: &'static str, settings: ClientConfig) -> Result<KafkaQueue<T>, Fault> {
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            queue,
            state: Mutex::default(),
            changed: Notify::new(),
            is_leaving: AtomicBool::new(false),
            has_broken: AtomicBool::new(false),
        });
        let (end, ended) = watch::channel(false);
        let of_thread = shared.clone();
        let run = move || {
            thread::run(&of_thread, &settings);
            let _ = end.send(true);
        };
        std::thread::Builder::new()
            .name(format!("kafka-{queue}"))
            .spawn(run)
            .map_err(|error| Fault::new(Code::Internal, format!("no thread for topic {topic}: {error}")))?;
        Ok(KafkaQueue { shared, ended })
    }
}

impl<T> Drop for KafkaQueue<T> {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

#[async_trait::async_trait]
impl<T: Send + 'static> TaskQueue<T> for KafkaQueue<T> {
    async fn recv(&self) -> Result<QueueEvent<T>, QueueError> {
        loop {
            let event = self.shared.with(|state| if state.is_closed() { Err(QueueError::Closed) } else { Ok(state.next()) })?;
            if let Some(event) = event {
                return Ok(event);
            }
            self.shared.changed.notified().await;
        }
    }

    async fn commit(&self, partition: u8, next_offset: u64) -> Result<(), QueueError> {
        self.shared.with(|state| {
            if state.is_closed() {
                return Err(QueueError::Closed);
            }
            state.done(partition, next_offset);
            Ok(())
        })
    }

    fn holds(&self, partition: u8, tokens: u64) {
        self.shared.with(|state| state.holds(partition, tokens));
    }

    async fn released(&self, partitions: &[u8]) {
        self.shared.with(|state| state.released(partitions));
    }

    async fn leave(&self) {
        self.shared.leave();
        let mut ended = self.ended.clone();
        // An error says that the thread is gone, which is what was waited for.
        let left = tokio::time::timeout(LEAVE_WITHIN, ended.wait_for(|ended| *ended)).await;
        if left.is_err() {
            tracing::warn!(topic = self.shared.topic, "leaving the group takes too long; its members will notice by themselves");
        }
    }
}
