//! The store's write budget: published by the leader, kept by who writes.

use crate::model::throughput::{Load, WriteBudget};

/// Where the budget is published, and where the writers' experience is gathered.
pub trait Budget: Send + Sync {
    /// What writes met since the last call.
    fn load(&self) -> Load;

    /// Publishes a budget.
    fn publish(&self, budget: WriteBudget);

    /// The budget as last published.
    fn current(&self) -> WriteBudget;
}
