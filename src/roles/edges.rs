//! The edges that every role is composed over: what differs between embedded, cluster and simulation is only these.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::account::Account;
use crate::ports::budget::Budget;
use crate::ports::lease::Lease;
use crate::ports::provider::Routes;
use crate::ports::queue::TaskSender;
use crate::ports::rates::Rates;
use crate::ports::source::Source;
use crate::ports::tallies::Tallies;
use crate::ports::{Stores, World};
use crate::webhooks::Webhooks;

/// All ports together.
#[derive(Clone)]
pub struct Edges {
    /// The store.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    /// Where records come from.
    pub source: Arc<dyn Source>,
    /// The accounts and the ways to them.
    pub routes: Routes,
    /// The accounts' rates.
    pub rates: Arc<dyn Rates>,
    /// Live counts.
    pub tallies: Arc<dyn Tallies>,
    /// The leader's lock.
    pub lease: Arc<dyn Lease>,
    /// Into the queues.
    pub sender: Arc<dyn TaskSender>,
    /// The store's write budget.
    pub budget: Arc<dyn Budget>,
    /// Who is told of what happens.
    pub webhooks: Arc<Webhooks>,
    /// Wakes the leader of this process.
    pub wake: Arc<Notify>,
}

impl Edges {
    /// The accounts without the ways to them.
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.routes.iter().map(|(name, route)| (name.clone(), route.account.clone())).collect()
    }
}
