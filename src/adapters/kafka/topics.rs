//! The topics and groups: made by `smsfleet migrate`, looked at by every start.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use super::config::KafkaConfig;
use super::reach::{Caller, unusable};
use super::{blocking, close_beside};
use crate::model::code::{Code, Fault};
use crate::model::limits::DELIVERY_PARTITIONS;

/// How long making topics and setting the groups' offsets may take: a new cluster first makes its own topics.
const MIGRATE_WITHIN: Duration = Duration::from_secs(60);
/// One question about offsets.
pub(super) const OFFSETS_WITHIN: Duration = Duration::from_secs(10);
/// Tokens that nobody took are sent again by the leader long before this many milliseconds (7 days).
const RETENTION_MS: &str = "604800000";

/// Names of topics. Groups are named like the topic they read.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prepare: String,
    pub(super) delivery: String,
    pub(super) mark: String,
}

impl Names {
    pub(super) fn of(config: &KafkaConfig) -> Names {
        let name = |what: &str| format!("{}.{what}", config.topic_prefix);
        Names { prepare: name("prepare"), delivery: name("delivery"), mark: name("mark") }
    }
}

/// What `migrate` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Topics that were made.
    pub created: Vec<String>,
    /// Topics that were there.
    pub present: Vec<String>,
    /// Partitions that got their group's first offset.
    pub first_offsets: usize,
}

/// Makes the topics that are missing and gives both groups a first offset on every partition: autoscalers count a partition
/// without one wrongly. Done a second time it changes nothing; offsets and members of a running fleet are left alone.
pub async fn migrate(config: &KafkaConfig) -> Result<Report, Fault> {
    let names = Names::of(config);
    let until = Instant::now() + MIGRATE_WITHIN;
    let asked = (config.clone(), names.clone());
    let before = blocking(move || {
        let caller = Caller::new(&asked.0, "smsfleet-migrate")?;
        let topic = |name: &String| caller.topic(name);
        Ok([topic(&asked.1.prepare)?, topic(&asked.1.delivery)?, topic(&asked.1.mark)?])
    })
    .await?;
    let wanted = [
        (&names.prepare, usize::from(config.prepare_partitions)),
        (&names.delivery, usize::from(DELIVERY_PARTITIONS)),
        (&names.mark, 1),
    ];
    let mut report = Report::default();
    let admin: AdminClient<DefaultClientContext> =
        config.client("smsfleet-migrate").create().map_err(|error| unusable(&error))?;
    for ((name, partitions), before) in wanted.into_iter().zip(before) {
        match before {
            None => {
                create(config, &admin, name, partitions, *name == names.mark).await?;
                report.created.push(name.clone());
            }
            Some(topic) => {
                if *name == names.prepare && topic.partitions < partitions {
                    extend(config, &admin, name, partitions).await?;
                }
                report.present.push(name.clone());
            }
        }
    }
    let config = config.clone();
    report.first_offsets = blocking(move || {
        let caller = Caller::new(&config, "smsfleet-migrate")?;
        for (name, partitions) in [(&names.prepare, config.prepare_partitions), (&names.delivery, 1), (&names.mark, 1)] {
            wait_for(&caller, name, usize::from(partitions), until)?;
        }
        let prepare = look(&config, &caller, &names)?;
        let of_prepare = begin_group(&config, &names.prepare, i32::from(prepare), until)?;
        Ok(of_prepare + begin_group(&config, &names.delivery, i32::from(DELIVERY_PARTITIONS), until)?)
    })
    .await?;
    Ok(report)
}

