//! A namespace on the servers of a cluster: a keyspace, a prefix of topics, a prefix of keys. Whatever runs in one of its own
//! never meets the fleet whose servers it shares, and can be removed whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapters;
use crate::model::code::{Code, Fault};
use crate::roles::config::Config;

/// What names of namespaces begin with that may be removed: nobody's real fleet is called so.
pub const BEGINS: &str = "drill_";
/// Brokers keep a group for as long as they take a killed member for alive, and a little longer.
const GROUPS_WITHIN: Duration = Duration::from_secs(20);
/// Between two attempts to remove.
const AGAIN: Duration = Duration::from_secs(1);

/// The keys of the configuration that move a fleet into a namespace, with their values.
pub fn keys(name: &str) -> [(String, String); 3] {
    ["scylla.keyspace", "kafka.topic_prefix", "redis.prefix"].map(|key| (key.to_owned(), name.to_owned()))
}

/// The same configuration in a namespace.
pub fn moved(config: &Config, name: &str) -> Config {
    let mut config = config.clone();
    for place in [&mut config.scylla.keyspace, &mut config.kafka.topic_prefix, &mut config.redis.prefix] {
        name.clone_into(place);
    }
    config
}

/// Whether this is the name of a namespace that may be removed.
pub fn is_removable(name: &str) -> bool {
    let rest = name.strip_prefix(BEGINS).unwrap_or_default();
    !rest.is_empty() && rest.len() <= 32 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Removes the namespace that a configuration is in: its topics and groups, then its tables. Its keys in Redis end by
/// themselves within a week. Done a second time it does nothing.
///
/// # Errors
/// [`Code::ConfigInvalid`] when it is not one that may be removed; or what a server refuses.
pub async fn remove(config: &Config) -> Result<(), Fault> {
    let names = [&config.scylla.keyspace, &config.kafka.topic_prefix, &config.redis.prefix];
    if let Some(name) = names.into_iter().find(|name| !is_removable(name)) {
        return Err(Fault::new(Code::ConfigInvalid, format!("{name:?} is no namespace of a drill: it is not removed")));
    }
    let until = Instant::now() + config.kafka.session_timeout + GROUPS_WITHIN;
    loop {
        match adapters::kafka::remove(&config.kafka).await {
            Ok(()) => break,
            Err(fault) if fault.code.retryable() && Instant::now() < until => tokio::time::sleep(AGAIN).await,
            Err(fault) => return Err(fault),
        }
    }
    adapters::scylla::remove(&config.scylla).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_namespaces_of_drills_are_removed() {
        for (name, removable) in
            [("drill_1f3a", true), ("drill_", false), ("smsfleet", false), ("drill", false), ("drill_a; DROP", false)]
        {
            assert_eq!(is_removable(name), removable, "{name}");
        }
        let mut config = moved(&Config::default(), "drill_1f3a");
        config.redis.prefix = Config::default().redis.prefix;
        let refused = remove(&config).await.map_err(|fault| (fault.code, fault.context));
        assert!(matches!(&refused, Err((Code::ConfigInvalid, why)) if why.contains("\"smsfleet\"")), "{refused:?}");
    }
}
