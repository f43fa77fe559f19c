//! The coordinator: leads when it may, and runs the leader's jobs while it does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::edges::Edges;
use crate::batch::OrderCompletion;
use crate::coordinate::leader::{self, Terms};
use crate::coordinate::store_guard::StoreGuard;
use crate::coordinate::sweeper::{Keep, Sweeper};
use crate::coordinate::throughput::StoreThroughput;
use crate::coordinate::{DeliveryStatusTracker, JobScheduler, Planning, PrepareStatusTracker};
use crate::dispatch::DispatchBatch;
use crate::prepare::plan;
use crate::runtime::job::Job;
use crate::runtime::task::Tasks;
use crate::statistics::settle::MsgCallbackStatistic;
use crate::statistics::syncer::StatisticsSyncer;
use crate::webhooks::{Changes, Sender};

/// What can be set of a coordinator.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The lease.
    pub terms: Terms,
    /// The pause between two rounds of jobs.
    pub every: Duration,
    /// Records of a range, about.
    pub range_records: u32,
    /// Range tasks queued at once.
    pub range_tasks: usize,
    /// How long data is kept.
    pub keep: Keep,
}

/// The jobs of a leader, in the order of their rounds.
pub fn jobs(edges: &Edges, settings: Settings, tasks: Tasks) -> Vec<Arc<dyn Job>> {
    let Edges { stores, world, source, sender, tallies, budget, .. } = edges.clone();
    let check: crate::coordinate::planning::Check = Arc::new(plan::check);
    let syncer = StatisticsSyncer::new(tallies.clone());
    vec![
        Arc::new(Planning::new(stores.clone(), world.clone(), source, check, settings.range_records, tasks)),
        Arc::new(PrepareStatusTracker::new(stores.clone(), world.clone(), sender.clone(), settings.range_tasks)),
        Arc::new(OrderCompletion::new(edges.service())),
        Arc::new(DispatchBatch::new(stores.clone(), world.clone(), sender.clone())),
        Arc::new(DeliveryStatusTracker::new(stores.clone(), world.clone(), sender)),
        Arc::new(MsgCallbackStatistic::new(stores.clone(), world.clone(), edges.accounts(), syncer)),
        Arc::new(StoreGuard::new(stores.clone(), world.clone())),
        Arc::new(StoreThroughput::new(budget, tallies, world.clock.clone())),
        Arc::new(Sweeper::new(stores, world, settings.keep)),
    ]
}

/// Runs a coordinator until `stop`; it gives its lease up then.
pub async fn run(edges: Edges, settings: Settings, tasks: Tasks, stop: CancellationToken) {
    let jobs = jobs(&edges, settings, tasks.clone());
    let scheduler = JobScheduler::new(jobs, settings.every, edges.wake.clone());
    let webhooks = edges.webhooks.clone();
    // The webhooks go their own way: calls to strangers never stand in the way of a batch.
    let changes =
        Arc::new(JobScheduler::new(vec![Arc::new(Changes::new(webhooks.clone()))], settings.every, Arc::new(Notify::new())));
    let sender = Sender::new(webhooks);
    let token = edges.world.chance.next();
    leader::run(edges.lease.clone(), token, settings.terms, stop, |term| {
        let (changes, sender, telling) = (changes.clone(), sender.clone(), term.clone());
        let told = tasks.spawn("webhooks", async move {
            tokio::join!(changes.term(telling.clone()), sender.term(telling));
        });
        let scheduler = &scheduler;
        async move {
            scheduler.term(term).await;
            let _ = told.await;
        }
    })
    .await;
}
