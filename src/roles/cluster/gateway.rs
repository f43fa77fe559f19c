//! What a gateway adds to its intake of receipts: the API over the fleet's store, providers' callbacks, short links.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinate::members;
use crate::links::{ClickLog, Redirector};
use crate::model::code::Fault;
use crate::model::fleet::{LiveAccount, Seen};
use crate::ports::provider::ReportSink;
use crate::ports::tallies::Tallies;
use crate::roles::accounts::HttpAccounts;
use crate::roles::callbacks::Callbacks;
use crate::roles::config::Config;
use crate::roles::edges::Edges;
use crate::roles::embedded::link_settings;
use crate::roles::opened::eraser;
use crate::roles::sources::Lists;
use crate::roles::surface::{self, Base};
use crate::runtime::metrics::Exporter;
use crate::runtime::task::Tasks;
use crate::serve::fleet::{Callback, CallbackKind, CallbackReply, Live, Surface};
use crate::serve::health::Health;

/// How often the sheets are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A gateway's surface, and what runs beside it.
pub struct Gateway {
    /// What it serves.
    pub surface: Surface,
    clicks: JoinHandle<()>,
}

impl Gateway {
    /// Composes the surface; what runs beside it belongs to `tasks` and ends with `stop`.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(
        config: &Config,
        edges: &Edges,
        lists: Lists,
        (http, reports): (HttpAccounts, ReportSink),
        (health, exporter): (Health, Exporter),
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Gateway {
        let (log, writer) = ClickLog::new(edges.stores.clone(), edges.world.clone());
        let links = Arc::new(Redirector::new(edges.stores.clone(), edges.world.clone(), link_settings(config), log));
        let clicks = tasks.spawn("clicks", writer.run(stop.clone()));
        let live = Arc::new(LiveCluster {
            edges: edges.clone(),
            callbacks: Callbacks { http, reports },
            links,
            health,
            seen: Mutex::default(),
        });
        tasks.spawn("sheets", watch(live.clone(), stop));
        let spool = crate::roles::opened::spool(config);
        let base = Base {
            stores: edges.stores.clone(),
            world: edges.world.clone(),
            eraser: eraser(&edges.stores, &edges.world, spool, &lists, config.accounts()).in_fleet(true),
            lists,
        };
        let surface = Surface {
            live: Some(live),
            exporter: Some(exporter),
            ..surface::still(config, base, edges.webhooks.clone(), edges.service())
        };
        Gateway { surface, clicks }
    }

    /// Stores the openings of links that still wait, within `most`; their `stop` was cancelled.
    pub async fn finish(self, most: Duration) {
        let _ = tokio::time::timeout(most, self.clicks).await;
    }
}

/// The fleet as its sheets show it.
struct LiveCluster {
    edges: Edges,
    callbacks: Callbacks,
    links: Arc<Redirector>,
    health: Health,
    seen: Mutex<Seen>,
}

impl LiveCluster {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch(live: Arc<LiveCluster>, stop: CancellationToken) {
    loop {
        // A store that does not answer keeps what was read before.
        if let Ok(sheets) = members::all(&live.edges.stores).await {
            *live.seen() = Seen::of(&sheets, live.edges.world.clock.now());
        }
        if tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

#[async_trait::async_trait]
impl Live for LiveCluster {
    fn accounts(&self) -> Vec<LiveAccount> {
        self.seen().accounts.clone()
    }

    fn store_latency_ms(&self) -> Option<f64> {
        self.seen().store_latency_ms
    }

    fn tallies(&self) -> Arc<dyn Tallies> {
        self.edges.tallies.clone()
    }

    fn ready(&self) -> Result<(), String> {
        self.health.ready()
    }

    fn links(&self) -> Option<Arc<Redirector>> {
        Some(self.links.clone())
    }

    fn admits(&self, kind: CallbackKind, callback: &Callback) -> Result<(), Fault> {
        self.callbacks.admits(kind, callback)
    }

    async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        self.callbacks.receipts(callback).await
    }

    async fn inbound(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        self.callbacks.inbound(callback).await
    }
}
