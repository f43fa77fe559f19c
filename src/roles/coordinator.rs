//! The coordinator: leads when it may, and runs the leader's jobs while it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
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
use crate::statistics::steps::RunningSteps;
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

/// A loop of a leader: its name, and its jobs in the order of their rounds.
type Rounds = (&'static str, Vec<Arc<dyn Job>>);

/// The loops of a leader, which run side by side. The first keeps batches moving and workers supplied: what reads or removes whole
/// batches, or calls strangers, goes its own way, and so does what may not wait for a queue that takes no tokens, half a minute for
/// each batch: slots end, and the mark is what a restored store is known by. No job needs that another one ran before
/// it: each decides on what it reads, and changes it by compare-and-set.
fn loops(edges: &Edges, settings: Settings, tasks: Tasks) -> Vec<Rounds> {
    let Edges { stores, world, source, uploads, sender, tallies, budget, .. } = edges.clone();
    let check: crate::coordinate::planning::Check = Arc::new(plan::check);
    let syncer = StatisticsSyncer::new(tallies.clone());
    let moving: Vec<Arc<dyn Job>> = vec![
        Arc::new(Planning::new(stores.clone(), world.clone(), source, check, settings.range_records, tasks)),
        Arc::new(PrepareStatusTracker::new(stores.clone(), world.clone(), sender.clone(), settings.range_tasks)),
        Arc::new(DispatchBatch::new(stores.clone(), world.clone(), sender.clone())),
        Arc::new(DeliveryStatusTracker::new(stores.clone(), world.clone(), sender)),
        Arc::new(StoreGuard::new(stores.clone(), world.clone())),
        Arc::new(RunningSteps::new(stores.clone(), world.clone(), syncer.clone())),
        Arc::new(StoreThroughput::new(budget, tallies, world.clock.clone())),
        Arc::new(Members::new(stores.clone(), world.clone())),
    ];
    let mut keeping: Vec<Arc<dyn Job>> = vec![Arc::new(Sweeper::new(stores.clone(), world.clone(), settings.keep))];
    if let Some(uploads) = uploads {
        keeping.push(Arc::new(UploadSweeper::new(uploads, stores.clone(), world.clone(), settings.keep.uploads)));
    }
    let slots = BindSlots::new(stores.clone(), world.clone(), settings.bind_slots);
    let mut loops: Vec<Rounds> = vec![
        ("leader's jobs", moving),
        ("leader's slots", vec![Arc::new(slots)]),
        ("leader's orders", vec![Arc::new(OrderCompletion::new(edges.service()))]),
        ("leader's recounts", vec![Arc::new(MsgCallbackStatistic::new(stores.clone(), world.clone(), edges.accounts(), syncer))]),
        ("leader's sweeping", keeping),
        ("webhooks' changes", vec![Arc::new(Changes::new(edges.webhooks.clone()))]),
    ];
    if settings.raise_mark {
        loops.push(("leader's mark", vec![Arc::new(Mark::new(stores, world))]));
    }
    loops
}

/// Runs a coordinator until `stop`; it gives its lease up then.
pub async fn run(edges: Edges, settings: Settings, tasks: Tasks, stop: CancellationToken, leading: Leading) {
    let (terms, every) = (settings.terms, settings.every);
    let schedulers: Vec<(&'static str, Arc<JobScheduler>)> = loops(&edges, settings, tasks.clone())
        .into_iter()
        .enumerate()
        .map(|(place, (name, jobs))| {
            // What wakes the leader wakes what keeps batches moving; all else can wait for its next round.
            let wake = if place == 0 { edges.wake.clone() } else { Arc::new(Notify::new()) };
            (name, Arc::new(JobScheduler::new(jobs, every, wake)))
        })
        .collect();
    let sender = Sender::new(edges.webhooks.clone());
    let token = edges.world.chance.next();
    let now_leading = |since: Option<Timestamp>| *leading.lock().unwrap_or_else(PoisonError::into_inner) = since;
    let leads = leader::run(edges.lease.clone(), token, terms, stop, |term| {
        now_leading(Some(edges.world.clock.now()));
        let mut running: FuturesUnordered<JoinHandle<()>> = FuturesUnordered::new();
        for (name, scheduler) in &schedulers {
            let (name, scheduler, term) = (*name, scheduler.clone(), term.clone());
            let rounds = async move { scheduler.term(term).await };
            running.push(tasks.spawn(name, pulse::watch(name, Turns::Always, rounds)));
        }
        let telling = pulse::watch("webhooks' calls", Turns::WhenWoken, sender.clone().term(term.clone()));
        running.push(tasks.spawn("webhooks' calls", telling));
        let now_leading = &now_leading;
        async move {
            tokio::select! {
                biased;
                () = term.cancelled() => {}
                () = ended(&mut running) => {}
            }
            now_leading(None);
            ended(&mut running).await;
        }
    });
    pulse::watch("leadership", Turns::Always, leads).await;
}

/// Waits for the loops of a term. One that panics ends the coordinator, as a job of its own would, and so the process.
async fn ended(running: &mut FuturesUnordered<JoinHandle<()>>) {
    while let Some(ended) = running.next().await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
