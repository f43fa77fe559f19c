//! The store's mark, left in a compacted topic: its last message is the mark.
//!
//! The last one and not the greatest: what another store left here before says nothing of this one. Two leaders whose messages
//! cross leave the smaller of two marks for the seconds until the next, which accuses nobody wrongly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use super::close_beside;
use super::config::KafkaConfig;
use super::producer::{Message, Sender};
use super::reach::{Witness, unusable};
use super::topics::Names;
use super::wire;
use crate::ports::StoreError;
use crate::ports::meta::{Left, Outside};

/// The key that compaction goes by.
const KEY: &str = "mark";
/// The mark's only partition.
const PARTITION: i32 = 0;
/// How long reading it may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The mark in a topic.
pub(super) struct KafkaMark {
    pub(super) config: KafkaConfig,
    pub(super) client_id: String,
    pub(super) sender: Arc<Sender>,
    pub(super) identity: String,
}

#[async_trait::async_trait]
impl Outside for KafkaMark {
    async fn read(&self) -> Result<Option<Left>, StoreError> {
        let (config, client_id) = (self.config.clone(), self.client_id.clone());
        let read = tokio::task::spawn_blocking(move || last(&config, &client_id)).await;
        read.map_err(|error| StoreError::Unavailable(format!("the mark in Kafka: {error}")))?
    }

    async fn write(&self, left: Left) -> Result<(), StoreError> {
        let message = Message { partition: PARTITION, key: Some(KEY), body: wire::mark_body(&left) };
        let topic = Names::of(&self.config).mark;
        self.sender.send(&topic, vec![message], None).await.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}

/// The last message. Compaction never takes the last one away, so that it lies right before the end or a little earlier,
/// where a broker wrote something of its own.
fn last(config: &KafkaConfig, client_id: &str) -> Result<Option<Left>, StoreError> {
    let topic = Names::of(config).mark;
    let away = |error: KafkaError| StoreError::Unavailable(format!("topic {topic} at {}: {error}", config.addresses()));
    // The library wants the name of a group for assigning by hand; nothing is ever committed under it.
    let mut settings = config.group(client_id, &topic);
    settings.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Witness> = settings
        .create_with_context(Witness::default())
        .map_err(|error| StoreError::Unavailable(unusable(&error).to_string()))?;
    let read = last_of(&consumer, &topic).map_err(away);
    close_beside(consumer);
    read?.transpose()
}

fn last_of(consumer: &BaseConsumer<Witness>, topic: &str) -> Result<Option<Read>, KafkaError> {
    let (first, end) = consumer.fetch_watermarks(topic, PARTITION, READ_WITHIN)?;
    let mut from = (end - 8).max(first);
    loop {
        if first >= end {
            return Ok(None);
        }
        if let Some(left) = read_from(consumer, topic, from)? {
            return Ok(Some(left));
        }
        if from == first {
            return Ok(None);
        }
        from = (end - (end - from).saturating_mul(16)).max(first);
    }
}

type Read = Result<Left, StoreError>;

/// The last message from an offset up to the end.
fn read_from(consumer: &BaseConsumer<Witness>, topic: &str, from: i64) -> Result<Option<Read>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, PARTITION, Offset::Offset(from))?;
    consumer.assign(&list)?;
    let until = Instant::now() + READ_WITHIN;
    let mut last = None;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => last = Some(parse(topic, message.payload().unwrap_or_default())),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            Some(Err(error)) if Instant::now() >= until => return Err(error),
            None if Instant::now() >= until => return Err(KafkaError::NoMessageReceived),
            Some(Err(_)) | None => {}
        }
    }
}

fn parse(topic: &str, body: &[u8]) -> Read {
    wire::mark(body).ok_or_else(|| StoreError::Corrupt(format!("the last message of topic {topic} is not a mark")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_a_later_version_is_read_and_a_broken_one_is_not() {
        let later = b"\x02{\"mark\":7,\"identity\":\"k\",\"more\":1}";
        assert_eq!(parse("t", later), Ok(Left { mark: 7, identity: "k".into() }));
        for broken in [&b""[..], b"\x01", b"{\"mark\":7}", b"\x00{\"mark\":7,\"identity\":\"k\"}"] {
            assert!(matches!(parse("t", broken), Err(StoreError::Corrupt(_))), "{broken:?}");
        }
    }
}
