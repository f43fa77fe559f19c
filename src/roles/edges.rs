//! The edges that every role is composed over: what differs between embedded, cluster and simulation is only these.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::selection::Selection;
use crate::batch::{Offer, SmsBatchService};
use crate::model::account::Account;
use crate::model::fleet::LiveAccount;
use crate::ports::budget::Budget;
use crate::ports::lease::Lease;
use crate::ports::provider::{Route, Routes};
use crate::ports::queue::TaskSender;
use crate::ports::rates::Rates;
use crate::ports::source::Source;
use crate::ports::tallies::Tallies;
use crate::ports::uploads::Uploads;
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
    /// Where lists that are handed in are kept, if they are.
    pub uploads: Option<Arc<dyn Uploads>>,
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
    /// The commands of operators over these edges.
    pub fn service(&self) -> SmsBatchService {
        let select = Selection::new(self.stores.clone(), self.accounts());
        SmsBatchService::new(self.stores.clone(), self.world.clone(), self.wake.clone(), select)
    }

    /// The accounts as they could be used now.
    pub fn offers(&self) -> Vec<Offer> {
        let offer =
            |(name, route): (&String, &Route)| Offer { account: route.account.clone(), rate: Some(self.rates.view(name).rate) };
        self.routes.iter().map(offer).collect()
    }

    /// The accounts as this process sees them now.
    pub fn live_accounts(&self) -> Vec<LiveAccount> {
        let live = self.routes.iter().map(|(name, route)| {
            let (health, rate) = (route.provider.health(), self.rates.view(name));
            LiveAccount {
                account: name.clone(),
                up: health.up,
                sessions: health.sessions,
                outstanding: health.outstanding,
                window: route.provider.window(),
                rate: rate.rate,
                ceiling: rate.ceiling,
                throttled: rate.throttled,
                last_error: health.last_error.map(|(code, text)| format!("{code} {text}")),
            }
        });
        live.collect()
    }

    /// The accounts without the ways to them.
    pub fn accounts(&self) -> BTreeMap<String, Account> {
        self.routes.iter().map(|(name, route)| (name.clone(), route.account.clone())).collect()
    }
}
