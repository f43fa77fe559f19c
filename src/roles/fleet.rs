//! All roles in one process, over whatever edges they are given: the embedded fleet, and what the simulation runs.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::coordinator;
use super::edges::Edges;
use crate::deliver::{self, Delivery};
use crate::model::id::WorkerId;
use crate::ports::provider::Reports;
use crate::ports::queue::{DeliveryQueue, PrepareQueue};
use crate::prepare::tools::{Settings as PrepareSettings, Tools};
use crate::prepare::worker;
use crate::receipts::Intake;
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

/// The roles' ends of the queues and of the reports.
pub struct Ends {
    /// This process's membership in the preparation topic.
    pub prepare: Arc<PrepareQueue>,
    /// This process's membership in the delivery topic.
    pub delivery: Arc<DeliveryQueue>,
    /// Reports from the accounts.
    pub reports: mpsc::Receiver<Reports>,
}

/// Roles that run.
pub struct Fleet {
    /// The delivery worker, to be looked at.
    pub delivery: Arc<Delivery>,
    tasks: Tasks,
    /// Cancelled when a role ended that nobody stopped, by a panic or by itself: the process should end.
    pub died: CancellationToken,
    stop_work: CancellationToken,
    stop_intake: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    intake: JoinHandle<()>,
}

impl Fleet {
    /// Starts a coordinator, a preparer, a deliverer and the receipts' intake.
    pub fn start(edges: Edges, ends: Ends, settings: Settings) -> Fleet {
        let tasks = Tasks::default();
        let (stop_work, stop_intake) = (CancellationToken::new(), CancellationToken::new());
        let delivery = Delivery::new(
            edges.stores.clone(),
            edges.world.clone(),
            edges.routes.clone(),
            edges.rates.clone(),
            edges.tallies.clone(),
            tasks.clone(),
        );
        let intake = Intake::new(
            edges.stores.clone(),
            edges.world.clone(),
            edges.routes.clone(),
            edges.tallies.clone(),
            Some(edges.webhooks.clone()),
        );
        let died = CancellationToken::new();
        let watched = |name: &'static str, stop: &CancellationToken, role: BoxFuture<'static, ()>| {
            let watch = Watch { name, stop: stop.clone(), died: died.clone() };
            tasks.spawn(name, async move {
                let _watch = watch;
                role.await;
            })
        };
        let intake = watched("intake", &stop_intake, intake.run(ends.reports, stop_intake.clone()).boxed());
        let tools = Arc::new(tools(&edges, settings.prepare.clone()));
        let workers = vec![
            watched(
                "coordinator",
                &stop_work,
                coordinator::run(edges, settings.coordinator, tasks.clone(), stop_work.clone()).boxed(),
            ),
            watched("preparer", &stop_work, worker::run(tools, ends.prepare, stop_work.clone()).boxed()),
            watched(
                "deliverer",
                &stop_work,
                deliver::run(delivery.clone(), ends.delivery, stop_work.clone(), settings.grace).boxed(),
            ),
        ];
        Fleet { delivery, tasks, died, stop_work, stop_intake, workers, intake }
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
        let _ = self.intake.await;
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

fn tools(edges: &Edges, settings: PrepareSettings) -> Tools {
    let routes = edges.routes.clone();
    let accounts = Arc::new(move |provider_type: &str| {
        let mut of_type = routes.values().filter(|route| route.account.provider_type == provider_type);
        of_type.next().map(|route| route.account.capabilities.clone())
    });
    let worker = WorkerId(edges.world.chance.next());
    let (world, source, tallies) = (edges.world.clone(), edges.source.clone(), edges.tallies.clone());
    Tools::new(&edges.stores, world, source, accounts, tallies, worker, settings)
}
