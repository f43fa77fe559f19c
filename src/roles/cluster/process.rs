//! One process of a cluster, from its first attempt to reach the servers to its last answer.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gateway::Gateway;
use super::servers::{Servers, Wait, reach};
use super::sheets::{self, Facts};
use super::slots;
use crate::adapters::memory::budget::BudgetedPacks;
use crate::adapters::redis::budget::RedisBudget;
use crate::adapters::redis::lease::RedisLease;
use crate::adapters::redis::rates::RedisRates;
use crate::adapters::redis::tallies::RedisTallies;
use crate::adapters::webhook::HttpCaller;
use crate::coordinate::mark::MARK_EVERY;
use crate::coordinate::members;
use crate::model::code::{Code, Fault};
use crate::model::fleet::{FleetRole, LiveAccount, Sheet};
use crate::model::id::WorkerId;
use crate::ports::budget::Budget;
use crate::ports::provider::Reports;
use crate::ports::{Stores, World};
use crate::roles::accounts::Accounts;
use crate::roles::config::{Config, LISTEN};
use crate::roles::coordinator::Leading;
use crate::roles::edges::Edges;
use crate::roles::embedded::{self, CLICKS_WITHIN, REPORTS_WAITING};
use crate::roles::fleet::{Ends, Fleet, Settings};
use crate::roles::gauges::{self, Gauges};
use crate::roles::opened;
use crate::roles::serving::Serving;
use crate::roles::sources::Lists;
use crate::roles::surface::{self, COMMIT};
use crate::runtime::metrics::Exporter;
use crate::runtime::pulse::{self, Turns};
use crate::runtime::task::{self, Tasks};
use crate::serve::health::{self, Front, Health};
use crate::serve::router;
use crate::webhooks::Webhooks;

/// The pause between two rounds of the leader's jobs: each reads the running batches from the store.
const ROUND: Duration = Duration::from_millis(400);
/// How long the last sheet may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Answers of sessions that go back with their slot are waited for so long at most: the slot's time ends.
const SLOT_GRACE: Duration = Duration::from_secs(5);

/// A process that runs.
pub struct Process {
    /// Where it serves, if it does.
    pub address: Option<SocketAddr>,
    /// Cancelled when a role ended by itself, or the store turned out to be restored: the process should end with an error.
    pub failed: CancellationToken,
    health: Health,
    fleet: Fleet,
    accounts: Accounts,
    gateway: Option<Gateway>,
    side: Tasks,
    sheet: JoinHandle<()>,
    stop_side: CancellationToken,
    serving: Serving,
    grace: Duration,
}

impl Process {
    /// Starts a process with this role; servers that are away are waited for until `stop`.
    ///
    /// # Errors
    /// What is wrong with the configuration; what a server refuses for good; [`Code::StoreStale`].
    pub async fn start(config: &Config, role: FleetRole, stop: &CancellationToken) -> Result<Process, Fault> {
        let mut config = config.clone();
        if role == FleetRole::Gateway {
            config.serve.listen.get_or_insert(LISTEN);
        }
        let exporter = Exporter::install(COMMIT).map_err(|text| Fault::new(Code::Internal, text))?;
        let health = Health::starting("it starts");
        let front = Front::new(health::routes(health.clone(), exporter.clone()));
        let mut serving = Serving::start()?;
        let address = serving.network(&config, front.router()).await?;
        Begun { config: &config, role, health, front, exporter, address, serving }.compose(stop).await
    }

    /// Ends in order, from the source's end: nothing new is handed over, answers are waited for, offsets are committed,
    /// accounts say good-bye, receipts are stored to the last.
    pub async fn stop(mut self) {
        // Whoever sends work here sends it elsewhere from now on.
        self.health.fails("stop", "it stops");
        self.fleet.stop_working().await;
        let closing = self.accounts.routes.values().map(|route| route.provider.close(self.grace));
        futures::future::join_all(closing).await;
        self.fleet.stop().await;
        self.stop_side.cancel();
        if let Some(gateway) = self.gateway {
            gateway.finish(CLICKS_WITHIN).await;
        }
        let _ = tokio::time::timeout(FAREWELL, self.sheet).await;
        self.side.abort_all();
        self.serving.end().await;
    }
}

