//! Gauges that have no moment of their own to be set at: every few seconds a process says what it holds, and the leader what
//! belongs to the whole fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::edges::Edges;
use crate::deliver::Delivery;
use crate::model::fleet::{LiveAccount, together};
use crate::ports::Stores;
use crate::runtime::metrics::{self, set};
use crate::runtime::zeros;

/// How often gauges are set, and histograms tidied when nobody scrapes them.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The gauges of one process.
pub(super) struct Gauges {
    edges: Edges,
    delivery: Option<Arc<Delivery>>,
    /// "Slow down" answers by account, at the last look.
    throttled: BTreeMap<String, u64>,
    /// Partitions that stood still at the last look.
    still: BTreeSet<u8>,
}

impl Gauges {
    /// The gauges of a process over these edges, which delivers or does not.
    pub(super) fn new(edges: Edges, delivery: Option<Arc<Delivery>>) -> Gauges {
        if delivery.is_some() {
            edges.routes.keys().for_each(|account| zeros::of_sending(account));
        }
        Gauges { edges, delivery, throttled: BTreeMap::new(), still: BTreeSet::new() }
    }

    /// Sets what this process holds.
    pub(super) fn process(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            set(&metrics::PROCESS_TASKS, &[], runtime.metrics().num_alive_tasks() as f64);
        }
        // Only who sends has a say about accounts: a gateway's receivers hand nothing over.
        let Some(delivery) = self.delivery.clone() else { return };
        let wanted = wanted(&self.edges, &delivery);
        for live in self.edges.live_accounts() {
            self.account(&live, wanted.contains(&live.account));
        }
        let holds = delivery.holds();
        set(&metrics::DELIVER_PARTITIONS, &[], holds.partitions.len() as f64);
        set(&metrics::DELIVER_LANES, &[], holds.lanes.len() as f64);
        let still: BTreeSet<u8> = holds.still.keys().copied().collect();
        for partition in self.still.union(&still) {
            let stood = holds.still.get(partition).copied().unwrap_or_default();
            set(&metrics::DELIVER_STILL, &[&partition.to_string()], stood.as_secs_f64());
        }
        self.still = still;
    }

    fn account(&mut self, live: &LiveAccount, wants: bool) {
        let labels = [live.account.as_str()];
        let throttled = self.throttled.insert(live.account.clone(), live.throttled).is_some_and(|last| live.throttled > last);
        set(&metrics::PROVIDER_UP, &labels, f64::from(u8::from(live.up)));
        set(&metrics::PROVIDER_WANTED, &labels, f64::from(u8::from(wants)));
        set(&metrics::PROVIDER_SESSIONS, &labels, f64::from(live.sessions));
        set(&metrics::PROVIDER_WINDOW, &labels, f64::from(live.window));
        set(&metrics::DELIVER_IN_FLIGHT, &labels, live.outstanding as f64);
        set(&metrics::RATES_SEGMENTS, &labels, live.rate);
        set(&metrics::RATES_CEILING, &labels, f64::from(live.ceiling.unwrap_or(0)));
        set(&metrics::RATES_THROTTLED, &labels, f64::from(u8::from(throttled)));
    }

    /// Sets what the accounts can take from the whole fleet. `said` is what the processes that deliver say of them, `wanted`
    /// the accounts that they wait for. One that nobody waits for counts with its rate: sessions may well be made only then.
    pub(super) fn capacity(&self, said: &[LiveAccount], wanted: &BTreeSet<String>) {
        let said = together(said);
        let clock = &self.edges.world.clock;
        for (name, route) in self.edges.routes.iter() {
            let known = said.iter().find(|live| live.account == *name);
            let rate = match known {
                _ if route.account.hours.as_ref().is_some_and(|hours| !clock.allows(hours, clock.now())) => 0.0,
                Some(live) if !live.up && wanted.contains(name) => 0.0,
                Some(live) => live.rate,
                None => self.edges.rates.view(name).rate,
            };
            set(&metrics::RATES_CAPACITY, &[name], rate);
        }
    }
}

/// Accounts that lanes of a process go through, or wait for.
pub(super) fn wanted(edges: &Edges, delivery: &Delivery) -> BTreeSet<String> {
    let types = delivery.turns.wanted();
    let routes = edges.routes.iter().filter(|(_, route)| types.contains(&route.account.provider_type));
    routes.map(|(name, _)| name.clone()).collect()
}

/// Sets how many reports have no recipient. A store that does not answer keeps the numbers of before.
pub(super) async fn parked(stores: &Stores) {
    if let Ok((parked, unmatched)) = stores.parked.counts().await {
        set(&metrics::RECEIPTS_PARKED, &[], parked as f64);
        set(&metrics::RECEIPTS_UNMATCHED, &[], unmatched as f64);
    }
}

/// Sets how many tokens wait.
pub(super) fn lag(prepare: u64, delivery: u64) {
    set(&metrics::QUEUE_LAG, &["prepare"], prepare as f64);
    set(&metrics::QUEUE_LAG, &["delivery"], delivery as f64);
}
