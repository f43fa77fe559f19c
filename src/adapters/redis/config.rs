//! How Redis is reached.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::adapters::secret::Secret;
use crate::model::schedule::seconds;

/// Where Redis is, and how it is entered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// Addresses as `host:port`: the server, or the Sentinels, or some nodes of the Cluster. Without any Redis is not used.
    pub nodes: Vec<String>,
    /// What the addresses are.
    pub mode: RedisMode,
    /// With Sentinels: the name they know the primary by.
    pub master_name: String,
    /// The user of the server's access list; empty for the default user. It needs `~PREFIX:* +@read +@write +@scripting
    /// +@connection +time`, behind Sentinels `+role` too, and on a Cluster `+cluster`.
    pub username: String,
    /// The user's password; empty when the server asks for none.
    pub password: Secret,
    /// The user at the Sentinels themselves, which have users of their own.
    pub sentinel_username: String,
    /// The password at the Sentinels.
    pub sentinel_password: Secret,
    /// The database's number; a Cluster has only 0.
    pub database: u32,
    /// TLS.
    pub tls: RedisTls,
    /// What the fleet's keys begin with, so that two fleets can share a server.
    pub prefix: String,
    /// Seconds that connecting may take, login included.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds that one answer may take. Then nobody knows whether the command was carried out.
    #[serde(with = "seconds")]
    pub response_timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            nodes: Vec::new(),
            mode: RedisMode::default(),
            master_name: "mymaster".into(),
            username: String::new(),
            password: Secret::default(),
            sentinel_username: String::new(),
            sentinel_password: Secret::default(),
            database: 0,
            tls: RedisTls::default(),
            prefix: "smsfleet".into(),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
        }
    }
}

/// What the addresses in the configuration are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// Sentinels, which know where the primary is.
    Sentinel,
    /// Nodes of a Cluster, which know the others.
    Cluster,
}

/// TLS towards Redis, and towards Sentinels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTls {
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// A PEM file with the authorities to trust; the machine's own when there is none.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with our own certificate, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of `certificate`.
    pub key: Option<PathBuf>,
}

impl RedisConfig {
    /// Whether Redis is used at all.
    pub fn is_used(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// What is wrong with it: each with its key.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut wrong = vec![];
        let mut refuse = |key: &str, text: String| wrong.push((format!("redis.{key}"), text));
        for node in &self.nodes {
            if host_and_port(node).is_none() {
                refuse("nodes", format!("{node:?} is no address such as \"redis.example.com:6379\""));
            }
        }
        if self.mode == RedisMode::Single && self.nodes.len() > 1 {
            refuse("nodes", "is one address, or redis.mode is \"sentinel\" or \"cluster\"".into());
        }
        if self.mode == RedisMode::Sentinel && self.master_name.is_empty() {
            refuse("master_name", "is the name that the Sentinels know the primary by".into());
        }
        if self.mode == RedisMode::Cluster && self.database != 0 {
            refuse("database", "is 0 on a Cluster".into());
        }
        if !self.username.is_empty() && self.password.is_empty() {
            refuse("password", "is needed with redis.username".into());
        }
        if !self.sentinel_username.is_empty() && self.sentinel_password.is_empty() {
            refuse("sentinel_password", "is needed with redis.sentinel_username".into());
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            refuse("tls.certificate", "and redis.tls.key go together".into());
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if self.prefix.is_empty() || !self.prefix.chars().all(is_plain) {
            refuse("prefix", "has letters, digits, _, - and . only".into());
        }
        for (key, time) in [("connect_timeout", self.connect_timeout), ("response_timeout", self.response_timeout)] {
            if time < Duration::from_millis(100) || time > Duration::from_secs(60) {
                refuse(key, "is 0.1 to 60 seconds".into());
            }
        }
        wrong
    }
}

/// The two halves of `host:port`; a host of version 6 stands in brackets, which are taken off.
pub(super) fn host_and_port(node: &str) -> Option<(&str, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_fit = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@".contains(c));
    is_fit.then_some((host, port.parse().ok().filter(|port| *port != 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_its_passwords_are_not_printed() {
        let text = "nodes=['a:1','b:2']\nmode='sentinel'\npassword='geheim'\nsentinel_password='geheim'\nresponse_timeout=0.5\n\
                    [tls]\nenabled=true\nca_file='ca.pem'";
        let config: RedisConfig = toml::from_str(text).expect("it is valid");
        assert_eq!(config.response_timeout, Duration::from_millis(500));
        assert_eq!((config.mode, config.is_used(), config.check()), (RedisMode::Sentinel, true, vec![]));
        let printed = format!("{config:?}{}", toml::to_string(&config).expect("it is written"));
        assert!(!printed.contains("geheim"), "{printed}");
        assert!(toml::from_str::<RedisConfig>("node='x'").is_err(), "unknown keys are refused");
        assert!(!RedisConfig::default().is_used() && RedisConfig::default().check().is_empty());
    }

    #[test]
    fn addresses_are_taken_apart() {
        let cases = [
            ("redis:6379", Some(("redis", 6379))),
            ("[::1]:6379", Some(("::1", 6379))),
            ("::1:6379", None),
            ("[::1:6379", None),
            ("redis", None),
            ("redis:0", None),
            ("redis:66666", None),
            ("redis://host:1", None),
            (":1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_with_its_key() {
        type Change = fn(&mut RedisConfig);
        let cases: [(&str, Change); 9] = [
            ("redis.nodes", |c| c.nodes = vec!["redis".into()]),
            ("redis.nodes", |c| c.nodes = vec!["a:1".into(), "b:2".into()]),
            ("redis.master_name", |c| (c.mode, c.master_name) = (RedisMode::Sentinel, String::new())),
            ("redis.database", |c| (c.mode, c.database) = (RedisMode::Cluster, 1)),
            ("redis.password", |c| c.username = "fleet".into()),
            ("redis.sentinel_password", |c| c.sentinel_username = "fleet".into()),
            ("redis.tls.certificate", |c| c.tls.key = Some("key.pem".into())),
            ("redis.prefix", |c| c.prefix = "a{b}".into()),
            ("redis.response_timeout", |c| c.response_timeout = Duration::ZERO),
        ];
        for (key, change) in cases {
            let mut config = RedisConfig::default();
            change(&mut config);
            let wrong = config.check();
            assert!(wrong.len() == 1 && wrong[0].0 == key, "{key}: {wrong:?}");
        }
    }
}
