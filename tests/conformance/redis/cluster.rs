//! A Cluster: every adapter works when its keys lie on different nodes.

use std::process::Command;
use std::time::{Duration, Instant};

use smsfleet::adapters::memory::budget::BudgetedPacks;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::redis::budget::RedisBudget;
use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::config::{RedisConfig, RedisMode};
use smsfleet::adapters::redis::lease::RedisLease;
use smsfleet::adapters::redis::rates::RedisRates;
use smsfleet::adapters::redis::tallies::RedisTallies;
use smsfleet::model::id::BatchId;
use smsfleet::model::throughput::WriteBudget;
use smsfleet::ports::budget::Budget;
use smsfleet::ports::lease::Lease;
use smsfleet::ports::rates::{Grant, Rates};
use smsfleet::ports::tallies::{Tallies, Tally};
use smsfleet::runtime::task::Tasks;

use super::server::Server;
use super::{config, until, world};
use crate::servers::free_port;

/// Three primaries that share the slots.
fn cluster() -> Vec<Server> {
    let node = |_| {
        Server::start(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string(), "--cluster-node-timeout", "2000"])
    };
    let nodes: Vec<Server> = (0..3).map(node).collect();
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(nodes.iter().map(Server::address)).arg("--cluster-yes");
    let made = create.output().expect("redis-cli is installed: tests/run does that");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    let began = Instant::now();
    while !nodes.iter().all(|node| node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")) {
        assert!(began.elapsed() < Duration::from_secs(10), "the Cluster does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_adapter_works_over_many_slots() {
    let nodes = tokio::task::spawn_blocking(cluster).await.expect("it comes up");
    let single = config(&nodes[0].address());
    let cluster = RedisConfig { mode: RedisMode::Cluster, ..single.clone() };
    let redis = Redis::connect(&cluster, 1).await.expect("the Cluster is there");
    let tasks = Tasks::default();

    let lease = RedisLease::new(redis.clone());
    for name in 0..12u64 {
        let name = format!("leader {name}");
        assert_eq!(lease.acquire(&name, 1, Duration::from_secs(60)).await, Ok(true), "{name}");
        assert_eq!(lease.acquire(&name, 2, Duration::from_secs(60)).await, Ok(false), "{name}");
    }
    let accounts: Vec<String> = (0..8).map(|n| format!("account{n}")).collect();
    let rates = RedisRates::new(redis.clone(), world(), accounts.iter().map(|name| (name.clone(), Some(500))), &tasks);
    for account in &accounts {
        let clock = world().clock;
        until("a grant", || matches!(rates.take(account, 5, clock.boot()), Grant::Take(_))).await;
    }
    let (here, there) = (RedisTallies::new(redis.clone(), &tasks), RedisTallies::new(redis.clone(), &tasks));
    for batch in 0..8 {
        here.add(BatchId(batch), Tally::Prepared, 3);
    }
    until("all counts", || (0..8).all(|batch| there.read(BatchId(batch), Tally::Prepared) == 3)).await;

    let budget = RedisBudget::new(redis.clone(), world(), &tasks);
    let packs = BudgetedPacks::new(MemoryStore::new(world().chance).stores().packs);
    budget.writer(packs.clone());
    budget.leader().publish(WriteBudget { capacity: 700.0, packs_per_second: 350.0 });
    until("the budget", || packs.current().packs_per_second == 350.0).await;

    let spread = nodes.iter().filter(|node| node.ask(&["DBSIZE"]) != "0").count();
    assert_eq!(spread, 3, "the keys lie on all nodes");
    tasks.abort_all();

    // Reached as one server, a node says what it is.
    let mut told = Vec::new();
    for node in &nodes {
        let single = RedisConfig { nodes: vec![node.address()], ..single.clone() };
        told.extend(Redis::connect(&single, 1).await.err());
    }
    assert_eq!(told.len(), 2, "the probe's key lies on one of three");
    assert!(told.iter().all(|fault| fault.context.contains("redis.mode")), "{told:?}");
    let lone = Server::start(&[]);
    let fault = Redis::connect(&RedisConfig { nodes: vec![lone.address()], ..cluster }, 1).await.err().expect("it is no Cluster");
    assert!(fault.context.contains("redis.mode"), "{fault}");
}