/// Removes the topics and their groups; what is not there is no error.
///
/// # Errors
/// What the brokers refuse.
pub async fn remove(config: &KafkaConfig) -> Result<(), Fault> {
    let names = Names::of(config);
    let admin: AdminClient<DefaultClientContext> =
        config.client("smsfleet-migrate").create().map_err(|error| unusable(&error))?;
    let at = config.addresses();
    let failed =
        |what: &str, error: String| Fault::new(Code::ServerUnavailable, format!("{what} at {at}: {error} (kafka.brokers)"));
    let gone = |what: &str, answers: KafkaResult<Vec<Result<String, (String, RDKafkaErrorCode)>>>, absent: RDKafkaErrorCode| {
        let answers = answers.map_err(|error| failed(what, error.to_string()))?;
        let refused = answers.into_iter().filter_map(Result::err).find(|(_, code)| *code != absent);
        refused.map_or(Ok(()), |(name, code)| Err(failed(&format!("{what} {name}"), code.to_string())))
    };
    // Groups first: brokers forget the offsets of a topic that is gone by themselves, but not the group.
    let groups = [names.prepare.as_str(), names.delivery.as_str()];
    gone("group", admin.delete_groups(&groups, &admin_options()).await, RDKafkaErrorCode::GroupIdNotFound)?;
    let topics = [names.prepare.as_str(), names.delivery.as_str(), names.mark.as_str()];
    gone("topic", admin.delete_topics(&topics, &admin_options()).await, RDKafkaErrorCode::UnknownTopicOrPartition)
}

/// Looks whether the topics are as this version needs them. Gives back how many partitions the preparation topic has.
pub(super) async fn check(config: &KafkaConfig, client_id: &str) -> Result<u16, Fault> {
    let (config, client_id) = (config.clone(), client_id.to_owned());
    blocking(move || look(&config, &Caller::new(&config, &client_id)?, &Names::of(&config))).await
}

fn look(config: &KafkaConfig, caller: &Caller<'_>, names: &Names) -> Result<u16, Fault> {
    let at = config.addresses();
    let partitions = |name: &str| match caller.topic(name)? {
        Some(topic) => Ok(topic.partitions),
        None => Err(Fault::new(Code::ServerSchema, format!("topic {name} is missing at {at} (kafka.topic_prefix)"))),
    };
    let delivery = partitions(&names.delivery)?;
    if delivery != usize::from(DELIVERY_PARTITIONS) {
        let text = format!(
            "topic {} at {at} has {delivery} partitions instead of {DELIVERY_PARTITIONS}, which lanes are spread over: \
             choose another kafka.topic_prefix, or delete the topic while no fleet runs",
            names.delivery
        );
        return Err(Fault::new(Code::ServerSchema, text));
    }
    partitions(&names.mark)?;
    let prepare = partitions(&names.prepare)?;
    let usable = u16::try_from(prepare).ok().filter(|partitions| (1..=256).contains(partitions));
    usable.ok_or_else(|| {
        let text = format!("topic {} at {at} has {prepare} partitions instead of 1 to 256", names.prepare);
        Fault::new(Code::ServerSchema, text)
    })
}

async fn create(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: usize,
    is_mark: bool,
) -> Result<(), Fault> {
    let copies = i32::from(config.replication);
    // With three copies one broker may be away; a token is safe once two have it.
    let in_sync = if copies >= 3 { (copies - 1).to_string() } else { "1".to_owned() };
    let topic = NewTopic::new(name, i32::try_from(partitions).unwrap_or(i32::MAX), TopicReplication::Fixed(copies))
        .set("min.insync.replicas", &in_sync);
    let topic = if is_mark {
        topic.set("cleanup.policy", "compact").set("segment.ms", "3600000").set("min.cleanable.dirty.ratio", "0.1")
    } else {
        topic.set("cleanup.policy", "delete").set("retention.ms", RETENTION_MS)
    };
    let done = admin.create_topics([&topic], &admin_options()).await;
    outcome(config, name, done, RDKafkaErrorCode::TopicAlreadyExists)
}

async fn extend(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    name: &str,
    partitions: usize,
) -> Result<(), Fault> {
    let done = admin.create_partitions([&NewPartitions::new(name, partitions)], &admin_options()).await;
    outcome(config, name, done, RDKafkaErrorCode::InvalidPartitions)
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(20))).request_timeout(Some(Duration::from_secs(30)))
}

