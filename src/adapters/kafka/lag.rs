//! How much work waits: for the leader's sheet, by which `smsfleet fleet` shows it, and for metrics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};

use super::close_beside;
use super::config::KafkaConfig;
use super::reach::Witness;
use super::topics::OFFSETS_WITHIN;

/// Tokens that wait in the two queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Of preparation.
    pub prepare: u64,
    /// Of delivery.
    pub delivery: u64,
    /// Of delivery, by partition.
    pub by_partition: Vec<u64>,
}

/// Asks about one group without being a member. Its calls block.
pub(super) struct Observer {
    topic: String,
    settings: ClientConfig,
    /// Made at the first question: most processes never ask.
    consumer: Mutex<Option<BaseConsumer<Witness>>>,
}

impl Observer {
    /// Asks about the group that is named like the topic it reads.
    pub(super) fn new(config: &KafkaConfig, client_id: &str, topic: &str) -> Observer {
        Observer { topic: topic.to_owned(), settings: config.group(client_id, topic), consumer: Mutex::new(None) }
    }

    fn ask<R>(&self, question: impl FnOnce(&BaseConsumer<Witness>) -> Result<R, KafkaError>) -> Result<R, KafkaError> {
        let mut slot = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        let consumer = match slot.take() {
            Some(consumer) => consumer,
            None => self.settings.create_with_context(Witness::default())?,
        };
        // What the library reported meanwhile would pile up.
        while consumer.poll(Duration::ZERO).is_some() {}
        let answer = question(&consumer);
        *slot = Some(consumer);
        answer
    }

    /// Messages behind the committed offset, by partition.
    pub(super) fn lag(&self, partitions: u16) -> Result<Vec<u64>, KafkaError> {
        self.ask(|consumer| self.lag_by(consumer, partitions))
    }

    fn lag_by(&self, consumer: &BaseConsumer<Witness>, partitions: u16) -> Result<Vec<u64>, KafkaError> {
        let list = |offset| {
            let mut list = TopicPartitionList::new();
            for partition in 0..i32::from(partitions) {
                list.add_partition_offset(&self.topic, partition, offset)?;
            }
            Ok::<_, KafkaError>(list)
        };
        let committed = consumer.committed_offsets(list(Offset::Invalid)?, OFFSETS_WITHIN)?;
        let first = consumer.offsets_for_times(list(Offset::Beginning)?, OFFSETS_WITHIN)?;
        let end = consumer.offsets_for_times(list(Offset::End)?, OFFSETS_WITHIN)?;
        let offset = |list: &TopicPartitionList, partition: i32| match list.find_partition(&self.topic, partition) {
            Some(found) => found.error().map(|()| found.offset()),
            None => Ok(Offset::Invalid),
        };
        let waiting = |partition| {
            let committed = offset(&committed, partition)?;
            Ok(match (committed, offset(&first, partition)?, offset(&end, partition)?) {
                // What the broker deleted does not wait.
                (Offset::Offset(committed), Offset::Offset(first), Offset::Offset(end)) => end - committed.max(first),
                (_, Offset::Offset(first), Offset::Offset(end)) => end - first,
                _ => 0,
            })
        };
        (0..i32::from(partitions)).map(|partition| waiting(partition).map(|n: i64| n.max(0) as u64)).collect()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            close_beside(consumer);
        }
    }
}
