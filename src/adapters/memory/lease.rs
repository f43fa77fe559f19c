//! The leader's lock within one process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::StoreError;
use crate::ports::lease::Lease;

/// Locks by name: who holds each, and until when.
#[derive(Debug, Default)]
pub struct MemoryLease {
    held: Mutex<BTreeMap<String, (u64, Instant)>>,
}

impl MemoryLease {
    /// Nobody holds anything.
    pub fn new() -> MemoryLease {
        MemoryLease::default()
    }

    /// Forgets all locks, as a flushed server does. Gives back how many somebody held.
    pub fn flush(&self) -> usize {
        let now = Instant::now();
        std::mem::take(&mut *self.lock()).into_values().filter(|(_, until)| *until > now).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Instant)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Lease for MemoryLease {
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError> {
        let now = Instant::now();
        let mut held = self.lock();
        if held.get(name).is_some_and(|(holder, until)| *holder != token && *until > now) {
            return Ok(false);
        }
        held.insert(name.to_owned(), (token, now + ttl));
        Ok(true)
    }

    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError> {
        let mut held = self.lock();
        if held.get(name).is_some_and(|(holder, _)| *holder == token) {
            held.remove(name);
        }
        Ok(())
    }
}
