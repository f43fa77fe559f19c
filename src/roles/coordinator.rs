//! The coordinator: leads when it may, and runs the leader's jobs while it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::edges::Edges;
use crate::batch::OrderCompletion;
use crate::coordinate::leader::{self, Terms};
use crate::coordinate::store_guard::StoreGuard;
use crate::coordinate::sweeper::{Keep, Sweeper};
use crate::coordinate::throughput::StoreThroughput;
use crate::coordinate::{
    BindSlots, DeliveryStatusTracker, JobScheduler, Mark, Members, Planning, PrepareStatusTracker, UploadSweeper,
};
use crate::dispatch::DispatchBatch;
use crate::model::time::Timestamp;
use crate::prepare::plan;
use crate::runtime::job::Job;
use crate::runtime::pulse::{self, Turns};
use crate::runtime::task::Tasks;
use crate::statistics::settle::MsgCallbackStatistic;
use crate::statistics::syncer::StatisticsSyncer;
use crate::webhooks::{Changes, Sender};

/// Since when this process leads, while it does.
pub type Leading = Arc<Mutex<Option<Timestamp>>>;

/// What can be set of a coordinator.
#[derive(Clone, Debug)]
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
    /// How many workers may hold sessions of an account, where it allows only a few.
    pub bind_slots: BTreeMap<String, u32>,
    /// Whether the leader raises the store's mark; embedded, the process that holds the folder does.
    pub raise_mark: bool,
}

/// The jobs of a leader, in the order of their rounds.
pub fn jobs(edges: &Edges, settings: Settings, tasks: Tasks) -> Vec<Arc<dyn Job>> {
    let Edges { stores, world, source, uploads, sender, tallies, budget, .. } = edges.clone();
    let check: crate::coordinate::planning::Check = Arc::new(plan::check);
    let syncer = StatisticsSyncer::new(tallies.clone());
    let mut jobs: Vec<Arc<dyn Job>> = vec![
        Arc::new(Planning::new(stores.clone(), world.clone(), source, check, settings.range_records, tasks)),
        Arc::new(PrepareStatusTracker::new(stores.clone(), world.clone(), sender.clone(), settings.range_tasks)),
        Arc::new(OrderCompletion::new(edges.service())),
        Arc::new(DispatchBatch::new(stores.clone(), world.clone(), sender.clone())),
        Arc::new(DeliveryStatusTracker::new(stores.clone(), world.clone(), sender)),
        Arc::new(MsgCallbackStatistic::new(stores.clone(), world.clone(), edges.accounts(), syncer)),
        Arc::new(StoreGuard::new(stores.clone(), world.clone())),
        Arc::new(StoreThroughput::new(budget, tallies, world.clock.clone())),
        Arc::new(BindSlots::new(stores.clone(), world.clone(), settings.bind_slots)),
        Arc::new(Members::new(stores.clone(), world.clone())),
        Arc::new(Sweeper::new(stores.clone(), world.clone(), settings.keep)),
    ];
    if let Some(uploads) = uploads {
        jobs.push(Arc::new(UploadSweeper::new(uploads, stores.clone(), world.clone(), settings.keep.uploads)));
    }
    if settings.raise_mark {
        jobs.push(Arc::new(Mark::new(stores, world)));
    }
    jobs
}

/// Runs a coordinator until `stop`; it gives its lease up then.
pub async fn run(edges: Edges, settings: Settings, tasks: Tasks, stop: CancellationToken, leading: Leading) {
    let (terms, every) = (settings.terms, settings.every);
    let jobs = jobs(&edges, settings, tasks.clone());
    let scheduler = JobScheduler::new(jobs, every, edges.wake.clone());
    let webhooks = edges.webhooks.clone();
    // The webhooks go their own way: calls to strangers never stand in the way of a batch.
    let changes = Arc::new(JobScheduler::new(vec![Arc::new(Changes::new(webhooks.clone()))], every, Arc::new(Notify::new())));
    let sender = Sender::new(webhooks);
    let token = edges.world.chance.next();
    let now_leading = |since: Option<Timestamp>| *leading.lock().unwrap_or_else(PoisonError::into_inner) = since;
    let leads = leader::run(edges.lease.clone(), token, terms, stop, |term| {
        now_leading(Some(edges.world.clock.now()));
        let (changes, sender, telling) = (changes.clone(), sender.clone(), term.clone());
        let told = tasks.spawn("webhooks", async move {
            let changing = pulse::watch("webhooks' changes", Turns::Always, changes.term(telling.clone()));
            tokio::join!(changing, pulse::watch("webhooks' calls", Turns::WhenWoken, sender.term(telling)));
        });
        let (scheduler, now_leading) = (&scheduler, &now_leading);
        async move {
            pulse::watch("leader's jobs", Turns::Always, scheduler.term(term)).await;
            now_leading(None);
            let _ = told.await;
        }
    });
    pulse::watch("leadership", Turns::Always, leads).await;
}
