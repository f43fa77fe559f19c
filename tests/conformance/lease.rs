//! The leader's lock.

use std::time::Duration;

use smsfleet::adapters::memory::lease::MemoryLease;
use smsfleet::ports::lease::Lease;

const TTL: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn one_holds_it_until_it_lets_go_or_falls_silent() {
    let lease: &dyn Lease = &MemoryLease::new();
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));
    assert_eq!(lease.acquire("leader", 2, TTL).await, Ok(false));
    assert_eq!(lease.acquire("other", 2, TTL).await, Ok(true), "another lock is another lock");
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true), "the same token again renews");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(lease.acquire("leader", 1, TTL).await, Ok(true));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(lease.acquire("leader", 2, TTL).await, Ok(false), "it was renewed nine seconds ago");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(lease.acquire("leader", 2, TTL).await, Ok(true), "its time is over");
    lease.release("leader", 1).await.expect("a late release");
    assert_eq!(lease.acquire("leader", 3, TTL).await, Ok(false), "a late release takes nothing from the next one");
    lease.release("leader", 2).await.expect("a release");
    assert_eq!(lease.acquire("leader", 3, TTL).await, Ok(true));
}
