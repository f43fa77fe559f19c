//! A broker of the test's own: TLS and SCRAM, wrong settings against it, and its restart under a running fleet.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use smsfleet::adapters::kafka::{Kafka, KafkaConfig, Mechanism, Security, migrate};
use smsfleet::adapters::secret::Secret;
use smsfleet::model::code::Code;
use smsfleet::ports::queue::QueueEvent;

use super::bed::{SESSION, assigned, next, send, task};
use crate::servers::{self, free_port};

/// A broker in a folder of its own, ended with the test.
struct Broker {
    folder: tempfile::TempDir,
    /// With a login within TLS.
    port: u16,
    process: Option<Child>,
}

/// An authority, and files with it and with a certificate of its for 127.0.0.1.
fn authority(folder: &Path, name: &str) -> PathBuf {
    let mut params = CertificateParams::new(vec![]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, format!("the authority {name}"));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).expect("an address");
    // Not the authority's, or the certificate would look as if it had signed itself.
    params.distinguished_name.push(DnType::CommonName, "broker");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let file = folder.join(format!("{name}-authority.pem"));
    std::fs::write(&file, issuer.pem()).expect("it is written");
    std::fs::write(folder.join(format!("{name}.pem")), key.serialize_pem() + &certificate.pem()).expect("it is written");
    file
}

impl Broker {
    fn new() -> Broker {
        let folder = tempfile::tempdir().expect("a folder");
        authority(folder.path(), "broker");
        authority(folder.path(), "other");
        let (port, inner, controller) = (free_port(), free_port(), free_port());
        let here = folder.path().display();
        let settings = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=SECURE://127.0.0.1:{port},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=SECURE://127.0.0.1:{port},INNER://127.0.0.1:{inner}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=SECURE:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=INNER\n\
             listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.secure.ssl.keystore.type=PEM\n\
             listener.name.secure.ssl.keystore.location={here}/broker.pem\n\
             log.dirs={here}/data\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n\
             num.network.threads=2\n\
             num.io.threads=2\n\
             log.segment.bytes=16777216\n\
             log.index.size.max.bytes=1048576\n\
             log.cleaner.dedupe.buffer.size=8388608\n"
        );
        std::fs::write(folder.path().join("server.properties"), settings).expect("it is written");
        let broker = Broker { folder, port, process: None };
        let user = "SCRAM-SHA-512=[name=fleet,password=right]";
        let format = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "--add-scram", user, "-c"];
        let formatted = broker.java().args(format).arg(broker.settings()).output().expect("java runs");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        broker
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn java(&self) -> Command {
        let jars = servers::folder().join("kafka/lib");
        assert!(jars.is_dir(), "{} is missing: run tests/servers/up, which fetches it", jars.display());
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &format!("{}/*", jars.display())]);
        java.current_dir(self.folder.path()).stdin(Stdio::null());
        java
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let output = log.try_clone().expect("a log");
        let child = self.java().arg("kafka.Kafka").arg(self.settings()).stdout(output).stderr(log).spawn().expect("java runs");
        self.process = Some(child);
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "the broker did not start: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Without a warning.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn config(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: vec![format!("127.0.0.1:{}", self.port)],
            replication: 1,
            prepare_partitions: 1,
            security: Security::SaslSsl,
            mechanism: Mechanism::ScramSha512,
            username: "fleet".into(),
            password: Secret::new("right"),
            ca_file: Some(self.folder.path().join("broker-authority.pem")),
            session_timeout: SESSION,
            ..KafkaConfig::default()
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The code and text with which these settings are refused.
async fn refused(config: KafkaConfig) -> (Code, String) {
    let began = Instant::now();
    let fault = Kafka::connect(&config, "test").await.err().expect("it is refused");
    println!("after {:?}: {fault}", began.elapsed());
    assert!(!fault.context.contains("wrong-password"), "{fault}");
    (fault.code, fault.context)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_scram_work_and_a_broker_may_be_killed_and_come_back() {
    let mut broker = Broker::new();
    broker.start();
    let right = broker.config();
    // A broker that has just begun may not have loaded its users yet.
    let began = Instant::now();
    let report = loop {
        match migrate(&right).await {
            Ok(report) => break report,
            Err(fault) => assert!(began.elapsed() < Duration::from_secs(60), "{fault}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(report.created.len(), 3);

    let (code, text) = refused(KafkaConfig { password: Secret::new("wrong-password"), ..right.clone() }).await;
    assert!(code == Code::ServerLogin && text.contains("kafka.username"), "{text}");
    let (code, text) = refused(KafkaConfig { mechanism: Mechanism::Plain, ..right.clone() }).await;
    assert!(code == Code::ServerLogin && text.contains("kafka.mechanism"), "{text}");
    let other = broker.folder.path().join("other-authority.pem");
    let (code, text) = refused(KafkaConfig { ca_file: Some(other), ..right.clone() }).await;
    assert!(code == Code::ServerTls && text.contains("kafka.ca_file"), "{text}");
    // The system's authorities do not know it either.
    let (code, text) = refused(KafkaConfig { ca_file: None, ..right.clone() }).await;
    assert!(code == Code::ServerTls && text.contains("kafka.ca_file"), "{text}");
    let plain = KafkaConfig { security: Security::Plaintext, username: String::new(), ca_file: None, ..right.clone() };
    let (code, text) = refused(plain).await;
    // What the library makes of a listener that hangs up differs from time to time; the setting is named in any case.
    assert!(code == Code::ServerUnavailable && text.contains("kafka.security"), "{text}");

    let kafka = Kafka::connect(&right, "fleet").await.expect("it is let in");
    let member = kafka.join_delivery().expect("it joins");
    assigned(&member, 128).await;
    for partition in 0..10 {
        send(&kafka, partition, 0..5).await;
    }
    for _ in 0..50 {
        let (partition, offset, slice) = task(&member).await;
        assert_eq!(offset, u64::from(slice));
        member.commit(partition, offset).await.expect("all but the last are committed");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    broker.kill();
    let sender = kafka.sender();
    let sent = tokio::spawn(async move {
        let tasks = (0..10).map(|partition| (partition, super::bed::token(5))).collect();
        sender.send_delivery(tasks, None).await
    });
    // Longer than the session: the group takes the member for dead once it is back.
    let away = SESSION + Duration::from_secs(2);
    let still = tokio::time::timeout(away, member.recv()).await;
    println!("while the broker is away: {still:?}");
    assert!(matches!(still, Err(_) | Ok(Ok(QueueEvent::Revoked(_)))), "an outage is nothing worse than waiting");
    broker.start();
    let back = Instant::now();
    sent.await.expect("it ended well").expect("what was sent meanwhile arrives");
    let mut waiting: BTreeSet<(u8, u32)> = (0..10).map(|partition| (partition, 5)).collect();
    let mut repeated = 0;
    while !waiting.is_empty() {
        if let QueueEvent::Task { partition, offset, task, .. } = next(&member).await {
            assert_eq!(offset, u64::from(task.slice), "nothing is lost, nothing changes its place");
            repeated += u32::from(!waiting.remove(&(partition, task.slice)));
            member.commit(partition, offset + 1).await.expect("it is open");
        }
    }
    println!("{:?} after the broker came back everything is there, {repeated} for the second time", back.elapsed());
    assert!(repeated <= 10, "only what was not committed comes again");
    let end = Instant::now() + Duration::from_secs(20);
    while kafka.lag().await.map_or(1, |lag| lag.delivery) > 0 {
        assert!(Instant::now() < end, "commits work again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    member.leave().await;
}
