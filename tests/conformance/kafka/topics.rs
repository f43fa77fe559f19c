//! Topics: made once, looked at by every start, and clear words when something is wrong.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use smsfleet::adapters::kafka::{Kafka, KafkaConfig, migrate};
use smsfleet::model::code::{Code, Fault};

use super::bed::{Bed, assigned, send, task, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrating_twice_is_harmless_and_every_partition_has_an_offset() {
    let bed = Bed::unmade();
    let first = migrate(&bed.config).await.expect("the topics are made");
    assert_eq!(first.created, ["prepare", "delivery", "mark"].map(|what| bed.topic(what)));
    assert_eq!((first.present.len(), first.first_offsets), (0, 128 + 16));
    assert_eq!(bed.committed("delivery", 128), vec![Some(0); 128]);
    assert_eq!(bed.committed("prepare", 16), vec![Some(0); 16]);
    let kafka = bed.connect("first").await;
    send(&kafka, 3, 0..5).await;
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    for _ in 0..5 {
        task(&member).await;
    }
    member.commit(3, 4).await.expect("it is committed");
    // Once with a member, once without.
    for _ in 0..2 {
        let again = migrate(&bed.config).await.expect("it is harmless");
        assert_eq!((again.created.len(), again.present.len(), again.first_offsets), (0, 3, 0));
        member.leave().await;
    }
    assert_eq!(bed.committed("delivery", 128)[3], Some(4));
    assert_eq!(kafka.lag().await.expect("the lag").by_partition[3], 1);
    let more = KafkaConfig { prepare_partitions: 20, ..bed.config.clone() };
    assert_eq!(migrate(&more).await.expect("more preparers").first_offsets, 4);
    assert_eq!(bed.committed("prepare", 20), vec![Some(0); 20]);
}

async fn refused(config: &KafkaConfig) -> Fault {
    let began = Instant::now();
    let fault = Kafka::connect(config, "test").await.err().expect("it is refused");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    println!("{fault}");
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_address_and_setting() {
    let bed = Bed::unmade();
    let closed = KafkaConfig { brokers: vec!["127.0.0.1:1".into()], ..bed.config.clone() };
    for fault in [refused(&closed).await, migrate(&closed).await.expect_err("nobody is there")] {
        assert_eq!(fault.code, Code::ServerUnavailable);
        assert!(fault.context.contains("127.0.0.1:1") && fault.context.contains("kafka.brokers"), "{fault}");
        assert!(fault.context.contains("refused"), "{fault}");
    }
    let nameless = KafkaConfig { brokers: vec!["no-such-host.invalid:9092".into()], ..bed.config.clone() };
    assert_eq!(refused(&nameless).await.code, Code::ServerUnavailable);
    let missing = refused(&bed.config).await;
    assert_eq!(missing.code, Code::ServerSchema);
    assert!(missing.context.contains(&bed.topic("delivery")), "{missing}");
    let few = bed.topic("delivery");
    let topic = NewTopic::new(&few, 12, TopicReplication::Fixed(1));
    bed.admin().create_topics([&topic], &AdminOptions::new()).await.expect("it is made")[0].as_ref().expect("it is made");
    // Brokers hear of a new topic a moment later.
    let made = || async { !refused(&bed.config).await.context.contains("missing") };
    until(Duration::from_secs(60), "the topic is known", made).await;
    for fault in [refused(&bed.config).await, migrate(&bed.config).await.expect_err("lanes are spread over 128")] {
        assert_eq!(fault.code, Code::ServerSchema);
        assert!(fault.context.contains(&few) && fault.context.contains("12 partitions"), "{fault}");
    }
    let copies = Bed::unmade();
    let fault = migrate(&KafkaConfig { replication: 3, ..copies.config.clone() }).await.expect_err("there is one broker");
    assert!(fault.code == Code::ConfigInvalid && fault.context.contains("kafka.replication"), "{fault}");
}
