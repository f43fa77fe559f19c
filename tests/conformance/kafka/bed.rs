//! Topics of a test's own on the shared broker, members that tell what happens to them, and a client without our code.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, TopicPartitionList};
use smsfleet::adapters::kafka::{Kafka, KafkaConfig, migrate};
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, TaskCode};
use smsfleet::model::task::{SmsBatchPartitionTask, TaskStatus};
use smsfleet::ports::queue::{DeliveryQueue, QueueEvent};

use crate::servers;

/// The broker's shortest session of production: what kills and freezes are measured against.
pub const SESSION: Duration = Duration::from_secs(6);

/// Topics under a name that nobody else has; removed when the test ends, however it ends.
pub struct Bed {
    pub config: KafkaConfig,
    owner: bool,
}

impl Bed {
    /// Names without topics.
    pub fn unmade() -> Bed {
        let random = std::hash::RandomState::new().build_hasher().finish();
        Bed::named(servers::kafka(), &format!("test-{random:016x}"), true)
    }

    /// Names that another process made and removes.
    pub fn of(prefix: &str) -> Bed {
        Bed::named(servers::kafka(), prefix, false)
    }

    /// Topics on a broker of the test's own, which goes with them.
    pub async fn made_at(broker: &str) -> Bed {
        let bed = Bed::named(broker.to_owned(), "test", false);
        migrate(&bed.config).await.expect("the topics are made");
        bed
    }

    fn named(broker: String, prefix: &str, owner: bool) -> Bed {
        let config = KafkaConfig {
            brokers: vec![broker],
            topic_prefix: prefix.to_owned(),
            replication: 1,
            session_timeout: SESSION,
            ..KafkaConfig::default()
        };
        Bed { config, owner }
    }

    /// Topics as `smsfleet migrate` makes them.
    pub async fn made() -> Bed {
        let bed = Bed::unmade();
        // A broker on a busy machine, with the topics of many tests to remove, may need more than one attempt's time.
        for _ in 0..2 {
            match migrate(&bed.config).await {
                Ok(_) => return bed,
                Err(fault) => assert_eq!(fault.code, Code::ServerUnavailable, "{fault}"),
            }
        }
        migrate(&bed.config).await.expect("the topics are made");
        bed
    }

    pub async fn connect(&self, client_id: &str) -> Kafka {
        Kafka::connect(&self.config, client_id).await.expect("the broker is there")
    }

    pub fn topic(&self, what: &str) -> String {
        format!("{}.{what}", self.config.topic_prefix)
    }

    /// A client that knows nothing of ours.
    pub fn bare(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", self.config.brokers.join(","));
        settings
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.bare().create().expect("a client")
    }

    /// Writes a message as it is.
    pub async fn write(&self, what: &str, partition: i32, body: &[u8]) {
        let producer: FutureProducer = self.bare().create().expect("a producer");
        let topic = self.topic(what);
        let record = FutureRecord::to(&topic).partition(partition).key("mark").payload(body);
        producer.send(record, Timeout::After(Duration::from_secs(10))).await.expect("it is written");
    }

    /// What a group committed, by partition, as the broker has it.
    pub fn committed(&self, what: &str, partitions: i32) -> Vec<Option<i64>> {
        use rdkafka::consumer::Consumer;
        let topic = self.topic(what);
        let consumer: BaseConsumer = self.bare().set("group.id", &topic).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, partitions - 1);
        let found = consumer.committed_offsets(list, Duration::from_secs(10)).expect("the broker answers");
        found.elements().iter().map(|partition| partition.offset().to_raw().filter(|offset| *offset >= 0)).collect()
    }

    /// The client ids of a group's members, as the broker lists them.
    pub fn members(&self, what: &str) -> BTreeSet<String> {
        use rdkafka::consumer::Consumer;
        let consumer: BaseConsumer = self.bare().set("group.id", "looks").create().expect("a consumer");
        let listed = consumer.fetch_group_list(Some(&self.topic(what)), Duration::from_secs(10)).expect("the broker answers");
        listed.groups().iter().flat_map(|group| group.members()).map(|member| member.client_id().to_owned()).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.owner {
            let topics = ["prepare", "delivery", "mark"].map(|what| self.topic(what));
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let admin = self.admin();
            let removed = admin.delete_topics(&topics, &AdminOptions::new());
            // A topic that was never made is an error of no interest.
            let _ = futures::executor::block_on(removed);
        }
    }
}

pub fn token(slice: u32) -> SmsBatchPartitionTask {
    SmsBatchPartitionTask {
        batch_primary_key: BatchId(1),
        partition_key: 0,
        slice,
        task_code: TaskCode { batch: BatchId(1), number: 1 },
        status: TaskStatus::Queued,
    }
}

pub async fn send(kafka: &Kafka, partition: u8, slices: std::ops::Range<u32>) {
    let tasks = slices.map(|slice| (partition, token(slice))).collect();
    kafka.sender().send_delivery(tasks, None).await.expect("they are sent");
}

pub type Queue = Arc<DeliveryQueue>;

pub async fn next(member: &Queue) -> QueueEvent<SmsBatchPartitionTask> {
    let event = tokio::time::timeout(Duration::from_secs(40), member.recv()).await;
    event.expect("something comes").expect("the queue is open")
}

/// Receives assignments until this many partitions are there.
pub async fn assigned(member: &Queue, count: usize) -> BTreeSet<u8> {
    let mut all = BTreeSet::new();
    while all.len() < count {
        match next(member).await {
            QueueEvent::Assigned(partitions) => {
                for partition in partitions {
                    assert!(all.insert(partition), "{partition} is given twice");
                }
            }
            other => panic!("{other:?} instead of an assignment"),
        }
    }
    assert_eq!(all.len(), count);
    all
}

pub async fn revoked(member: &Queue) -> Vec<u8> {
    match next(member).await {
        QueueEvent::Revoked(partitions) => partitions,
        other => panic!("{other:?} instead of a revocation"),
    }
}

pub async fn task(member: &Queue) -> (u8, u64, u32) {
    match next(member).await {
        QueueEvent::Task { partition, offset, task, .. } => (partition, offset, task.slice),
        other => panic!("{other:?} instead of a token"),
    }
}

pub async fn nothing_comes(member: &Queue, within: Duration) {
    let came = tokio::time::timeout(within, member.recv()).await;
    assert!(came.is_err(), "{came:?} came");
}

/// Waits until this holds.
pub async fn until<F: Future<Output = bool>>(within: Duration, what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + within;
    while !holds().await {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
