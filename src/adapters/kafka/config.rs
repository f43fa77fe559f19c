//! How Kafka is reached, and what the fleet asks of it.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

use crate::adapters::secret::Secret;
use crate::model::schedule::seconds;

/// Brokers, topics, and how they are entered. Not used at all while `brokers` is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Some of the brokers, as `host:port`; the others are learned from them.
    pub brokers: Vec<String>,
    /// What the names of topics and groups begin with: `smsfleet` gives `smsfleet.prepare`, `.delivery` and `.mark`.
    pub topic_prefix: String,
    /// Copies of each partition that `smsfleet migrate` asks for.
    pub replication: u16,
    /// Partitions of the preparation topic that `smsfleet migrate` asks for: preparers beyond this number are idle. The
    /// delivery topic always has 128.
    pub prepare_partitions: u16,
    /// How connections are protected.
    pub security: Security,
    /// How the user proves who it is, with `sasl_plaintext` and `sasl_ssl`.
    pub mechanism: Mechanism,
    /// The user, with `sasl_plaintext` and `sasl_ssl`.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// A PEM file with the authorities to trust, with `ssl` and `sasl_ssl`; the system's when there is none.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client's own certificate, where the brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of that certificate.
    pub key: Option<PathBuf>,
    /// The password of that key, when it has one.
    pub key_password: Secret,
    /// Seconds after which a member that is not heard of is taken for dead and its partitions go to others. The brokers'
    /// own limits are usually 6 to 1800.
    #[serde(with = "seconds")]
    pub session_timeout: Duration,
    /// Seconds that one attempt to reach the brokers may take at start.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// A name of this process that stays the same when it starts again (a StatefulSet's ordinal, never a random one): it then
    /// gets its partitions back without a rebalance, but if it stays away they are served by nobody until the session time-out.
    pub instance_id: Option<String>,
}

impl Default for KafkaConfig {
    fn default() -> KafkaConfig {
        KafkaConfig {
            brokers: vec![],
            topic_prefix: "smsfleet".into(),
            replication: 3,
            prepare_partitions: 16,
            security: Security::default(),
            mechanism: Mechanism::default(),
            username: String::new(),
            password: Secret::default(),
            ca_file: None,
            certificate: None,
            key: None,
            key_password: Secret::default(),
            session_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            instance_id: None,
        }
    }
}

/// How connections are protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Not at all.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A login without encryption.
    SaslPlaintext,
    /// A login within TLS.
    SaslSsl,
}

impl Security {
    fn name(self) -> &'static str {
        match self {
            Security::Plaintext => "PLAINTEXT",
            Security::Ssl => "SSL",
            Security::SaslPlaintext => "SASL_PLAINTEXT",
            Security::SaslSsl => "SASL_SSL",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Security::Ssl | Security::SaslSsl)
    }

    fn has_login(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslSsl)
    }
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The password itself.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge and response over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge and response over SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The longest names of topics and groups stay below Kafka's limit of 249 characters.
const PREFIX_MAX: usize = 200;

