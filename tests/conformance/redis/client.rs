//! The connection: what is wrong is said exactly, and what breaks is made again.

use std::time::Duration;

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::config::RedisConfig;
use smsfleet::adapters::redis::lease::RedisLease;
use smsfleet::adapters::redis::scripts::RATE_LOAD;
use smsfleet::adapters::secret::Secret;
use smsfleet::model::code::{Code, Fault};
use smsfleet::ports::StoreError;
use smsfleet::ports::lease::Lease;

use super::server::{Server, ask};
use super::{config, connect};
use crate::servers::free_port;

const TTL: Duration = Duration::from_secs(60);

async fn refused(config: &RedisConfig) -> Fault {
    Redis::connect(config, 1).await.err().expect("it is refused")
}

fn names(fault: &Fault, code: Code, words: &[&str]) {
    assert_eq!(fault.code, code, "{fault}");
    for word in words {
        assert!(fault.context.contains(word), "{word} is not in: {fault}");
    }
}

#[tokio::test]
async fn a_login_is_needed_and_a_wrong_one_refused() {
    let server = Server::start(&["--requirepass", "right"]);
    let address = server.address();
    names(&refused(&config(&address)).await, Code::ServerLogin, &[&address, "redis.password", "NOAUTH"]);
    let wrong = RedisConfig { password: Secret::new("wrong"), ..config(&address) };
    let fault = refused(&wrong).await;
    names(&fault, Code::ServerLogin, &[&address, "redis.username", "redis.password"]);
    assert!(!fault.context.contains("wrong\"") && !fault.context.contains("right"), "no password is shown: {fault}");
    let right = RedisConfig { password: Secret::new("right"), ..config(&address) };
    connect(&right).await;
    let admin = RedisConfig { username: "nobody".into(), ..right.clone() };
    names(&refused(&admin).await, Code::ServerLogin, &["redis.username"]);
    let elsewhere = RedisConfig { database: 4_000, ..right };
    names(&refused(&elsewhere).await, Code::ServerUnavailable, &["redis.database"]);
}

#[tokio::test]
async fn a_user_without_rights_is_told_so() {
    let server = Server::start(&["--user", "reader", "on", ">geheim", "~*", "+ping", "+get"]);
    let config = RedisConfig { username: "reader".into(), password: Secret::new("geheim"), ..config(&server.address()) };
    names(&refused(&config).await, Code::ServerLogin, &["redis.username", "redis.prefix"]);
}

#[tokio::test]
async fn a_user_needs_no_more_rights_than_the_configuration_says() {
    let keys = "~fleet:*";
    let rights = ["--user", "fleet", "on", ">geheim", keys, "+@read", "+@write", "+@scripting", "+@connection", "+time"];
    let server = Server::start(&rights);
    let login = RedisConfig { username: "fleet".into(), password: Secret::new("geheim"), ..config(&server.address()) };
    let redis = connect(&RedisConfig { prefix: "fleet".into(), ..login }).await;
    assert_eq!(RedisLease::new(redis.clone()).acquire("leader", 1, TTL).await, Ok(true));
    let loaded = redis.run::<(String, String, u64, u64)>(&RATE_LOAD, &[redis.key("rate")], &[]).await;
    assert!(loaded.is_ok(), "{loaded:?}");
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_named() {
    let nobody = format!("127.0.0.1:{}", free_port());
    names(&refused(&config(&nobody)).await, Code::ServerUnavailable, &[&nobody, "redis.nodes", "nothing listens"]);
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = mute.local_addr().expect("it has an address").to_string();
    let hasty = RedisConfig {
        connect_timeout: Duration::from_millis(200),
        response_timeout: Duration::from_millis(200),
        ..config(&address)
    };
    names(&refused(&hasty).await, Code::ServerUnavailable, &[&address, "no answer", "redis.connect_timeout"]);
}

#[tokio::test]
async fn scripts_are_loaded_again_when_the_server_forgot_them() {
    let server = Server::start(&[]);
    let lease = RedisLease::new(connect(&config(&server.address())).await);
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));
    assert_eq!(server.ask(&["SCRIPT", "FLUSH", "SYNC"]), "OK");
    assert_eq!(lease.acquire("leader", 2, TTL).await, Ok(false), "NOSCRIPT is no answer for a caller");
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));
}

#[tokio::test]
async fn after_a_lost_answer_the_same_token_finds_its_lock() {
    let server = Server::start(&["--enable-debug-command", "local"]);
    let hasty = RedisConfig { response_timeout: Duration::from_secs(1), ..config(&server.address()) };
    let lease = RedisLease::new(connect(&hasty).await);
    assert_eq!(lease.acquire("warm", 1, TTL).await, Ok(true), "its script is loaded");
    let address = server.address();
    let asleep = std::thread::spawn(move || ask(&address, &["DEBUG", "SLEEP", "1.9"]));
    tokio::time::sleep(Duration::from_millis(150)).await;
    let lost = lease.acquire("leader", 1, TTL).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "it may have happened: {lost:?}");
    asleep.join().expect("it woke");
    assert_eq!(lease.acquire("leader", 2, TTL).await, Ok(false), "it did happen, though nobody heard of it");
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true), "the same token holds it");
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let mut server = Server::start(&[]);
    let redis = connect(&config(&server.address())).await;
    let lease = RedisLease::new(redis.clone());
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true), "a connection that died in between is not seen");
    server.kill();
    lease.acquire("leader", 1, TTL).await.expect_err("nobody is there");
    names(&redis.trouble().expect("it is known"), Code::ServerUnavailable, &[&server.address(), "redis.nodes"]);
    let _again = Server::start_at(server.port, &[]);
    let mut tries = 0;
    while lease.acquire("leader", 2, TTL).await != Ok(true) {
        tries += 1;
        assert!(tries < 100, "it does not come back: {:?}", redis.trouble());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(redis.trouble(), None);
}
