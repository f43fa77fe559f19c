//! The adapters over Redis: every script, the connection in all its kinds, and what a fleet rests on: rates that are exact
//! over many workers, and the loss of the server's memory in the middle.
//!
//! Tests that only need a server share the one of `tests/servers`, each under a prefix of its own. Tests that break
//! something start servers of their own, in a temporary folder, and end them by their process id.

pub mod server;

mod scripts;

mod client;
mod cluster;
mod sentinel;
mod tls;

mod figures;
mod rates;

use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::config::RedisConfig;
use smsfleet::adapters::system::{SeededChance, SystemClock};
use smsfleet::ports::World;
use smsfleet::ports::clock::Chance;

/// A configuration for one server, with a prefix of its own and patience for a busy machine.
pub fn config(address: &str) -> RedisConfig {
    RedisConfig {
        nodes: vec![address.to_owned()],
        prefix: format!("test-{:016x}", SeededChance::from_system().next()),
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        ..RedisConfig::default()
    }
}

pub async fn connect(config: &RedisConfig) -> Redis {
    Redis::connect(config, 1).await.expect("Redis is there")
}

/// The server that tests share, under a prefix of its own.
pub async fn shared() -> Redis {
    connect(&config(&crate::servers::redis())).await
}

/// This machine's clock, and chance of its own.
pub fn world() -> World {
    World { clock: Arc::new(SystemClock), chance: Arc::new(SeededChance::from_system()) }
}

/// Waits until something holds, which it has to within some seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}
