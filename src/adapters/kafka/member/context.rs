//! What the client library calls while the member's thread polls: rebalances become news, and are carried out by the thread.
//!
//! The library lets the answer to a revocation come later, from outside the callback. So nothing here waits: the thread goes
//! on polling and committing while the work on the revoked partitions stops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::Shared;
use crate::adapters::kafka::contact::{Contact, log_line};

/// Work on revoked partitions may take this long to stop; then they are let go of all the same.
pub(super) const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// A consumer's context.
pub(super) struct Rebalances<T> {
    shared: Arc<Shared<T>>,
    contact: Arc<Contact>,
    desk: Mutex<Desk>,
    /// Nobody is told and nobody waited for any more.
    is_closing: AtomicBool,
}

/// What the thread has to carry out.
#[derive(Default)]
struct Desk {
    /// To be let go of, at the instant at the latest.
    revoked: Option<(TopicPartitionList, Instant)>,
    /// Just given to us.
    assigned: Vec<u8>,
}

impl<T: Send + 'static> Rebalances<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, contact: Arc<Contact>) -> Rebalances<T> {
        Rebalances { shared, contact, desk: Mutex::default(), is_closing: AtomicBool::new(false) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on partitions are let go of at once.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether there are partitions to let go of, and until when.
    pub(super) fn release_until(&self) -> Option<Instant> {
        self.desk().revoked.as_ref().map(|(_, until)| *until)
    }

    /// The partitions to let go of now.
    pub(super) fn take_revoked(&self) -> Option<TopicPartitionList> {
        self.desk().revoked.take().map(|(list, _)| list)
    }

    /// The partitions whose place is to be asked for.
    pub(super) fn take_assigned(&self) -> Vec<u8> {
        std::mem::take(&mut self.desk().assigned)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let done = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.assign(list),
        };
        if let Err(error) = done {
            // The library gives such partitions back by itself and joins again.
            tracing::warn!(%error, "partitions were not taken");
            return;
        }
        // A group with nothing to do has no message by which it would be known.
        self.contact.works();
        let partitions = numbers(list);
        tracing::debug!(topic = self.shared.topic, count = partitions.len(), "partitions are mine");
        self.desk().assigned.extend(&partitions);
        self.shared.change(|state| state.assigned(partitions));
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = numbers(list);
        let is_lost = consumer.assignment_lost();
        tracing::debug!(topic = self.shared.topic, count = partitions.len(), is_lost, "partitions are taken from me");
        if self.is_closing.load(Ordering::Relaxed) || partitions.is_empty() {
            let_go(consumer, list);
        } else if is_lost {
            // Others may have them already: nothing is committed, and waiting would only make joining again later.
            self.shared.change(|state| state.lost(partitions));
            resume_and_let_go(consumer, list);
        } else {
            self.shared.change(|state| state.revoked(partitions));
            self.desk().revoked = Some((list.clone(), Instant::now() + RELEASE_WITHIN));
        }
    }
}

/// Tells the library that these partitions are let go of.
fn let_go<T: Send + 'static>(consumer: &BaseConsumer<Rebalances<T>>, list: &TopicPartitionList) {
    let done = match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        RebalanceProtocol::None | RebalanceProtocol::Eager => consumer.unassign(),
    };
    if let Err(error) = done {
        tracing::warn!(%error, "partitions could not be let go of one by one; all are");
        if let Err(error) = consumer.unassign() {
            tracing::warn!(%error, "partitions could not be let go of");
        }
    }
}

/// The same for partitions that may be paused: the library would keep a pause of ours for when they come back, of which the books
/// would know nothing.
pub(super) fn resume_and_let_go<T: Send + 'static>(consumer: &BaseConsumer<Rebalances<T>>, list: &TopicPartitionList) {
    if let Err(error) = consumer.resume(list) {
        tracing::debug!(%error, "partitions that are let go of were not resumed");
    }
    let_go(consumer, list);
}

fn numbers(list: &TopicPartitionList) -> Vec<u8> {
    let mut numbers: Vec<u8> = list.elements().iter().filter_map(|partition| u8::try_from(partition.partition()).ok()).collect();
    numbers.sort_unstable();
    numbers
}

impl<T: Send + 'static> ClientContext for Rebalances<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.contact.failed(code, reason);
        }
    }
}

impl<T: Send + 'static> ConsumerContext for Rebalances<T> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }
}
