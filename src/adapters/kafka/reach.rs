//! One attempt to reach the brokers, and a precise word on what went wrong.
//!
//! The library retries for ever and reports causes beside the call that fails, so they are collected while the attempt runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config::KafkaConfig;
use super::contact::log_line;
use crate::model::code::{Code, Fault};

/// How long one question waits before causes are looked at.
const SLICE: Duration = Duration::from_millis(300);
/// Causes kept of one attempt.
const CAUSES_MAX: usize = 64;

/// Hears the causes.
#[derive(Default)]
pub(super) struct Witness(Mutex<Vec<(RDKafkaErrorCode, String)>>);

impl Witness {
    fn causes(&self) -> MutexGuard<'_, Vec<(RDKafkaErrorCode, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, code: RDKafkaErrorCode, text: &str) {
        let mut causes = self.causes();
        if causes.len() < CAUSES_MAX {
            causes.push((code, text.to_owned()));
        }
    }
}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // Why a connection was closed is told nowhere else.
        if facility == "FAIL" {
            let text = line.strip_prefix("[thrd:").and_then(|line| line.split_once("]: ")).map_or(line, |(_, text)| text);
            self.note(RDKafkaErrorCode::BrokerTransportFailure, text);
        }
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(code, reason);
        }
    }
}

impl ConsumerContext for Witness {}

/// A topic as the brokers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    /// Its partitions.
    pub(super) partitions: usize,
    /// Whether each of them has a leader.
    pub(super) is_led: bool,
}

/// A connection for questions about topics. Its calls block.
pub(super) struct Caller<'a> {
    config: &'a KafkaConfig,
    consumer: BaseConsumer<Witness>,
}

impl Caller<'_> {
    /// A client that has not called yet.
    pub(super) fn new<'a>(config: &'a KafkaConfig, client_id: &str) -> Result<Caller<'a>, Fault> {
        let mut settings = config.client(client_id);
        // A listener of another kind closes the connection without a word.
        settings.set("log.connection.close", "true");
        let consumer = settings.create_with_context(Witness::default());
        Ok(Caller { config, consumer: consumer.map_err(|error| unusable(&error))? })
    }

    /// What the brokers know of a topic; `None` when there is no such topic.
    pub(super) fn topic(&self, name: &str) -> Result<Option<Topic>, Fault> {
        let until = Instant::now() + self.config.connect_timeout;
        self.consumer.context().causes().clear();
        loop {
            if let Ok(metadata) = self.consumer.fetch_metadata(Some(name), SLICE)
                && let Some(topic) = metadata.topics().first()
            {
                match topic.error().map(RDKafkaErrorCode::from) {
                    None => {
                        let is_led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
                        return Ok(Some(Topic { partitions: topic.partitions().len(), is_led }));
                    }
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        let text =
                            format!("topic {name} at {}: the user may not use it (kafka.username)", self.config.addresses());
                        return Err(Fault::new(Code::ServerLogin, text));
                    }
                    Some(error) => self.consumer.context().causes().push((error, format!("topic {name}: {error}"))),
                }
            }
            self.listen();
            if let Some(fault) = verdict(self.config, &self.consumer.context().causes(), Instant::now() >= until) {
                return Err(fault);
            }
        }
    }

    /// Takes in what the library has reported so far, and gives it a moment when that is nothing.
    fn listen(&self) {
        let mut wait = Duration::from_millis(20);
        while self.consumer.poll(wait).is_some() {
            wait = Duration::ZERO;
        }
    }
}

/// What the causes amount to; `None` while it is worth to go on.
fn verdict(config: &KafkaConfig, causes: &[(RDKafkaErrorCode, String)], is_late: bool) -> Option<Fault> {
    let cause = |of: fn(RDKafkaErrorCode, &str) -> bool| {
        causes.iter().rev().find(|(code, text)| of(*code, text)).map(|(_, text)| text.as_str())
    };
    let fault =
        |code, text: &str, keys: &str| Some(Fault::new(code, format!("Kafka at {}: {text} ({keys})", config.addresses())));
    let is_login = |code, text: &str| {
        matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) && !is_guess(text)
    };
    if let Some(text) = cause(is_login) {
        return fault(Code::ServerLogin, text, "kafka.username, kafka.password, kafka.mechanism");
    }
    if let Some(text) = cause(|code, text| code == RDKafkaErrorCode::SSL && !is_guess(text)) {
        return fault(Code::ServerTls, text, "kafka.ca_file, kafka.security");
    }
    let is_down = cause(|code, _| code == RDKafkaErrorCode::AllBrokersDown).is_some();
    if !is_down && !is_late {
        return None;
    }
    if let Some(text) = cause(|_, text| is_guess(text)) {
        return fault(Code::ServerUnavailable, text, "kafka.security, kafka.brokers");
    }
    let last = cause(|code, _| code != RDKafkaErrorCode::AllBrokersDown);
    fault(Code::ServerUnavailable, last.unwrap_or("no answer in time"), "kafka.brokers")
}

