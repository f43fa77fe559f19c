//! Sends tokens: all handed to the library in order, then all waited for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, ClientContext};

use super::contact::{Contact, log_line};
use super::reach::unusable;
use super::topics::Names;
use super::wire;
use crate::model::code::Fault;
use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::model::trace::TraceParent;
use crate::ports::queue::{QueueError, TaskSender};

/// How long a full queue of the library is waited for when nothing of ours is in it.
const FULL_WAIT: Duration = Duration::from_millis(10);
/// How often.
const FULL_TRIES: u32 = 1_000;

/// A producer's context.
pub(super) struct Heard(Arc<Contact>);

impl ClientContext for Heard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.0.failed(code, reason);
        }
    }
}

/// A message: partition, key, body.
pub(super) struct Message {
    pub(super) partition: i32,
    pub(super) key: Option<&'static str>,
    pub(super) body: Vec<u8>,
}

/// The producer of one process.
pub(super) struct Sender {
    settings: ClientConfig,
    producer: Mutex<FutureProducer<Heard>>,
    contact: Arc<Contact>,
    names: Names,
    prepare_partitions: u16,
    next_prepare: AtomicU64,
}

impl Sender {
    pub(super) fn new(settings: ClientConfig, names: Names, prepare_partitions: u16) -> Result<Sender, Fault> {
        let contact = Arc::new(Contact::new("sender of tokens"));
        let producer = settings.create_with_context(Heard(contact.clone())).map_err(|error| unusable(&error))?;
        Ok(Sender {
            settings,
            producer: Mutex::new(producer),
            contact,
            names,
            prepare_partitions,
            next_prepare: AtomicU64::new(0),
        })
    }

    /// Sends messages, with their order kept within each partition, and waits until the brokers have them.
    pub(super) async fn send(&self, topic: &str, messages: Vec<Message>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let producer = self.current();
        let sent = send_all(&producer, topic, &messages, trace).await;
        match &sent {
            Ok(()) => self.contact.works(),
            Err(_) => self.replace_if_broken(&producer),
        }
        sent.map_err(|error| QueueError::Unavailable(format!("topic {topic}: {error}")))
    }

    fn current(&self) -> FutureProducer<Heard> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, FutureProducer<Heard>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idempotent producer that lost count with its broker never sends again: another one takes its place.
    fn replace_if_broken(&self, broken: &FutureProducer<Heard>) {
        if broken.client().fatal_error().is_none() {
            return;
        }
        let mut current = self.lock();
        if current.client().fatal_error().is_none() {
            return;
        }
        match self.settings.create_with_context(Heard(self.contact.clone())) {
            Ok(fresh) => {
                tracing::warn!("the sender of tokens could not go on and was made anew");
                *current = fresh;
            }
            Err(error) => tracing::error!(%error, "the sender of tokens could not be made anew"),
        }
    }
}

async fn send_all(
    producer: &FutureProducer<Heard>,
    topic: &str,
    messages: &[Message],
    trace: Option<TraceParent>,
) -> Result<(), KafkaError> {
    let mut waiting: VecDeque<DeliveryFuture> = VecDeque::with_capacity(messages.len());
    for message in messages {
        let mut record = FutureRecord::to(topic).partition(message.partition).payload(message.body.as_slice());
        record.key = message.key;
        record.headers = wire::headers(trace);
        let mut tries = 0;
        loop {
            record = match producer.send_result(record) {
                Ok(delivery) => {
                    waiting.push_back(delivery);
                    break;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) if tries < FULL_TRIES => again,
                Err((error, _)) => return Err(error),
            };
            match waiting.pop_front() {
                Some(oldest) => delivered(oldest).await?,
                None => {
                    tries += 1;
                    tokio::time::sleep(FULL_WAIT).await;
                }
            }
        }
    }
    for delivery in waiting {
        delivered(delivery).await?;
    }
    Ok(())
}

async fn delivered(delivery: DeliveryFuture) -> Result<(), KafkaError> {
    match delivery.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(KafkaError::Canceled),
    }
}

#[async_trait::async_trait]
impl TaskSender for Sender {
    async fn send_delivery(&self, tasks: Vec<(u8, SmsBatchPartitionTask)>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let message = |(partition, task)| Message {
            partition: i32::from(partition),
            key: None,
            body: wire::body::<SmsBatchPartitionTask>(&task),
        };
        self.send(&self.names.delivery, tasks.into_iter().map(message).collect(), trace).await
    }

    async fn send_prepare(&self, tasks: Vec<PrepareTask>, trace: Option<TraceParent>) -> Result<(), QueueError> {
        let first = self.next_prepare.fetch_add(tasks.len() as u64, Ordering::Relaxed);
        let message = |(at, task): (usize, PrepareTask)| {
            let partition = (first + at as u64) % u64::from(self.prepare_partitions.max(1));
            Message { partition: partition as i32, key: None, body: wire::body(&task) }
        };
        self.send(&self.names.prepare, tasks.into_iter().enumerate().map(message).collect(), trace).await
    }
}
