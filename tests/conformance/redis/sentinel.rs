//! Sentinels: the primary is found, and found again after a failover.

use std::time::{Duration, Instant};

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::config::{RedisConfig, RedisMode};
use smsfleet::adapters::redis::lease::RedisLease;
use smsfleet::model::code::Code;
use smsfleet::ports::lease::Lease;

use super::config;
use super::server::Server;

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_primary_is_followed() {
    let mut primary = Server::start(&[]);
    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]);
    let sentinel = Server::sentinel(primary.port);
    let config = RedisConfig { mode: RedisMode::Sentinel, ..config(&sentinel.address()) };
    let lease = RedisLease::new(Redis::connect(&config, 1).await.expect("the Sentinel knows the primary"));
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));

    let refused = async |config: RedisConfig| Redis::connect(&config, 1).await.err().expect("it is refused");
    let fault = refused(RedisConfig { master_name: "another".into(), ..config.clone() }).await;
    assert!(fault.code == Code::ServerUnavailable && fault.context.contains("redis.master_name"), "{fault}");
    let fault = refused(RedisConfig { nodes: vec![primary.address()], ..config.clone() }).await;
    assert!(fault.context.contains("redis.mode"), "a server is no Sentinel: {fault}");
    let fault = refused(RedisConfig { mode: RedisMode::Single, nodes: vec![replica.address()], ..config }).await;
    assert!(fault.context.contains("replica"), "{fault}");

    // The Sentinel must know the replica before the primary may die.
    let began = Instant::now();
    while !sentinel.ask(&["INFO", "sentinel"]).contains("slaves=1") {
        assert!(began.elapsed() < Duration::from_secs(15), "{}", sentinel.ask(&["INFO", "sentinel"]));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    primary.kill();
    let began = Instant::now();
    while lease.acquire("after", 1, TTL).await != Ok(true) {
        assert!(began.elapsed() < Duration::from_secs(15), "the replica is not found");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(replica.ask(&["ROLE"]).starts_with('*') && replica.ask(&["INFO", "replication"]).contains("role:master"));
}