/// A process that listens and has not composed its role yet.
struct Begun<'a> {
    config: &'a Config,
    role: FleetRole,
    health: Health,
    front: Front,
    exporter: Exporter,
    address: Option<SocketAddr>,
    serving: Serving,
}

impl Begun<'_> {
    async fn compose(self, stop: &CancellationToken) -> Result<Process, Fault> {
        let (config, role) = (self.config, self.role);
        let world = opened::world();
        let worker = WorkerId(world.chance.next());
        let host = host();
        let name = format!("smsfleet-{role}-{host}-{worker}");
        let wait = Wait { health: self.health.clone(), stop: stop.clone(), seed: world.chance.next() };
        let servers = Servers::reach(config, &name, &world, &wait).await?;
        let stores = servers.store.stores();
        // It was there a moment ago: a server that restarts just now is waited for too.
        reach("ScyllaDB", &wait, || opened::check_mark(&stores)).await?;

        let side = Tasks::default();
        let (reports, reports_in) = mpsc::channel::<Reports>(REPORTS_WAITING);
        let accounts = Accounts::start(config, Some(role), &world, &reports)?;
        let lists = Lists::new(config, &world, opened::spool(config))?;
        let tallies = RedisTallies::new(servers.redis.clone(), &side);
        let edges = edges(config, &servers, &world, &accounts, &lists, tallies, stores, role, &side)?;
        let settings = settings(config);
        let (grace, keep_texts) = (settings.grace, settings.coordinator.keep.texts);
        let leading = (role == FleetRole::Coordinator).then(Leading::default);
        let takes_reports = matches!(role, FleetRole::Deliver | FleetRole::Gateway);
        let ends = Ends {
            lead: leading.clone(),
            prepare: if role == FleetRole::Prepare { Some(servers.kafka.join_prepare()?) } else { None },
            delivery: if role == FleetRole::Deliver { Some(servers.kafka.join_delivery()?) } else { None },
            reports: takes_reports.then_some(reports_in),
        };
        let fleet = Fleet::start(edges.clone(), ends, settings, worker);

        let (stop_side, failed) = (CancellationToken::new(), CancellationToken::new());
        side.spawn("pulse", pulse::keep(config.limits.standstill, stop_side.clone()));
        side.spawn("failure", watch(edges.clone(), fleet.died.clone(), failed.clone()));
        side.spawn("live rates", surface::follow_rates(edges.clone(), stop_side.clone()));
        let own = Gauges::new(edges.clone(), fleet.delivery.clone());
        side.spawn("gauges", gauges(own, edges.clone(), leading.clone(), self.exporter.clone(), stop_side.clone()));
        let (lent, world_of, slot_grace) = (accounts.lent.clone(), world.clone(), grace.min(SLOT_GRACE));
        side.spawn("bind slots", slots::follow(lent, worker, edges.stores.clone(), world_of, slot_grace, stop_side.clone()));
        if matches!(role, FleetRole::Coordinator | FleetRole::Prepare) {
            side.spawn("spool", embedded::keep_spool(opened::spool(config), keep_texts));
        }
        let gateway = (role == FleetRole::Gateway).then(|| {
            let ways = (accounts.http.clone(), reports.clone());
            let facts = (self.health.clone(), self.exporter.clone());
            let gateway = Gateway::new(config, &edges, lists, ways, facts, &side, stop_side.clone());
            self.front.show(router::public(gateway.surface.clone()));
            gateway
        });
        let facts = Facts {
            role,
            worker,
            host,
            started: world.clock.now(),
            edges,
            kafka: servers.kafka.clone(),
            leading,
            delivery: fleet.delivery.clone(),
            preparing: fleet.preparing.clone(),
        };
        let sheet = pulse::watch("sheet", Turns::Always, sheets::keep(facts, self.health.clone(), stop_side.clone()));
        let sheet = task::spawn("sheet", sheet);
        self.health.works("start");
        tracing::info!(%role, %worker, "the process works");
        let Begun { address, serving, health, .. } = self;
        Ok(Process { address, failed, health, fleet, accounts, gateway, side, sheet, stop_side, serving, grace })
    }
}

