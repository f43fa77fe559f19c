//! The embedded fleet with its surface: what a process that holds a data folder runs, and what one that only reads does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::edges::Edges;
use super::embedded::{Embedded, HttpAccounts, Opened};
use super::selection::Selection;
use super::sources::{Lists, uploads_in_use};
use crate::access::keys::Keys;
use crate::access::rates;
use crate::adapters::http::HttpAccount;
use crate::batch::SmsBatchService;
use crate::links::Redirector;
use crate::model::code::{Code, Fault};
use crate::model::inbound::Inbound;
use crate::model::limits::REPORTS_PER_INTAKE;
use crate::model::receipt::Report;
use crate::ports::Stores;
use crate::ports::provider::{ReportSink, Reports};
use crate::ports::tallies::Tallies;
use crate::ports::uploads::Uploads;
use crate::runtime::digest::digest;
use crate::runtime::metrics::{self, Exporter};
use crate::runtime::task;
use crate::serve::fleet::{Callback, CallbackReply, Defaults, Limits, Live, Surface};
use crate::serve::{listen, router, socket};
use crate::statistics::LiveAccount;
use crate::webhooks::Webhooks;

/// The commit this was built from, when the build knew it.
pub const COMMIT: &str = match option_env!("SMSFLEET_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// How often gauges are set, and histograms tidied when nobody scrapes them.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// How often rates that were set live are looked for.
const RATES_EVERY: Duration = Duration::from_millis(500);
/// A callback whose receipts are not durable by then is answered "again, please".
const DURABLE_WITHIN: Duration = Duration::from_secs(20);

/// A fleet that holds its folder and answers on its socket.
pub struct Holding {
    /// The fleet.
    pub embedded: Embedded,
    /// What it serves.
    pub surface: Surface,
    /// Where the network is served, when it is.
    pub address: Option<SocketAddr>,
    stop: CancellationToken,
    serving: Vec<JoinHandle<()>>,
}

impl Holding {
    /// Opens the folder, starts all roles and serves.
    ///
    /// # Errors
    /// As for [`Embedded::start`], or an address that cannot be listened on.
    pub async fn start(config: &Config) -> Result<Holding, Fault> {
        let exporter = Exporter::install(COMMIT).map_err(|text| Fault::new(Code::Internal, text))?;
        let embedded = Embedded::start(config).await?;
        let stop = CancellationToken::new();
        let surface = Surface {
            accounts: Arc::new(embedded.edges.accounts()),
            stores: embedded.edges.stores.clone(),
            live: Some(Arc::new(LiveFleet {
                edges: embedded.edges.clone(),
                http: embedded.http.clone(),
                reports: embedded.reports.clone(),
                commit_took: embedded.commit_took.clone(),
                links: embedded.links.clone(),
                failed: embedded.failed.clone(),
            })),
            exporter: Some(exporter.clone()),
            ..still(config, &embedded.opened, embedded.lists.clone(), embedded.edges.webhooks.clone(), embedded.service.clone())
        };
        let mut holding = Holding { embedded, surface, address: None, stop, serving: vec![] };
        if let Err(fault) = holding.serve(config, exporter).await {
            holding.stop().await;
            return Err(fault);
        }
        Ok(holding)
    }

    async fn serve(&mut self, config: &Config, exporter: Exporter) -> Result<(), Fault> {
        let cannot = |what: String, error: std::io::Error| Fault::new(Code::InputInvalid, format!("{what}: {error}"));
        let folder = config.data_dir.clone();
        let listener = socket::listen(&folder)
            .map_err(|error| Fault::new(Code::StoreUnavailable, format!("no socket in {}: {error}", folder.display())))?;
        let (local, stop) = (router::local(self.surface.clone()), self.stop.clone());
        self.serving.push(task::spawn("local socket", async move {
            if let Err(error) = socket::serve(listener, &folder, local, stop).await {
                tracing::error!(%error, "the local socket failed");
            }
        }));
        if let Some(address) = config.serve.listen {
            let tls = config.serve.tls.as_ref().map(|tls| listen::tls(&tls.certificate, &tls.key)).transpose()?;
            if tls.is_none() && !address.ip().is_loopback() {
                tracing::warn!(%address, "the API is served to the network without TLS: set serve.tls, or put a proxy in front");
            }
            let listener =
                TcpListener::bind(address).await.map_err(|error| cannot(format!("cannot listen on {address}"), error))?;
            self.address = listener.local_addr().ok();
            let (public, limits, stop) = (router::public(self.surface.clone()), self.surface.limits, self.stop.clone());
            self.serving.push(task::spawn("network", listen::serve(listener, public, tls, limits, stop)));
        }
        let (edges, stop) = (self.embedded.edges.clone(), self.stop.clone());
        self.serving.push(task::spawn("live rates", follow_rates(edges, stop)));
        let (stop, live, stores) = (self.stop.clone(), self.surface.live.clone(), self.surface.stores.clone());
        self.serving.push(task::spawn("gauges", async move {
            while tokio::time::timeout(TIDY_EVERY, stop.cancelled()).await.is_err() {
                gauges(live.iter().flat_map(|live| live.accounts()), &stores).await;
                exporter.tidy();
            }
        }));
        Ok(())
    }

    /// Drains and closes everything. Who asks on the socket is answered until the folder closes.
    pub async fn stop(self) {
        self.embedded.stop().await;
        self.stop.cancel();
        for serving in self.serving {
            // A client that reads slowly must not keep the process alive.
            let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
        }
    }
}

/// The surface of a folder that no process holds: everything can be read and commanded, nothing is sent.
pub async fn reading(config: &Config) -> Result<(Opened, Router), Fault> {
    let opened = Opened::open(config).await?;
    let lists = Lists::new(config, &opened.world, opened.store.spool())?;
    let select = Selection::new(opened.stores.clone(), config.accounts());
    let service = SmsBatchService::new(opened.stores.clone(), opened.world.clone(), Arc::default(), select);
    let webhooks = opened.webhooks(config)?;
    let surface = still(config, &opened, lists, webhooks, service);
    Ok((opened, router::local(surface)))
}

/// The surface of a store that no fleet runs over.
fn still(config: &Config, opened: &Opened, lists: Lists, webhooks: Arc<Webhooks>, service: SmsBatchService) -> Surface {
    let Opened { stores, world, .. } = opened;
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
    let serve = &config.serve;
    let limits = Limits {
        body_bytes: (serve.body_kb as usize) << 10,
        request: serve.request_timeout,
        requests_per_second: serve.requests_per_second,
        connections: serve.connections as usize,
        head: serve.head_timeout,
    };
    Surface {
        stores: stores.clone(),
        world: world.clone(),
        webhooks,
        eraser: Arc::new(opened.eraser(&lists)),
        accounts: Arc::new(config.accounts()),
        service,
        keys: Arc::new(Keys::new(stores.clone(), world.clone())),
        defaults: Arc::new(defaults),
        lists: Arc::new(ServedLists { lists, stores: stores.clone() }),
        limits,
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

/// Sets what has no moment of its own to be counted at.
async fn gauges(accounts: impl Iterator<Item = LiveAccount>, stores: &Stores) {
    for live in accounts {
        let labels = [live.account.as_str()];
        metrics::set(&metrics::PROVIDER_SESSIONS, &labels, f64::from(live.sessions));
        metrics::set(&metrics::DELIVER_IN_FLIGHT, &labels, live.outstanding as f64);
        metrics::set(&metrics::RATES_SEGMENTS, &labels, live.rate);
        metrics::set(&metrics::RATES_THROTTLED, &labels, live.throttled as f64);
    }
    // A store that does not answer keeps the numbers of before.
    if let Ok((parked, unmatched)) = stores.parked.counts().await {
        metrics::set(&metrics::RECEIPTS_PARKED, &[], parked as f64);
        metrics::set(&metrics::RECEIPTS_UNMATCHED, &[], unmatched as f64);
    }
}

/// Keeps the governors at the rates that were set live; without one, at the configured rates.
async fn follow_rates(edges: Edges, stop: CancellationToken) {
    let mut applied: BTreeMap<String, u32> = BTreeMap::new();
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
            }
            Err(error) => tracing::warn!(code = %error.code, "live rates cannot be read; the accounts keep theirs"),
        }
        if tokio::time::timeout(RATES_EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

struct LiveFleet {
    edges: Edges,
    http: HttpAccounts,
    reports: ReportSink,
    commit_took: Arc<AtomicU64>,
    links: Arc<Redirector>,
    failed: CancellationToken,
}

#[async_trait::async_trait]
impl Live for LiveFleet {
    fn accounts(&self) -> Vec<LiveAccount> {
        let live = self.edges.routes.iter().map(|(name, route)| {
            let (health, rate) = (route.provider.health(), self.edges.rates.view(name));
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

    async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        let account = self.caller(&callback, HttpAccount::receipts_token)?;
        let (body, content_type) = content(&callback);
        let reports = account.parse_receipts(body, content_type)?;
        for reports in reports.chunks(REPORTS_PER_INTAKE) {
            self.take_in(&callback.account, reports.to_vec(), vec![]).await?;
        }
        Ok(reply(account.receipt_reply()))
    }

    async fn inbound(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        let account = self.caller(&callback, HttpAccount::inbound_token)?;
        let (body, content_type) = content(&callback);
        let inbound = account.parse_inbound(body, content_type)?;
        for inbound in inbound.chunks(REPORTS_PER_INTAKE) {
            self.take_in(&callback.account, vec![], inbound.to_vec()).await?;
        }
        Ok(reply(account.inbound_reply()))
    }
}

impl LiveFleet {
    /// The account that a callback names and knows the token of. Digests are compared, so that the time it takes says nothing
    /// about the token; and whether the account or the token is wrong is nobody's business.
    fn caller(&self, callback: &Callback, token: fn(&HttpAccount) -> Option<&str>) -> Result<&HttpAccount, Fault> {
        let digest_of = |text: &str| digest([text.as_bytes()]);
        let knows = |token: &str| {
            !token.is_empty() && callback.token.as_deref().is_some_and(|given| digest_of(given) == digest_of(token))
        };
        let known = self.http.get(&callback.account).filter(|account| token(account).is_some_and(knows));
        known
            .map(|account| &**account)
            .ok_or_else(|| Fault::new(Code::AccountUnknown, "no account takes callbacks under this name and token"))
    }

    /// Returns once everything is durable.
    async fn take_in(&self, account: &str, reports: Vec<Report>, inbound: Vec<Inbound>) -> Result<(), Fault> {
        let (ack, durable) = oneshot::channel();
        let reports = Reports { account: account.to_owned(), reports, inbound, ack };
        let stored = async { self.reports.send(reports).await.is_ok() && durable.await == Ok(true) };
        match tokio::time::timeout(DURABLE_WITHIN, stored).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Fault::new(Code::StoreUnavailable, "it could not be stored now: send it again")),
        }
    }
}

/// What a callback says, and of which kind it is: without a body it says it in its query.
fn content(callback: &Callback) -> (&[u8], &str) {
    if callback.body.is_empty() {
        (callback.query.as_bytes(), "application/x-www-form-urlencoded")
    } else {
        (&callback.body, &callback.content_type)
    }
}

fn reply((content_type, body): (&str, &str)) -> CallbackReply {
    CallbackReply { content_type: content_type.to_owned(), body: body.to_owned() }
}