impl KafkaConfig {
    /// Whether Kafka is used at all.
    pub fn is_used(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// What is wrong, as key and text.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut wrong = vec![];
        let mut refuse = |key: &str, text: &str| wrong.push((format!("kafka.{key}"), text.to_owned()));
        if self.brokers.iter().any(|broker| !is_address(broker)) {
            refuse("brokers", "has addresses such as \"kafka-1.example.com:9092\"");
        }
        let in_name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.topic_prefix.is_empty() || self.topic_prefix.len() > PREFIX_MAX || !self.topic_prefix.bytes().all(in_name) {
            refuse("topic_prefix", "has up to 200 letters, digits, dots, _ and -");
        }
        if self.replication == 0 || self.replication > 100 {
            refuse("replication", "is 1 to 100");
        }
        if !(1..=256).contains(&self.prepare_partitions) {
            refuse("prepare_partitions", "is 1 to 256");
        }
        if self.security.has_login() && (self.username.is_empty() || self.password.is_empty()) {
            refuse("username", "and kafka.password are needed when kafka.security begins with sasl");
        }
        if !self.security.has_login() && !self.username.is_empty() {
            refuse("security", "does not begin with sasl: kafka.username would not be used");
        }
        let has_files = self.ca_file.is_some() || self.certificate.is_some() || self.key.is_some();
        if !self.security.has_tls() && has_files {
            refuse("security", "is neither ssl nor sasl_ssl: kafka.ca_file, certificate and key would not be used");
        }
        if self.certificate.is_some() != self.key.is_some() {
            refuse("certificate", "and kafka.key are given both or not at all");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.session_timeout) {
            refuse("session_timeout", "is 1 to 300 seconds; brokers usually want 6 at least");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(120)).contains(&self.connect_timeout) {
            refuse("connect_timeout", "is 1 to 120 seconds");
        }
        if self.instance_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > PREFIX_MAX || !id.bytes().all(in_name)) {
            refuse("instance_id", "has up to 200 letters, digits, dots, _ and -");
        }
        wrong
    }

    /// The addresses, for texts.
    pub(super) fn addresses(&self) -> String {
        self.brokers.join(",")
    }

    /// What every client is told.
    pub(super) fn client(&self, client_id: &str) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", self.addresses())
            .set("client.id", client_id)
            .set("security.protocol", self.security.name())
            // Brokers close idle connections: that is no news.
            .set("log.connection.close", "false")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set_log_level(RDKafkaLogLevel::Info);
        if self.security.has_login() {
            settings.set("sasl.mechanism", self.mechanism.name());
            settings.set("sasl.username", &self.username).set("sasl.password", self.password.expose());
        }
        if self.security.has_tls() {
            // The TLS library is part of this program and knows no system: it looks for the authorities where systems have them.
            settings.set("ssl.ca.location", path(self.ca_file.as_ref()).unwrap_or_else(|| "probe".into()));
            for (setting, file) in [("ssl.certificate.location", &self.certificate), ("ssl.key.location", &self.key)] {
                if let Some(file) = path(file.as_ref()) {
                    settings.set(setting, file);
                }
            }
            if !self.key_password.is_empty() {
                settings.set("ssl.key.password", self.key_password.expose());
            }
        }
        settings
    }

    /// What the producer is told: nothing is lost or changes its place, and a batch of tokens goes out at once.
    pub(super) fn producer(&self, client_id: &str) -> ClientConfig {
        let mut settings = self.client(client_id);
        settings
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("delivery.timeout.ms", "30000");
        settings
    }

    /// What a client is told that reads a group's offsets or commits for it without being a member.
    pub(super) fn group(&self, client_id: &str, group: &str) -> ClientConfig {
        let mut settings = self.client(client_id);
        settings.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        settings
    }

    /// What a member of a group is told. Memory and fetching as measured: a small queue, filled again at once.
    pub(super) fn member(&self, client_id: &str, group: &str) -> ClientConfig {
        let heartbeat = (self.session_timeout / 10).clamp(Duration::from_millis(200), Duration::from_secs(3));
        let mut settings = self.group(client_id, group);
        settings
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", heartbeat.as_millis().to_string())
            .set("max.poll.interval.ms", self.session_timeout.max(Duration::from_secs(300)).as_millis().to_string())
            // A broker that has just started may not know its topics yet. Whoever hears that while joining its group waits for the
            // next look at the topics: five minutes, if nobody says otherwise.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "10");
        if let Some(id) = &self.instance_id {
            settings.set("group.instance.id", id);
        }
        settings
    }
}