/// The machine's name, as the system has it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

#[allow(clippy::too_many_arguments, reason = "each is one edge of the role")]
fn edges(
    config: &Config,
    servers: &Servers,
    world: &World,
    accounts: &Accounts,
    lists: &Lists,
    tallies: Arc<RedisTallies>,
    stores: Stores,
    role: FleetRole,
    side: &Tasks,
) -> Result<Edges, Fault> {
    let limits = accounts.routes.iter().map(|(name, route)| (name.clone(), route.account.rate));
    let rates = RedisRates::new(servers.redis.clone(), world.clone(), limits, side);
    let caller = Arc::new(HttpCaller::new(config.webhooks.clone())?);
    let webhooks = Webhooks::new(stores.clone(), world.clone(), caller);
    // Only who writes packs keeps to the budget, and only who may lead looks at it: nobody else asks Redis about it.
    let packs = BudgetedPacks::new(stores.packs.clone());
    let shared = RedisBudget::new(servers.redis.clone(), world.clone(), side);
    let budget: Arc<dyn Budget> = if role == FleetRole::Coordinator { shared.leader() } else { packs.clone() };
    if role == FleetRole::Prepare {
        shared.writer(packs.clone());
    }
    let stores = Stores { packs, ..stores };
    Ok(Edges {
        stores,
        world: world.clone(),
        source: lists.source.clone(),
        uploads: Some(lists.uploads.clone()),
        routes: accounts.routes.clone(),
        rates,
        tallies,
        lease: Arc::new(RedisLease::new(servers.redis.clone())),
        sender: servers.kafka.sender(),
        budget,
        webhooks,
        wake: Arc::new(Notify::new()),
    })
}

fn settings(config: &Config) -> Settings {
    let mut settings = embedded::settings(config);
    let limited = |(name, account): (&String, &crate::roles::config::AccountConfig)| Some((name.clone(), account.bind_slots?));
    settings.coordinator.bind_slots = config.accounts.iter().filter_map(limited).collect();
    settings.coordinator.raise_mark = true;
    settings.coordinator.every = ROUND;
    // Enough for every partition of the topic to keep a preparer busy, few enough that a small batch does not wait.
    settings.coordinator.range_tasks = settings.coordinator.range_tasks.max(2 * usize::from(config.kafka.prepare_partitions));
    settings
}

/// Ends the process when a role ended by itself, or when the store is older than the mark beside it: somebody restored it while
/// the fleet ran.
async fn watch(edges: Edges, died: CancellationToken, failed: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = died.cancelled() => break,
            () = tokio::time::sleep(MARK_EVERY * 3) => {}
        }
        if let Err(fault) = opened::check_mark(&edges.stores).await
            && fault.code == Code::StoreStale
        {
            tracing::error!(code = %fault.code, "nothing more is sent: {}", fault.context);
            break;
        }
    }
    failed.cancel();
}

async fn gauges(mut own: Gauges, edges: Edges, leading: Option<Leading>, exporter: Exporter, stop: CancellationToken) {
    while tokio::time::timeout(gauges::EVERY, stop.cancelled()).await.is_err() {
        own.process();
        if leading.as_ref().is_some_and(|since| since.lock().unwrap_or_else(PoisonError::into_inner).is_some()) {
            gauges::parked(&edges.stores).await;
            if let Ok(sheets) = members::all(&edges.stores).await {
                let now = edges.world.clock.now();
                let alive: Vec<Sheet> = sheets.into_iter().filter(|sheet| sheet.is_alive(now)).collect();
                let said: Vec<LiveAccount> = alive.iter().flat_map(|sheet| sheet.accounts.clone()).collect();
                own.capacity(&said, &alive.into_iter().flat_map(|sheet| sheet.wanted).collect());
            }
        }
        exporter.tidy();
    }
}
