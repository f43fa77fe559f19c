//! The leader's lock, in memory and over Redis.

use std::time::Duration;

use smsfleet::adapters::memory::lease::MemoryLease;
use smsfleet::adapters::redis::lease::RedisLease;
use smsfleet::ports::lease::Lease;

use super::redis::server::ask;
use super::redis::shared;

/// Holds for ten units.
async fn one_holds_it_until_it_lets_go_or_falls_silent(lease: &dyn Lease, unit: Duration) {
    let ttl = unit * 10;
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(true));
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(false));
    assert_eq!(lease.acquire("other", 2, ttl).await, Ok(true), "another lock is another lock");
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(true), "the same token again, as after a lost answer");
    tokio::time::sleep(unit * 6).await;
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(true), "it renews");
    tokio::time::sleep(unit * 6).await;
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(false), "it was renewed six units ago");
    tokio::time::sleep(unit * 5).await;
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(true), "its time is over");
    lease.release("leader", 1).await.expect("a late release");
    assert_eq!(lease.acquire("leader", 3, ttl).await, Ok(false), "a late release takes nothing from the next one");
    lease.release("leader", 2).await.expect("a release");
    assert_eq!(lease.acquire("leader", 3, ttl).await, Ok(true));
    lease.release("leader", 3).await.expect("a release");
    lease.release("leader", 3).await.expect("a release of nothing");
}

/// A server may forget who holds a lock. Then it is the next one's, and whoever held it hears so when it renews.
async fn who_held_what_is_forgotten_hears_of_it_at_its_next_renewal(lease: &dyn Lease, forget: impl Fn()) {
    let ttl = Duration::from_secs(60);
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(true));
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(false));
    forget();
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(true), "nobody is known to hold it");
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(false), "it was another's meanwhile");
    lease.release("leader", 1).await.expect("a late release");
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(false), "it has nothing to give up any more");
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(true), "the next one renews");
    // Whoever renews before anybody else asks has not noticed anything.
    forget();
    assert_eq!(lease.acquire("leader", 2, ttl).await, Ok(true));
    assert_eq!(lease.acquire("leader", 1, ttl).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn in_memory() {
    one_holds_it_until_it_lets_go_or_falls_silent(&MemoryLease::new(), Duration::from_secs(1)).await;
}

#[tokio::test]
async fn over_redis() {
    let lease = RedisLease::new(shared().await);
    one_holds_it_until_it_lets_go_or_falls_silent(&lease, Duration::from_millis(200)).await;
}

#[tokio::test]
async fn what_memory_forgets_is_the_next_ones() {
    let lease = MemoryLease::new();
    let forget = || assert_eq!(lease.flush(), 1, "it was held");
    who_held_what_is_forgotten_hears_of_it_at_its_next_renewal(&lease, forget).await;
}

#[tokio::test]
async fn what_redis_forgets_is_the_next_ones() {
    let redis = shared().await;
    let key = redis.key("lease:leader");
    let forget = || assert_eq!(ask(&crate::servers::redis(), &["DEL", &key]), "1", "it was held");
    who_held_what_is_forgotten_hears_of_it_at_its_next_renewal(&RedisLease::new(redis), forget).await;
}
