//! The servers of others that the cluster's tests run against: where they are. `tests/servers/up` starts them, `tests/run` calls it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

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

/// A port for a server of a test's own.
pub fn free_port() -> u16 {
    let output = Command::new(script("free_port")).output().expect("the script runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    printed.trim().parse().unwrap_or_else(|_| panic!("no port is free: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Servers that a test started for itself: it may stop them. They stop with it.
pub struct Own(tempfile::TempDir);

impl Own {
    pub fn start(names: &[&str]) -> Own {
        let own = Own(tempfile::tempdir().expect("a folder"));
        run_script("up", own.0.path(), names);
        own
    }

    /// Where one of them is, by the name that `tests/servers/up` gives its address.
    pub fn address(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.0.path().join("env")).expect("the servers' addresses");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
    }

    /// Stops one of them, as an operator does, and starts it again with its data when it was `away` for so long.
    pub fn restart(&self, name: &str, away: Duration) {
        run_script("down", self.0.path(), &["--keep", name]);
        std::thread::sleep(away);
        run_script("up", self.0.path(), &[name]);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        run_script("down", self.0.path(), &[]);
    }
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}

fn run_script(name: &str, into: &Path, arguments: &[&str]) {
    let mut command = Command::new(script(name));
    // Jars are fetched once, for all.
    command.args(arguments).env("SMSFLEET_SERVERS", into).env("SMSFLEET_JARS", folder());
    let output = command.output().expect("the script runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}