/// What an order about a topic came to; `done_before` says that somebody else was first.
fn outcome(
    config: &KafkaConfig,
    name: &str,
    done: Result<Vec<TopicResult>, KafkaError>,
    done_before: RDKafkaErrorCode,
) -> Result<(), Fault> {
    let at = config.addresses();
    let refused = match done {
        Err(error) => return Err(Fault::new(Code::ServerUnavailable, format!("topic {name} at {at}: {error} (kafka.brokers)"))),
        Ok(results) => results.into_iter().find_map(Result::err).map(|(_, code)| code),
    };
    let (code, keys) = match refused {
        None => return Ok(()),
        Some(code) if code == done_before => return Ok(()),
        Some(RDKafkaErrorCode::InvalidReplicationFactor) => {
            (Code::ConfigInvalid, "kafka.replication: are there so many brokers?")
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            (Code::ServerLogin, "kafka.username: it needs the right to create topics")
        }
        Some(_) => (Code::ServerSchema, "kafka.topic_prefix"),
    };
    let error = refused.map(|code| code.to_string()).unwrap_or_default();
    Err(Fault::new(code, format!("topic {name} at {at} cannot be made: {error} ({keys})")))
}

/// Waits until every broker that is asked knows the topic, and each partition has a leader.
fn wait_for(caller: &Caller<'_>, name: &str, partitions: usize, until: Instant) -> Result<(), Fault> {
    loop {
        if caller.topic(name)?.is_some_and(|topic| topic.is_led && topic.partitions >= partitions) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Fault::new(
                Code::ServerUnavailable,
                format!("topic {name} was made and has no leader yet (kafka.brokers)"),
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Commits the beginning of every partition that the group never committed. Gives back how many those were.
fn begin_group(config: &KafkaConfig, group: &str, partitions: i32, until: Instant) -> Result<usize, Fault> {
    let consumer: BaseConsumer = config.group("smsfleet-migrate", group).create().map_err(|error| unusable(&error))?;
    let begun = begin(config, &consumer, group, partitions, until);
    close_beside(consumer);
    begun
}

fn begin(config: &KafkaConfig, consumer: &BaseConsumer, group: &str, partitions: i32, until: Instant) -> Result<usize, Fault> {
    loop {
        let error = match commit_beginnings(consumer, group, partitions) {
            Ok(count) => return Ok(count),
            // Members of a running fleet commit the beginnings themselves, when they get a partition.
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress,
            )) => return Ok(0),
            Err(error) => error,
        };
        let refused = error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        if refused || Instant::now() >= until {
            let (code, key) =
                if refused { (Code::ServerLogin, "kafka.username") } else { (Code::ServerUnavailable, "kafka.brokers") };
            return Err(Fault::new(code, format!("group {group} at {}: {error} ({key})", config.addresses())));
        }
        // A cluster that had no group before first makes the topic that keeps their offsets.
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn commit_beginnings(consumer: &BaseConsumer, group: &str, partitions: i32) -> Result<usize, KafkaError> {
    let mut all = TopicPartitionList::new();
    all.add_partition_range(group, 0, partitions - 1);
    let mut missing = TopicPartitionList::new();
    for partition in consumer.committed_offsets(all, OFFSETS_WITHIN)?.elements() {
        partition.error()?;
        if !matches!(partition.offset(), Offset::Offset(_)) {
            missing.add_partition_offset(group, partition.partition(), Offset::Beginning)?;
        }
    }
    if missing.count() == 0 {
        return Ok(0);
    }
    let beginnings = consumer.offsets_for_times(missing, OFFSETS_WITHIN)?;
    for partition in beginnings.elements() {
        partition.error()?;
    }
    consumer.commit(&beginnings, CommitMode::Sync)?;
    Ok(beginnings.count())
}
