//! The embedded fleet with its surface: what a process that holds a data folder runs, and what one that only reads does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::callbacks::Callbacks;
use super::config::Config;
use super::edges::Edges;
use super::embedded::Embedded;
use super::gauges::{self, Gauges};
use super::opened::Opened;
use super::selection::Selection;
use super::serving::{Serving, limits};
use super::sources::Lists;
use crate::access::keys::Keys;
use crate::access::rates;
use crate::batch::SmsBatchService;
use crate::coordinate::uploads::uploads_in_use;
use crate::links::Redirector;
use crate::model::code::{Code, Fault};
use crate::ports::tallies::Tallies;
use crate::ports::uploads::Uploads;
use crate::ports::{Stores, World};
use crate::privacy::Eraser;
use crate::runtime::calm::Calm;
use crate::runtime::metrics::Exporter;
use crate::runtime::{pulse, task};
use crate::serve::fleet::{Callback, CallbackKind, CallbackReply, Defaults, Live, Surface};
use crate::serve::router;
use crate::statistics::LiveAccount;
use crate::webhooks::Webhooks;

/// The commit this was built from, when the build knew it.
pub const COMMIT: &str = match option_env!("SMSFLEET_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The version, as sheets have it: a build that stands for the next version says so.
pub const VERSION: &str =
    if cfg!(feature = "next-formats") { concat!(env!("CARGO_PKG_VERSION"), "+next") } else { env!("CARGO_PKG_VERSION") };
/// How often rates that were set live are looked for.
const RATES_EVERY: Duration = Duration::from_millis(500);
/// A fleet that holds its folder and answers on its socket.
pub struct Holding {
    /// The fleet.
    pub embedded: Embedded,
    /// What it serves.
    pub surface: Surface,
    /// Where the network is served, when it is.
    pub address: Option<SocketAddr>,
    serving: Serving,
    /// What runs beside it and ends with it.
    beside: Vec<JoinHandle<()>>,
}

impl Holding {
    /// Opens the folder, starts all roles and serves.
    ///
    /// # Errors
    /// As for [`Embedded::start`], or an address that cannot be listened on.
    pub async fn start(config: &Config) -> Result<Holding, Fault> {
        let exporter = Exporter::install(COMMIT).map_err(|text| Fault::new(Code::Internal, text))?;
        let serving = Serving::start()?;
        let embedded = Embedded::start(config).await?;
        let surface = Surface {
            accounts: Arc::new(embedded.edges.accounts()),
            stores: embedded.edges.stores.clone(),
            live: Some(Arc::new(LiveFleet {
                edges: embedded.edges.clone(),
                callbacks: Callbacks { http: embedded.http.clone(), reports: embedded.reports.clone() },
                commit_took: embedded.commit_took.clone(),
                links: embedded.links.clone(),
                failed: embedded.failed.clone(),
            })),
            exporter: Some(exporter.clone()),
            ..still(
                config,
                base(config, &embedded.opened, embedded.lists.clone()),
                embedded.edges.webhooks.clone(),
                embedded.service.clone(),
            )
        };
        let mut holding = Holding { embedded, surface, address: None, serving, beside: vec![] };
        if let Err(fault) = holding.serve(config, exporter).await {
            holding.stop().await;
            return Err(fault);
        }
        Ok(holding)
    }

    async fn serve(&mut self, config: &Config, exporter: Exporter) -> Result<(), Fault> {
        self.serving.local(config, router::local(self.surface.clone()))?;
        self.address = self.serving.network(config, router::public(self.surface.clone())).await?;
        let (edges, stop) = (self.embedded.edges.clone(), self.serving.stopping());
        self.beside.push(task::spawn("live rates", follow_rates(edges, stop.clone())));
        self.beside.push(task::spawn("pulse", pulse::keep(config.limits.standstill, stop.clone())));
        self.beside.push(task::spawn("gauges", gauges(&self.embedded, exporter, stop)));
        Ok(())
    }

    /// Drains and closes everything. Who asks on the socket is answered until the folder closes.
    pub async fn stop(self) {
        self.embedded.stop().await;
        self.serving.end().await;
        for task in self.beside {
            let _ = tokio::time::timeout(Duration::from_secs(2), task).await;
        }
    }
}

/// The surface of a store that no process serves here: everything can be read and commanded, nothing is sent.
pub async fn reading(config: &Config) -> Result<(Opened, Router), Fault> {
    let opened = Opened::open(config).await?;
    let lists = Lists::new(config, &opened.world, opened.spool())?;
    let select = Selection::new(opened.stores.clone(), config.accounts());
    let service = SmsBatchService::new(opened.stores.clone(), opened.world.clone(), Arc::default(), select);
    let webhooks = opened.webhooks(config)?;
    let surface = still(config, base(config, &opened, lists), webhooks, service);
    Ok((opened, router::local(surface)))
}

/// What a surface rests on.
pub struct Base {
    /// The store.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    /// What erases numbers.
    pub eraser: Eraser,
    /// Lists of recipients.
    pub lists: Lists,
}

fn base(config: &Config, opened: &Opened, lists: Lists) -> Base {
    let eraser = opened.eraser(&lists, config.accounts());
    Base { stores: opened.stores.clone(), world: opened.world.clone(), eraser, lists }
}

/// The surface of a store that no fleet runs over.
pub fn still(config: &Config, base: Base, webhooks: Arc<Webhooks>, service: SmsBatchService) -> Surface {
    let Base { stores, world, eraser, lists } = base;
    let batch = &config.batch;
    let defaults = Defaults {
        tenant: batch.tenant.clone(),
        signature: batch.signature.clone(),
        ext_code: batch.ext_code.clone(),
        link_base: batch.link_base.clone(),
        region: config.default_region.clone(),
        on_uncertain: batch.on_uncertain,
        min_recipients_per_lane: batch.min_recipients_per_lane,
        not_after: batch.not_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        late_start: batch.late_start,
        priority: batch.priority,
    };
    Surface {
        stores: stores.clone(),
        world: world.clone(),
        webhooks,
        eraser: Arc::new(eraser),
        accounts: Arc::new(config.accounts()),
        service,
        keys: Arc::new(Keys::new(stores.clone(), world.clone())),
        defaults: Arc::new(defaults),
        lists: Arc::new(ServedLists { lists, stores }),
        limits: limits(config),
        live: None,
        exporter: None,
        watched: Arc::default(),
    }
}

struct ServedLists {
    lists: Lists,
    stores: Stores,
}

#[async_trait::async_trait]
impl crate::serve::fleet::Lists for ServedLists {
    fn uploads(&self) -> Arc<dyn Uploads> {
        self.lists.uploads.clone()
    }

    fn check(&self, table_name: &str, from_network: bool) -> Result<String, Fault> {
        self.lists.check_address(table_name, from_network)
    }

    async fn in_use(&self) -> Result<BTreeSet<String>, Fault> {
        Ok(uploads_in_use(&self.stores).await?)
    }
}

/// Sets the gauges of a process that has all roles.
fn gauges(embedded: &Embedded, exporter: Exporter, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
    let (edges, delivery, broker) = (embedded.edges.clone(), embedded.delivery(), embedded.broker.clone());
    async move {
        let mut gauges = Gauges::new(edges.clone(), delivery.clone());
        while tokio::time::timeout(gauges::EVERY, stop.cancelled()).await.is_err() {
            gauges.process();
            let wanted = delivery.as_ref().map(|delivery| gauges::wanted(&edges, delivery)).unwrap_or_default();
            gauges.capacity(&edges.live_accounts(), &wanted);
            let (prepare, delivery) = broker.lag();
            gauges::lag(prepare, delivery);
            gauges::parked(&edges.stores).await;
            exporter.tidy();
        }
    }
}

/// Keeps the governors at the rates that were set live; without one, at the configured rates.
pub(super) async fn follow_rates(edges: Edges, stop: CancellationToken) {
    let mut applied: BTreeMap<String, u32> = BTreeMap::new();
    let calm = Calm::default();
    loop {
        match rates::all(&edges.stores).await {
            Ok(set) => {
                let set: BTreeMap<String, u32> = set.into_iter().collect();
                for (name, route) in edges.routes.iter().filter(|(name, _)| set.get(*name) != applied.get(*name)) {
                    let ceiling = set.get(name).copied().or(route.account.rate);
                    tracing::info!(account = name, ?ceiling, "the account's rate was changed");
                    edges.rates.set_ceiling(name, ceiling, edges.world.clock.boot());
                }
                applied = set;
                calm.is_over();
            }
            Err(error) if calm.speaks() => {
                tracing::warn!(code = %error.code, error = error.context, "live rates cannot be read; the accounts keep theirs");
            }
            Err(_) => {}
        }
        if tokio::time::timeout(RATES_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

struct LiveFleet {
    edges: Edges,
    callbacks: Callbacks,
    commit_took: Arc<AtomicU64>,
    links: Arc<Redirector>,
    failed: CancellationToken,
}

#[async_trait::async_trait]
impl Live for LiveFleet {
    fn accounts(&self) -> Vec<LiveAccount> {
        self.edges.live_accounts()
    }

    fn store_latency_ms(&self) -> Option<f64> {
        let took = self.commit_took.load(Ordering::Relaxed);
        (took > 0).then_some(took as f64 / 1_000.0)
    }

    fn tallies(&self) -> Arc<dyn Tallies> {
        self.edges.tallies.clone()
    }

    fn ready(&self) -> Result<(), String> {
        if self.failed.is_cancelled() {
            return Err("the disk failed, or a part of the fleet ended by itself".into());
        }
        if self.edges.routes.is_empty() || self.edges.routes.values().any(|route| route.provider.health().up) {
            return Ok(());
        }
        Err("no account can be reached".into())
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
