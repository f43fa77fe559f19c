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
            Err(_) => state.load.overloads += 1,
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