fn path(file: Option<&PathBuf>) -> Option<String> {
    file.map(|file| file.to_string_lossy().into_owned())
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains([',', '/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secured() -> KafkaConfig {
        KafkaConfig {
            brokers: vec!["kafka-1.example.com:9093".into(), "[::1]:9093".into()],
            security: Security::SaslSsl,
            username: "fleet".into(),
            password: Secret::new("x"),
            ..KafkaConfig::default()
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        assert_eq!(secured().check(), vec![]);
        assert_eq!(KafkaConfig::default().check(), vec![], "not used at all");
        let wrong = |change: fn(&mut KafkaConfig)| {
            let mut config = secured();
            change(&mut config);
            config.check().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(wrong(|c| c.brokers = vec!["localhost".into()]), ["kafka.brokers"]);
        assert_eq!(wrong(|c| c.brokers = vec!["a:1,b:2".into()]), ["kafka.brokers"]);
        assert_eq!(wrong(|c| c.topic_prefix = "a b".into()), ["kafka.topic_prefix"]);
        assert_eq!(wrong(|c| c.replication = 0), ["kafka.replication"]);
        assert_eq!(wrong(|c| c.prepare_partitions = 257), ["kafka.prepare_partitions"]);
        assert_eq!(wrong(|c| c.password = Secret::default()), ["kafka.username"]);
        assert_eq!(wrong(|c| c.security = Security::Ssl), ["kafka.security"], "a user that nobody asks for");
        assert_eq!(
            wrong(|c| (c.security, c.ca_file) = (Security::SaslPlaintext, Some("ca.pem".into()))),
            ["kafka.security"],
            "authorities without TLS"
        );
        assert_eq!(wrong(|c| c.certificate = Some("client.pem".into())), ["kafka.certificate"]);
        assert_eq!(wrong(|c| c.session_timeout = Duration::from_millis(900)), ["kafka.session_timeout"]);
        assert_eq!(wrong(|c| c.connect_timeout = Duration::ZERO), ["kafka.connect_timeout"]);
        assert_eq!(wrong(|c| c.instance_id = Some(String::new())), ["kafka.instance_id"]);
    }

    #[test]
    fn clients_are_told_what_the_configuration_says() {
        let settings = secured().client("w1");
        let get = |key: &str| settings.get(key).unwrap_or_default().to_owned();
        assert_eq!(get("bootstrap.servers"), "kafka-1.example.com:9093,[::1]:9093");
        assert_eq!([get("security.protocol"), get("sasl.mechanism")], ["SASL_SSL", "SCRAM-SHA-512"]);
        assert_eq!([get("sasl.username"), get("sasl.password")], ["fleet", "x"]);
        assert_eq!(get("ssl.ca.location"), "probe");
        let client_tls = KafkaConfig {
            security: Security::Ssl,
            ca_file: Some("ca.pem".into()),
            certificate: Some("client.pem".into()),
            key: Some("client.key".into()),
            key_password: Secret::new("y"),
            ..KafkaConfig::default()
        };
        let settings = client_tls.client("w1");
        let get = |key: &str| settings.get(key).unwrap_or_default().to_owned();
        assert_eq!([get("security.protocol"), get("sasl.username")], ["SSL", ""]);
        assert_eq!([get("ssl.ca.location"), get("ssl.certificate.location")], ["ca.pem", "client.pem"]);
        assert_eq!([get("ssl.key.location"), get("ssl.key.password")], ["client.key", "y"]);
        let settings = KafkaConfig { instance_id: Some("deliver-0".into()), ..secured() }.member("w1", "g");
        let get = |key: &str| settings.get(key).unwrap_or_default().to_owned();
        assert_eq!([get("session.timeout.ms"), get("heartbeat.interval.ms")], ["10000", "1000"]);
        assert_eq!([get("group.id"), get("group.instance.id")], ["g", "deliver-0"]);
    }

    #[test]
    fn every_setting_is_known_to_the_client_library() {
        let plain = KafkaConfig { brokers: vec!["127.0.0.1:1".into()], ..KafkaConfig::default() };
        for config in [plain, secured()] {
            for settings in [config.producer("w1"), config.group("w1", "g"), config.member("w1", "g")] {
                settings.create_native_config().expect("every key and value is one of the library's");
            }
        }
    }

    #[test]
    fn it_is_written_and_read_with_its_secrets_hidden() {
        let text = toml::to_string(&secured()).expect("it is written");
        assert!(text.contains("security = \"sasl_ssl\"") && text.contains("mechanism = \"SCRAM-SHA-512\""), "{text}");
        assert!(text.contains("password = \"***\""), "{text}");
        let read: KafkaConfig = toml::from_str("brokers = [\"a:1\"]\nmechanism = \"PLAIN\"").expect("it is read");
        assert_eq!((read.mechanism, read.prepare_partitions), (Mechanism::Plain, 16));
        assert!(toml::from_str::<KafkaConfig>("brokres = []").is_err());
    }
}
