//! Roles in one process, over whatever edges they are given: all of them in the embedded fleet and in the simulation, one in
//! a process of a cluster.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::coordinator::{self, Leading};
use super::edges::Edges;
use crate::deliver::{self, Delivery};
use crate::model::id::WorkerId;
use crate::ports::provider::Reports;
use crate::ports::queue::{DeliveryQueue, PrepareQueue};
use crate::prepare::tools::{Settings as PrepareSettings, Tools};
use crate::prepare::worker::{self, Partitions};
use crate::receipts::Intake;
use crate::runtime::pulse::{self, Turns};
use crate::runtime::task::Tasks;

/// What can be set of the roles.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The coordinator.
    pub coordinator: coordinator::Settings,
    /// The preparer.
    pub prepare: PrepareSettings,
    /// How long a drain waits for answers.
    pub grace: Duration,
}

/// The ends that make a process what it is: a role runs where its end is.
#[derive(Default)]
pub struct Ends {
    /// A coordinator runs, and says here since when it leads.
    pub lead: Option<Leading>,
    /// A preparer runs, as this member of the preparation topic.
    pub prepare: Option<Arc<PrepareQueue>>,
    /// A deliverer runs, as this member of the delivery topic.
    pub delivery: Option<Arc<DeliveryQueue>>,
    /// Reports from the accounts are taken in.
    pub reports: Option<mpsc::Receiver<Reports>>,
}

/// Roles that run.
pub struct Fleet {
    /// The delivery worker, to be looked at, where there is one.
    pub delivery: Option<Arc<Delivery>>,
    /// The partitions that the preparer has, where there is one.
    pub preparing: Option<Partitions>,
    tasks: Tasks,
    /// Cancelled when a role ended that nobody stopped, by a panic or by itself: the process should end.
    pub died: CancellationToken,
    stop_work: CancellationToken,
    stop_intake: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    intake: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts the roles whose ends there are. `worker` is the name under which this process is known.
    pub fn start(edges: Edges, ends: Ends, settings: Settings, worker: WorkerId) -> Fleet {
        let tasks = Tasks::default();
        let (stop_work, stop_intake, died) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let watched = |name: &'static str, stop: &CancellationToken, role: BoxFuture<'static, ()>| {
            let watch = Watch { name, stop: stop.clone(), died: died.clone() };
            tasks.spawn(name, async move {
                let _watch = watch;
                role.await;
            })
        };
        let intake = ends.reports.map(|reports| {
            let (stores, world, routes) = (edges.stores.clone(), edges.world.clone(), edges.routes.clone());
            let intake = Intake::new(stores, world, routes, edges.tallies.clone(), Some(edges.webhooks.clone()));
            let taking = pulse::watch("receipts' intake", Turns::Always, intake.run(reports, stop_intake.clone()));
            watched("intake", &stop_intake, taking.boxed())
        });
        let mut workers = vec![];
        if let Some(leading) = ends.lead {
            let coordinator =
                coordinator::run(edges.clone(), settings.coordinator.clone(), tasks.clone(), stop_work.clone(), leading);
            workers.push(watched("coordinator", &stop_work, coordinator.boxed()));
        }
        let preparing = ends.prepare.map(|queue| {
            let tools = Arc::new(tools(&edges, settings.prepare.clone(), worker));
            let partitions = Partitions::default();
            let preparer = worker::run(tools, queue, partitions.clone(), stop_work.clone());
            workers.push(watched("preparer", &stop_work, preparer.boxed()));
            partitions
        });
        let delivery = ends.delivery.map(|queue| {
            let Edges { stores, world, routes, rates, tallies, .. } = edges.clone();
            let delivery = Delivery::new(worker, stores, world, routes, rates, tallies, tasks.clone());
            let deliverer = deliver::run(delivery.clone(), queue, stop_work.clone(), settings.grace);
            workers.push(watched("deliverer", &stop_work, deliverer.boxed()));
            delivery
        });
        Fleet { delivery, preparing, tasks, died, stop_work, stop_intake, workers, intake }
    }

    /// Drains: nothing new is handed over, answers are waited for within the grace period, and ranges and lanes are given
    /// back. Receipts are taken in until the end.
    pub async fn stop_working(&mut self) {
        self.stop_work.cancel();
        for worker in self.workers.drain(..) {
            let _ = worker.await;
        }
    }

    /// Ends the intake of receipts, after the accounts were closed.
    pub async fn stop(mut self) {
        self.stop_working().await;
        self.stop_intake.cancel();
        if let Some(intake) = self.intake {
            let _ = intake.await;
        }
    }

    /// Ends everything where it stands, as a crash does.
    pub fn crash(self) {
        self.tasks.abort_all();
    }
}

/// Tells when a role ends that nobody stopped; dropped with the role's task, so that a panic tells as well.
struct Watch {
    name: &'static str,
    stop: CancellationToken,
    died: CancellationToken,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() && !self.died.is_cancelled() {
            tracing::error!(role = self.name, "a role ended by itself");
            self.died.cancel();
        }
    }
}

fn tools(edges: &Edges, settings: PrepareSettings, worker: WorkerId) -> Tools {
    let routes = edges.routes.clone();
    let accounts = Arc::new(move |provider_type: &str| {
        let mut of_type = routes.values().filter(|route| route.account.provider_type == provider_type);
        of_type.next().map(|route| route.account.capabilities.clone())
    });
    let (world, source, tallies) = (edges.world.clone(), edges.source.clone(), edges.tallies.clone());
    Tools::new(&edges.stores, world, source, accounts, tallies, worker, settings)
}
