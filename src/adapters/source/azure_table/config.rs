//! How a storage account with tables is reached.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::adapters::secret::Secret;
use crate::adapters::source::address::is_table;
use crate::model::schedule::seconds;

/// An account of Azure Table Storage that lists may be read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureTableConfig {
    /// The storage account.
    pub account: String,
    /// Its address, such as `https://acme.table.core.windows.net`, which it is when empty.
    pub endpoint: String,
    /// The account's key, in Base64.
    pub secret: Secret,
    /// A shared access signature, instead of the key.
    pub sas: Secret,
    /// Tables that may be read; all of the account when empty.
    pub tables: Vec<String>,
    /// The only partition (`PartitionKey`) that is read; all without it.
    pub partition: Option<String>,
    /// Whether plain HTTP is allowed.
    pub allow_http: bool,
    /// A PEM file with the authorities to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Seconds that making a connection may take.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds that one request may take.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Seconds that a failing request is tried again.
    #[serde(with = "seconds")]
    pub retry_for: Duration,
}

impl Default for AzureTableConfig {
    fn default() -> AzureTableConfig {
        AzureTableConfig {
            account: String::new(),
            endpoint: String::new(),
            secret: Secret::default(),
            sas: Secret::default(),
            tables: vec![],
            partition: None,
            allow_http: false,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            // The service itself gives up after 30 seconds.
            request_timeout: Duration::from_secs(40),
            retry_for: Duration::from_secs(60),
        }
    }
}

impl AzureTableConfig {
    /// What is wrong with it, if anything: the key and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let no = |key, text: &str| Err((key, text.to_string()));
        // Azure's own have 3 to 24; an emulator's may be longer.
        let is_account =
            |name: &str| (3..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !is_account(&self.account) {
            return no("account", "names the storage account: 3 or more small letters and digits");
        }
        if self.secret.is_empty() == self.sas.is_empty() {
            return no("secret", "or sas is needed, and not both");
        }
        if !self.secret.is_empty() && STANDARD.decode(self.secret.expose().trim()).map_or(true, |key| key.len() < 16) {
            return no("secret", "is the account's key, in Base64 as the vendor shows it");
        }
        if !self.sas.is_empty() && !is_sas(self.sas.expose()) {
            return no("sas", "is a shared access signature: parameters such as sv=…&sig=…, without an address before them");
        }
        if !self.endpoint.is_empty() {
            let is_fit = url::Url::parse(&self.endpoint).is_ok_and(|url| {
                url.has_host()
                    && (url.scheme() == "https" || url.scheme() == "http" && self.allow_http)
                    && url.username().is_empty()
                    && url.query().is_none()
                    && url.fragment().is_none()
            });
            if !is_fit {
                return no(
                    "endpoint",
                    "is an address that begins with https://, or http:// with allow_http, and has no parameters",
                );
            }
        }
        if let Some(table) = self.tables.iter().find(|table| !is_table(table)) {
            return Err(("tables", format!("{table:?} is no table's name")));
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return no("request_timeout", "and connect_timeout are more than 0 seconds");
        }
        Ok(())
    }
}

/// Whether a text is what follows the `?` of a signed address.
fn is_sas(text: &str) -> bool {
    let text = text.trim().trim_start_matches('?');
    let plain = |b: u8| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}'".contains(&b);
    text.bytes().all(plain)
        && text.split('&').any(|pair| pair.starts_with("sig="))
        && text.split('&').all(|pair| pair.contains('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_with_its_key() {
        let whole = AzureTableConfig {
            account: "acme".into(),
            secret: Secret::new(STANDARD.encode([1; 64])),
            tables: vec!["people".into()],
            ..AzureTableConfig::default()
        };
        assert_eq!(whole.check(), Ok(()));
        let with = |change: fn(&mut AzureTableConfig)| {
            let mut config = whole.clone();
            change(&mut config);
            config.check().err().map(|(key, _)| key)
        };
        assert_eq!(with(|c| c.account = String::new()), Some("account"));
        assert_eq!(with(|c| c.account = "acme.evil.example/".into()), Some("account"));
        assert_eq!(with(|c| c.secret = Secret::default()), Some("secret"));
        assert_eq!(with(|c| c.secret = Secret::new("no Base64")), Some("secret"));
        assert_eq!(with(|c| c.sas = Secret::new("sv=1&sig=x")), Some("secret"));
        let sas = |text: &str| AzureTableConfig { secret: Secret::default(), sas: Secret::new(text), ..whole.clone() }.check();
        assert_eq!(sas("?sv=2019-02-02&tn=people&sp=r&sig=a%2Bb%3D"), Ok(()));
        for wrong in ["https://acme.table.core.windows.net/?sv=1&sig=x", "sv=2019-02-02", "sig=x&y", "sig=a#b"] {
            assert_eq!(sas(wrong).err().map(|(key, _)| key), Some("sas"), "{wrong}");
        }
        assert_eq!(with(|c| c.endpoint = "http://127.0.0.1:1/acme".into()), Some("endpoint"));
        assert_eq!(with(|c| c.endpoint = "https://acme.table.core.windows.net/?sv=1".into()), Some("endpoint"));
        assert_eq!(with(|c| (c.endpoint, c.allow_http) = ("http://127.0.0.1:1/acme".into(), true)), None);
        assert_eq!(with(|c| c.tables = vec!["a/b".into()]), Some("tables"));
        assert_eq!(with(|c| c.request_timeout = Duration::ZERO), Some("request_timeout"));
    }
}
