//! The servers of others that the cluster's tests run against: where they are. `tests/servers/up` starts them, `tests/run` calls it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The folder of the servers' addresses, logs and process ids.
pub fn folder() -> PathBuf {
    match std::env::var_os("SMSFLEET_SERVERS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/servers"),
    }
}

fn setting(name: &str) -> String {
    static SETTINGS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let text = std::fs::read_to_string(folder().join("env")).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    });
    let found = std::env::var(name).ok().or_else(|| settings.get(name).cloned());
    found.unwrap_or_else(|| panic!("{name} is not known: start the servers with tests/servers/up, or run tests/run, which does"))
}

/// Kafka, as host:port.
pub fn kafka() -> String {
    setting("SMSFLEET_TEST_KAFKA")
}

/// Cassandra's CQL port, as host:port.
pub fn cql() -> String {
    setting("SMSFLEET_TEST_CQL")
}

/// Redis, as host:port.
pub fn redis() -> String {
    setting("SMSFLEET_TEST_REDIS")
}

/// Azurite's tables, as host:port.
pub fn azurite() -> String {
    setting("SMSFLEET_TEST_AZURITE")
}

/// Azurite's account and its key.
pub fn azurite_account() -> (String, String) {
    (setting("SMSFLEET_TEST_AZURITE_ACCOUNT"), setting("SMSFLEET_TEST_AZURITE_KEY"))
}
