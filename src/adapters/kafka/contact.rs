//! What the client library says of its connections, said once: an outage is one line when it begins and one when it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;

/// Passes a line of the library on. It reports every attempt to connect: whoever waits for the broker hears of it from
/// [`Contact`], so that only what concerns the whole client is worth a line at all times.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(facility, line, "the Kafka client reports");
        }
        _ => tracing::debug!(facility, line, "the Kafka client reports"),
    }
}

/// Whether one client reaches the brokers, as far as it knows.
#[derive(Debug)]
pub(super) struct Contact {
    who: String,
    away: AtomicBool,
}

impl Contact {
    /// A client that was not heard of yet. `who` names it in log lines.
    pub(super) fn new(who: impl Into<String>) -> Contact {
        Contact { who: who.into(), away: AtomicBool::new(false) }
    }

    /// The library reports an error of its own.
    pub(super) fn failed(&self, code: RDKafkaErrorCode, reason: &str) {
        let is_outage = matches!(
            code,
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve
        );
        if is_outage && !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(who = self.who, error = ?code, reason, "Kafka is out of reach; it is waited for");
        } else {
            tracing::debug!(who = self.who, error = ?code, reason, "the Kafka client reports an error");
        }
    }

    /// The brokers answered.
    pub(super) fn works(&self) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(who = self.who, "Kafka answers again");
        }
    }
}
