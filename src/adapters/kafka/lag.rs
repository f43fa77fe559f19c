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
            Ok(waiting_of(committed, offset(&first, partition)?, offset(&end, partition)?))
        };
        (0..i32::from(partitions)).map(waiting).collect()
    }
}

/// How much waits behind what was committed, in a log that reaches from `first` to `end`.
fn waiting_of(committed: Offset, first: Offset, end: Offset) -> u64 {
    let (Offset::Offset(first), Offset::Offset(end)) = (first, end) else { return 0 };
    let from = match committed {
        // What the broker deleted does not wait. Behind the end lies what was committed of another log, which was lost.
        Offset::Offset(committed) if committed <= end => committed.max(first),
        _ => first,
    };
    u64::try_from(end - from).unwrap_or(0)
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            close_beside(consumer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_what_is_there_and_was_not_committed() {
        let waits = |committed, first, end| waiting_of(committed, Offset::Offset(first), Offset::Offset(end));
        assert_eq!(waits(Offset::Offset(7), 0, 10), 3);
        assert_eq!(waits(Offset::Offset(10), 0, 10), 0);
        assert_eq!(waits(Offset::Offset(3), 5, 10), 5, "some were deleted");
        assert_eq!(waits(Offset::Invalid, 5, 10), 5, "nothing was committed");
        assert_eq!(waits(Offset::Offset(5_000), 0, 10), 10, "the log began anew");
        assert_eq!(waiting_of(Offset::Offset(7), Offset::Invalid, Offset::Offset(10)), 0);
    }
}
