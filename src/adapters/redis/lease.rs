//! The leader's lock: a key that ends by itself.

use std::time::{Duration, Instant};

use super::client::Redis;
use super::scripts::{LEASE_ACQUIRE, LEASE_RELEASE};
use crate::ports::StoreError;
use crate::ports::lease::Lease;

/// A first attempt that failed faster than this met a connection that had died in the meantime, and is made once more.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Locks over Redis. After a failover a lock may be lost and taken by another: it is never what safety rests on.
#[derive(Clone)]
pub struct RedisLease(Redis);

impl RedisLease {
    /// Locks of this server.
    pub fn new(redis: Redis) -> RedisLease {
        RedisLease(redis)
    }

    fn key(&self, name: &str) -> String {
        self.0.key(&format!("lease:{name}"))
    }
}

#[async_trait::async_trait]
impl Lease for RedisLease {
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError> {
        let (keys, args) = ([self.key(name)], [token.to_string(), ttl.as_millis().max(1).to_string()]);
        let began = Instant::now();
        let mut answer = self.0.run::<i64>(&LEASE_ACQUIRE, &keys, &args).await;
        // Harmless, even if the first attempt was carried out: it is the same token.
        if matches!(answer, Err(StoreError::Unknown(_))) && began.elapsed() < AT_ONCE {
            answer = self.0.run(&LEASE_ACQUIRE, &keys, &args).await;
        }
        answer.map(|holds| holds == 1)
    }

    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError> {
        let (keys, args) = ([self.key(name)], [token.to_string()]);
        self.0.run::<i64>(&LEASE_RELEASE, &keys, &args).await.map(|_| ())
    }
}
