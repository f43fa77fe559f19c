//! What is followed, and who is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::schedule::seconds;

/// Traces for a collector that speaks OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// The collector's address, such as `http://127.0.0.1:4318/v1/traces`; nothing is followed without it.
    pub endpoint: Option<String>,
    /// The share of batches that are followed, 0 to 1; the same in every process.
    pub sample: f64,
    /// Of a batch that is followed, the share of recipients that have spans of their own; the same in every process.
    pub recipients: f64,
    /// The name under which the collector shows them.
    pub service_name: String,
    /// Seconds that handing over may take.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

impl Default for TraceConfig {
    fn default() -> TraceConfig {
        TraceConfig {
            endpoint: None,
            sample: 0.01,
            recipients: 0.001,
            service_name: "smsfleet".into(),
            timeout: Duration::from_secs(5),
        }
    }
}

impl TraceConfig {
    /// What is wrong with it, if anything: the key and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let no = |key, text: &str| Err((key, text.to_owned()));
        if self.endpoint.as_ref().is_some_and(|endpoint| address(endpoint).is_none()) {
            return no("endpoint", "is an address that begins with http:// or https://, without a user name");
        }
        if !(0.0..=1.0).contains(&self.sample) {
            return no("sample", "is a share from 0 to 1");
        }
        if !(0.0..=1.0).contains(&self.recipients) {
            return no("recipients", "is a share from 0 to 1");
        }
        if self.service_name.is_empty() {
            return no("service_name", "is not empty");
        }
        if self.timeout.is_zero() {
            return no("timeout", "is more than 0 seconds");
        }
        Ok(())
    }
}

/// An address with the path that collectors have, where it names none; `None` when it is none.
pub(super) fn address(endpoint: &str) -> Option<String> {
    let mut url = url::Url::parse(endpoint).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_with_its_key() {
        let with = |change: fn(&mut TraceConfig)| {
            let mut config = TraceConfig::default();
            change(&mut config);
            config.check().err().map(|(key, _)| key)
        };
        assert_eq!(with(|_| {}), None);
        assert_eq!(with(|c| c.endpoint = Some("https://collector:4318".into())), None);
        for wrong in ["collector:4318", "ftp://collector", "http://user:pass@collector", ""] {
            assert_eq!(
                TraceConfig { endpoint: Some(wrong.into()), ..TraceConfig::default() }.check().err().map(|(key, _)| key),
                Some("endpoint")
            );
        }
        assert_eq!(with(|c| c.sample = 1.1), Some("sample"));
        assert_eq!(with(|c| c.sample = f64::NAN), Some("sample"));
        assert_eq!(with(|c| c.recipients = -0.1), Some("recipients"));
        assert_eq!(with(|c| c.service_name.clear()), Some("service_name"));
        assert_eq!(with(|c| c.timeout = Duration::ZERO), Some("timeout"));
        assert_eq!(address("http://c:4318").as_deref(), Some("http://c:4318/v1/traces"));
        assert_eq!(address("http://c:4318/other").as_deref(), Some("http://c:4318/other"));
    }
}
