//! How much work waits, and who has which partitions: for `smsfleet fleet` and for metrics.

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

/// A member of a group, as the brokers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name under which its process connects.
    pub client_id: String,
    /// The name that the group gave it, new at each joining.
    pub member_id: String,
    /// Where it connects from.
    pub host: String,
    /// Its partitions.
    pub partitions: Vec<u8>,
}

/// The members of both groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Preparers.
    pub prepare: Vec<Member>,
    /// Deliverers.
    pub delivery: Vec<Member>,
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

    /// The members of the group.
    pub(super) fn members(&self) -> Result<Vec<Member>, KafkaError> {
        let groups = self.ask(|consumer| consumer.fetch_group_list(Some(&self.topic), OFFSETS_WITHIN))?;
        let mut members: Vec<Member> = groups
            .groups()
            .iter()
            .filter(|group| group.name() == self.topic)
            .flat_map(|group| group.members())
            .map(|member| Member {
                client_id: member.client_id().to_owned(),
                member_id: member.id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
                partitions: member.assignment().and_then(|bytes| assigned(bytes, &self.topic)).unwrap_or_default(),
            })
            .collect();
        members.sort_by(|a, b| (&a.client_id, &a.member_id).cmp(&(&b.client_id, &b.member_id)));
        Ok(members)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            close_beside(consumer);
        }
    }
}

/// The partitions of a topic in a member's assignment (Kafka's ConsumerProtocolAssignment, every version of which begins
/// like version 0): version, then per topic its name and partitions. `None` when it breaks off.
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let mut take = |n: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    take(2)?;
    let mut found = vec![];
    for _ in 0..u32::from_be_bytes(take(4)?.try_into().ok()?) {
        let length = u16::from_be_bytes(take(2)?.try_into().ok()?);
        let is_ours = take(usize::from(length))? == topic.as_bytes();
        for _ in 0..u32::from_be_bytes(take(4)?.try_into().ok()?) {
            let partition = u32::from_be_bytes(take(4)?.try_into().ok()?);
            if is_ours {
                found.push(u8::try_from(partition).ok()?);
            }
        }
    }
    found.sort_unstable();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_and_broken_ones_are_not() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        bytes.extend_from_slice(&[0, 1, b'x', 0, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[0, 1, b'd', 0, 0, 0, 2, 0, 0, 0, 127, 0, 0, 0, 3]);
        let whole = bytes.len();
        bytes.extend_from_slice(&[0, 0, 0, 0]);
        assert_eq!(assigned(&bytes, "d"), Some(vec![3, 127]));
        assert_eq!(assigned(&bytes, "y"), Some(vec![]));
        for length in 0..whole {
            assert_eq!(assigned(&bytes[..length], "d"), None, "cut at {length}");
        }
        assert_eq!(assigned(&[0, 0, 0xff, 0xff, 0xff, 0xff], "d"), None);
    }
}
