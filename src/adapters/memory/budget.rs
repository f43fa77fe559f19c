//! The write budget of one process: packs go to the store no faster than the leader allows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::pack::{PackHead, PackKey, SmsDeliveryPack};
use crate::model::throughput::{Load, WriteBudget};
use crate::ports::StoreError;
use crate::ports::budget::Budget;
use crate::ports::packs::Packs;

/// Packs behind a budget.
pub struct BudgetedPacks {
    inner: Arc<dyn Packs>,
    state: Mutex<State>,
}

struct State {
    budget: WriteBudget,
    load: Load,
    looked: Instant,
    /// When the next pack may be written.
    free_at: Instant,
}

impl BudgetedPacks {
    /// `inner` behind the first budget.
    pub fn new(inner: Arc<dyn Packs>) -> Arc<BudgetedPacks> {
        let now = Instant::now();
        let state = State { budget: WriteBudget::default(), load: Load::default(), looked: now, free_at: now };
        Arc::new(BudgetedPacks { inner, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long these packs have to wait. A short burst is free.
    fn wait_for(&self, packs: usize) -> Duration {
        let mut state = self.state();
        let now = Instant::now();
        let takes = Duration::from_secs_f64(packs as f64 / state.budget.packs_per_second);
        let burst = Duration::from_millis(100);
        let begin = state.free_at.max(now.checked_sub(burst).unwrap_or(now));
        state.free_at = begin + takes;
        begin.saturating_duration_since(now)
    }
}

#[async_trait::async_trait]
impl Packs for BudgetedPacks {
    async fn put(&self, packs: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
        let count = packs.len();
        let wait = self.wait_for(count);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let began = Instant::now();
        let written = self.inner.put(packs).await;
        let mut state = self.state();
        state.load.slowest = state.load.slowest.max(began.elapsed());
        match &written {
            Ok(()) => state.load.packs += count as u64,
            // A store with too much to do refuses, or does not answer in time.
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => state.load.overloads += 1,
            // A full disk, or a row that cannot be read, gets no better by writing less.
            Err(StoreError::Full(_) | StoreError::Corrupt(_)) => {}
        }
        written
    }

    async fn head(&self, key: PackKey) -> Result<Option<PackHead>, StoreError> {
        self.inner.head(key).await
    }

    async fn get(&self, key: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
        self.inner.get(key).await
    }
}

impl Budget for BudgetedPacks {
    fn load(&self) -> Load {
        let mut state = self.state();
        let now = Instant::now();
        let over = now.saturating_duration_since(state.looked);
        state.looked = now;
        Load { over, ..std::mem::take(&mut state.load) }
    }

    fn publish(&self, budget: WriteBudget) {
        self.state().budget = budget;
    }

    fn current(&self) -> WriteBudget {
        self.state().budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that answers every write the same.
    struct Answers(StoreError);

    #[async_trait::async_trait]
    impl Packs for Answers {
        async fn put(&self, _: Vec<(PackKey, SmsDeliveryPack)>) -> Result<(), StoreError> {
            Err(self.0.clone())
        }
        async fn head(&self, _: PackKey) -> Result<Option<PackHead>, StoreError> {
            Ok(None)
        }
        async fn get(&self, _: PackKey) -> Result<Option<Arc<SmsDeliveryPack>>, StoreError> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_store_that_has_too_much_to_do_is_overloaded() {
        let text = String::new;
        for (error, overloads) in [
            (StoreError::Unavailable(text()), 1),
            (StoreError::Unknown(text()), 1),
            (StoreError::Full(text()), 0),
            (StoreError::Corrupt(text()), 0),
        ] {
            let packs = BudgetedPacks::new(Arc::new(Answers(error.clone())));
            assert_eq!(packs.put(vec![]).await, Err(error.clone()));
            let load = packs.load();
            assert_eq!((load.overloads, load.packs), (overloads, 0), "{error}");
        }
    }
}
