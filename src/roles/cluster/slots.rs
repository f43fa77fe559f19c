//! A deliverer's side of bind slots: sessions are open while a slot is lent, and closed before its time ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::adapters::lent::Lent;
use crate::coordinate::slots;
use crate::model::id::WorkerId;
use crate::model::slot::Slots;
use crate::model::time::Timestamp;
use crate::ports::{Stores, World};

/// How often the slots are read.
const EVERY: Duration = Duration::from_secs(1);

/// A reading that takes longer is none: meanwhile a slot's time goes on. With the pause between two readings it is much less than
/// what a holder lets go before its time ends.
const READ_WITHIN: Duration = Duration::from_secs(1);
/// Sessions say good-bye within this, behind the answers they wait for.
const FAREWELL: Duration = Duration::from_secs(2);
/// Answers are waited for this long even when the slot's time is over, as it is after this machine stood still: those that have come
/// already are read. The other side refuses a session too many, and nobody can tell what became of a message without an answer.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// Follows the slots of these accounts until `stop`, each by itself: sessions that wait for their last answers keep no other
/// account's sessions. While the store does not answer, what was read last counts, up to the end of its time.
pub async fn follow(
    lent: BTreeMap<String, Arc<Lent>>,
    worker: WorkerId,
    stores: Stores,
    world: World,
    grace: Duration,
    stop: CancellationToken,
) {
    let of_one = lent
        .iter()
        .map(|(account, sessions)| Follower { account, sessions, worker, stores: &stores, world: &world, grace }.run(&stop));
    join_all(of_one).await;
    stop.cancelled().await;
}

/// Follows the slots of one account.
struct Follower<'a> {
    account: &'a str,
    sessions: &'a Lent,
    worker: WorkerId,
    stores: &'a Stores,
    world: &'a World,
    /// Answers of sessions that go back are waited for so long at most.
    grace: Duration,
}

impl Follower<'_> {
    async fn run(self, stop: &CancellationToken) {
        let account = self.account;
        let (mut slots, mut until) = (Slots::default(), None);
        loop {
            match tokio::time::timeout(READ_WITHIN, slots::read(self.stores, account)).await {
                Ok(Ok((read, _))) => {
                    until = read.until(self.worker).or(until);
                    slots = read;
                }
                Ok(Err(error)) => tracing::warn!(account, code = %error.code(), "the bind slots cannot be read"),
                Err(_) => tracing::warn!(account, "the bind slots take too long to be read"),
            }
            match (slots.holds(self.worker, self.world.clock.now()), self.sessions.is_open()) {
                (true, false) => match self.sessions.open() {
                    Ok(()) => tracing::info!(account, "a bind slot was lent to this worker"),
                    Err(fault) => tracing::error!(account, code = %fault.code, "sessions cannot be opened: {}", fault.context),
                },
                (false, true) => {
                    tracing::info!(account, "the bind slot goes back");
                    self.sessions.give_back(self.grace_until(until)).await;
                }
                _ => {}
            }
            if tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// How long answers may be waited for, so that the sessions are closed when the slot's time ends.
    fn grace_until(&self, until: Option<Timestamp>) -> Duration {
        let left = until.map_or(Duration::ZERO, |until| until.since(self.world.clock.now()));
        self.grace.min(left.saturating_sub(FAREWELL).max(LEAST_GRACE))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::slot::LENT_FOR;
    use crate::ports::StoreError;
    use crate::ports::control::Cas;
    use crate::ports::documents::{Document, Documents, Shelf};
    use crate::ports::provider::{Chunk, Health, Provider};

    const ME: WorkerId = WorkerId(1);

    /// Documents that may hang.
    struct Hanging(Arc<dyn Documents>, AtomicBool);

    #[async_trait::async_trait]
    impl Documents for Hanging {
        async fn get(&self, shelf: Shelf, name: &str) -> Result<Option<String>, StoreError> {
            if self.1.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            self.0.get(shelf, name).await
        }
        async fn insert(&self, shelf: Shelf, name: &str, body: &str) -> Result<Cas, StoreError> {
            self.0.insert(shelf, name, body).await
        }
        async fn replace(&self, shelf: Shelf, name: &str, expected: &str, body: &str) -> Result<Cas, StoreError> {
            self.0.replace(shelf, name, expected, body).await
        }
        async fn put(&self, shelf: Shelf, name: &str, body: &str) -> Result<(), StoreError> {
            self.0.put(shelf, name, body).await
        }
        async fn delete(&self, shelf: Shelf, name: &str) -> Result<(), StoreError> {
            self.0.delete(shelf, name).await
        }
        async fn list(&self, shelf: Shelf, prefix: &str, behind: Option<&str>, most: usize) -> Result<Vec<Document>, StoreError> {
            self.0.list(shelf, prefix, behind, most).await
        }
    }

    /// Sessions that wait as long as they may for an answer, and say when they were closed.
    struct Unanswered(Arc<Mutex<Vec<Instant>>>);

    #[async_trait::async_trait]
    impl Provider for Unanswered {
        async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
            Err(chunk)
        }
        fn health(&self) -> Health {
            Health::default()
        }
        fn window(&self) -> u32 {
            1
        }
        async fn close(&self, grace: Duration) {
            tokio::time::sleep(grace + FAREWELL).await;
            self.0.lock().expect("not poisoned").push(Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_sessions_are_closed_before_their_slots_end_however_long_the_store_and_the_answers_take() {
        for hangs in [false, true] {
            let chance = Arc::new(SeededChance::from_seed(1));
            let stores = MemoryStore::new(chance.clone()).stores();
            let documents = Arc::new(Hanging(stores.documents.clone(), AtomicBool::new(false)));
            let stores = Stores { documents: documents.clone(), ..stores };
            let world = World { clock: Arc::new(SimClock::new(Timestamp(0))), chance };
            let (begun, closed) = (Instant::now(), Arc::new(Mutex::new(vec![])));
            let mut lent = BTreeMap::new();
            for account in ["a", "b", "c"] {
                let slots = Slots::default().next(1, &[ME].into(), world.clock.now());
                let body = serde_json::to_string(&slots).expect("it is written");
                stores.documents.put(Shelf::Slots, account, &body).await.expect("stored");
                let closed = closed.clone();
                lent.insert(account.to_owned(), Lent::new(Box::new(move || Ok(Arc::new(Unanswered(closed.clone()))))));
            }
            let stop = CancellationToken::new();
            let grace = Duration::from_secs(5);
            let following = tokio::spawn(follow(lent.clone(), ME, stores, world, grace, stop.clone()));
            tokio::time::sleep(Duration::from_secs(15)).await;
            assert!(lent.values().all(|sessions| sessions.is_open()));
            documents.1.store(hangs, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(45)).await;
            let closed: Vec<Duration> = closed.lock().expect("not poisoned").iter().map(|at| *at - begun).collect();
            assert_eq!(closed.len(), 3, "store hangs: {hangs}");
            assert!(closed.iter().all(|after| *after <= LENT_FOR), "store hangs: {hangs}: {closed:?}");
            stop.cancel();
            following.await.expect("it ends in order");
        }
    }
}
