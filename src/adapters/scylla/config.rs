//! Where the CQL store is and how it is entered.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::adapters::secret::Secret;
use crate::model::schedule::seconds;

/// The longest name of a keyspace that both servers take.
const KEYSPACE_MAX: usize = 48;

/// A cluster of ScyllaDB or Apache Cassandra.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScyllaConfig {
    /// Some of its nodes as `host:port`; the others are found through them. None: this store is not used.
    pub nodes: Vec<String>,
    /// The keyspace with the fleet's tables: lower-case letters, digits and underscores.
    pub keyspace: String,
    /// The datacenter whose nodes are asked; without one all nodes are.
    pub datacenter: Option<String>,
    /// Copies of each row. Only `smsfleet migrate` uses it, when it makes the keyspace.
    pub replication: u32,
    /// Which server it is: they differ in a few options of the keyspace.
    pub flavour: Flavour,
    /// The user; empty where the cluster lets everybody in.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// TLS.
    pub tls: ScyllaTls,
    /// Seconds that connecting to a node may take.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds that one request may take. A write that takes longer may have happened or not.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Connections to each shard of a node (ScyllaDB), or to each node (Cassandra).
    pub connections: u32,
    /// Requests of this process that may be on their way at once.
    pub in_flight: u32,
    /// Milliseconds after which a read that was not answered is sent to a second node as well; without it never. Writes are
    /// never sent twice.
    pub speculative_ms: Option<u64>,
}

/// Which server speaks CQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// ScyllaDB. The keyspace is made without tablets, since conditional writes need that in several releases.
    #[default]
    Scylla,
    /// Apache Cassandra.
    Cassandra,
}

/// TLS towards the nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScyllaTls {
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// A PEM file with the authorities to trust; without one the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with this client's certificate, where the cluster asks for one.
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of `certificate`.
    pub key: Option<PathBuf>,
    /// Whether a node's certificate must name the address that it is reached at. Nodes are reached by their IP addresses,
    /// which not every certificate names; the certificate itself is checked in any case.
    pub verify_host: bool,
}

impl Default for ScyllaConfig {
    fn default() -> ScyllaConfig {
        ScyllaConfig {
            nodes: vec![],
            keyspace: "smsfleet".into(),
            datacenter: None,
            replication: 3,
            flavour: Flavour::default(),
            username: String::new(),
            password: Secret::default(),
            tls: ScyllaTls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            connections: 1,
            in_flight: 256,
            speculative_ms: None,
        }
    }
}

impl Default for ScyllaTls {
    fn default() -> ScyllaTls {
        ScyllaTls { enabled: false, ca_file: None, certificate: None, key: None, verify_host: true }
    }
}

impl ScyllaConfig {
    /// Whether this store is used at all.
    pub fn is_used(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Checks what serde cannot; each problem under its key, below `scylla`.
    pub fn check(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut say = |key: &str, text: &str| found.push((key.to_owned(), text.to_owned()));
        if !self.nodes.iter().all(|node| is_address(node)) {
            say("nodes", "each node is `host:port`, such as \"10.0.0.5:9042\"");
        }
        if !is_keyspace(&self.keyspace) {
            say("keyspace", "has 1 to 48 lower-case letters, digits and underscores, and begins with a letter");
        }
        if self.datacenter.as_deref().is_some_and(str::is_empty) {
            say("datacenter", "is the name of a datacenter, or left out");
        }
        if self.replication == 0 {
            say("replication", "begins at 1");
        }
        if self.username.is_empty() && !self.password.is_empty() {
            say("username", "is missing beside password");
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            say("tls.certificate", "and tls.key go together");
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            say("request_timeout", "and connect_timeout are more than 0 seconds");
        }
        if !(1..=64).contains(&self.connections) {
            say("connections", "is 1 to 64");
        }
        if !(1..=32_768).contains(&self.in_flight) {
            say("in_flight", "is 1 to 32768");
        }
        if self.speculative_ms == Some(0) {
            say("speculative_ms", "begins at 1, or is left out");
        }
        found
    }

    /// The nodes as people read them in an error.
    pub(super) fn addresses(&self) -> String {
        self.nodes.join(", ")
    }
}

fn is_address(node: &str) -> bool {
    node.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_keyspace(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=KEYSPACE_MAX).contains(&name.len()) && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_its_password_is_not_printed() {
        let text =
            "nodes=['db1:9042']\nflavour='cassandra'\nusername='u'\npassword='geheim'\nrequest_timeout=2.5\n[tls]\nenabled=true";
        let config: ScyllaConfig = toml::from_str(text).expect("it is valid");
        assert_eq!((config.flavour, config.request_timeout), (Flavour::Cassandra, Duration::from_millis(2_500)));
        assert!(config.is_used() && config.tls.enabled && config.tls.verify_host && config.check().is_empty());
        let printed = format!("{config:?}{}", toml::to_string(&config).expect("it is written"));
        assert!(!printed.contains("geheim"));
        assert!(toml::from_str::<ScyllaConfig>("node='x'").is_err(), "unknown keys are refused");
        assert!(!ScyllaConfig::default().is_used());
    }

    #[test]
    fn each_problem_is_named_by_its_key() {
        type Change = fn(&mut ScyllaConfig);
        let bad: [(&str, Change); 11] = [
            ("nodes", |c| c.nodes = vec!["db1".into()]),
            ("nodes", |c| c.nodes = vec!["db1:0".into()]),
            ("keyspace", |c| c.keyspace = "Fleet".into()),
            ("keyspace", |c| c.keyspace = "x; DROP".into()),
            ("replication", |c| c.replication = 0),
            ("username", |c| c.password = Secret::new("x")),
            ("tls.certificate", |c| c.tls.key = Some("k".into())),
            ("request_timeout", |c| c.request_timeout = Duration::ZERO),
            ("connections", |c| c.connections = 0),
            ("in_flight", |c| c.in_flight = 0),
            ("speculative_ms", |c| c.speculative_ms = Some(0)),
        ];
        for (key, change) in bad {
            let mut config = ScyllaConfig::default();
            change(&mut config);
            assert_eq!(config.check().iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [key]);
        }
    }
}