/// A listener of another kind breaks the connection off, and the library says what it takes that for. A broker that stops at
/// that moment does the same, so that it is no reason to give up.
fn is_guess(text: &str) -> bool {
    ["Disconnected", "security.protocol", "broker listener?"].iter().any(|word| text.contains(word))
}

/// A client that the library refuses to make: the settings are at fault.
pub(super) fn unusable(error: &KafkaError) -> Fault {
    // The value of a setting may be a secret.
    let text = match error {
        KafkaError::ClientConfig(_, text, key, _) => format!("{key}: {text}"),
        other => other.to_string(),
    };
    let code = if text.contains("ssl.") { Code::ServerTls } else { Code::ConfigInvalid };
    let key = [
        ("ssl.ca.location", "kafka.ca_file"),
        ("ssl.certificate.location", "kafka.certificate"),
        ("ssl.key", "kafka.key"),
        ("sasl", "kafka.mechanism"),
        ("group.instance.id", "kafka.instance_id"),
    ];
    let key = key.iter().find(|(setting, _)| text.contains(setting)).map_or("kafka", |(_, key)| key);
    Fault::new(code, format!("{key}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(causes: &[(RDKafkaErrorCode, &str)], is_late: bool) -> Option<(Code, String)> {
        let config = KafkaConfig { brokers: vec!["a:1".into()], ..KafkaConfig::default() };
        let causes: Vec<_> = causes.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
        verdict(&config, &causes, is_late).map(|fault| (fault.code, fault.context))
    }

    #[test]
    fn causes_become_faults_that_name_address_and_setting() {
        let refused = (RDKafkaErrorCode::BrokerTransportFailure, "a:1/bootstrap: Connect failed: Connection refused");
        let down = (RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(judged(&[refused], false), None, "another broker may answer");
        let (code, text) = judged(&[refused, down], false).expect("nobody is left");
        assert_eq!(code, Code::ServerUnavailable);
        assert_eq!(text, "Kafka at a:1: a:1/bootstrap: Connect failed: Connection refused (kafka.brokers)");
        assert!(judged(&[], true).is_some_and(|(code, text)| code == Code::ServerUnavailable && text.contains("no answer")));
        let login = (RDKafkaErrorCode::Authentication, "SASL authentication error");
        let is =
            |judged: Option<(Code, String)>, code, key: &str| judged.is_some_and(|(c, text)| c == code && text.contains(key));
        assert!(is(judged(&[refused, login, down], false), Code::ServerLogin, "kafka.username"));
        let tls = (RDKafkaErrorCode::SSL, "SSL handshake failed: certificate verify failed");
        assert!(is(judged(&[tls, down], false), Code::ServerTls, "kafka.ca_file"));
        let kind = (RDKafkaErrorCode::BrokerTransportFailure, "might be caused by incorrect security.protocol configuration");
        assert!(is(judged(&[kind, down], false), Code::ServerUnavailable, "kafka.security"), "a guess is no reason to give up");
        let kind = (RDKafkaErrorCode::SSL, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?");
        assert_eq!(judged(&[kind], false), None);
        assert!(is(judged(&[kind, down], false), Code::ServerUnavailable, "kafka.security"));
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_named_without_its_value() {
        let config = KafkaConfig {
            brokers: vec!["127.0.0.1:1".into()],
            security: super::super::config::Security::Ssl,
            ca_file: Some("/no/such/file.pem".into()),
            ..KafkaConfig::default()
        };
        let fault = Caller::new(&config, "test").err().expect("there is no such file");
        assert!(fault.code == Code::ServerTls && fault.context.contains("kafka.ca_file"), "{fault}");
    }
}
