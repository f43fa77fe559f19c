//! The embedded fleet with its surface: what a process that holds a data folder runs, and what one that only reads does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::edges::Edges;
use super::embedded::{Embedded, HttpAccounts, Opened};
use super::selection::Selection;
use crate::batch::SmsBatchService;
use crate::model::account::Account;
use crate::model::batch::Command;
use crate::model::code::{Code, Fault};
use crate::model::id::BatchId;
use crate::model::limits::REPORTS_PER_INTAKE;
use crate::ports::provider::{ReportSink, Reports};
use crate::ports::tallies::Tallies;
use crate::runtime::digest::digest;
use crate::runtime::metrics::Exporter;
use crate::runtime::task;
use crate::serve::fleet::{Callback, CallbackReply, Commands, Live, Surface};
use crate::serve::{router, socket};
use crate::statistics::LiveAccount;

/// The commit this was built from, when the build knew it.
pub const COMMIT: &str = match option_env!("SMSFLEET_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// How often histograms are tidied when nobody scrapes them.
const TIDY_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// A callback whose receipts are not durable by then is answered "again, please".
const DURABLE_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);

/// A fleet that holds its folder and answers on its socket.
pub struct Holding {
    /// The fleet.
    pub embedded: Embedded,
    /// What it serves.
    pub surface: Surface,
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
            stores: embedded.edges.stores.clone(),
            accounts: Arc::new(embedded.edges.accounts()),
            clock: embedded.edges.world.clock.clone(),
            commands: Arc::new(Service(embedded.service.clone())),
            live: Some(Arc::new(LiveFleet {
                edges: embedded.edges.clone(),
                http: embedded.http.clone(),
                reports: embedded.reports.clone(),
                commit_took: embedded.commit_took.clone(),
                failed: embedded.failed.clone(),
            })),
            exporter: Some(exporter.clone()),
        };
        let mut holding = Holding { embedded, surface, stop, serving: vec![] };
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
            let listener =
                TcpListener::bind(address).await.map_err(|error| cannot(format!("cannot listen on {address}"), error))?;
            let (public, stop) = (router::public(self.surface.clone()), self.stop.clone());
            self.serving.push(task::spawn("network", async move {
                if let Err(error) = socket::serve_network(listener, public, stop).await {
                    tracing::error!(%error, "the network's listener failed");
                }
            }));
        }
        let stop = self.stop.clone();
        self.serving.push(task::spawn("tidy metrics", async move {
            while tokio::time::timeout(TIDY_EVERY, stop.cancelled()).await.is_err() {
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
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), serving).await;
        }
    }
}

/// The surface of a folder that no process holds: everything can be read and commanded, nothing is sent.
pub async fn reading(config: &Config) -> Result<(Opened, Router), Fault> {
    let opened = Opened::open(config).await?;
    let accounts: Arc<BTreeMap<String, Account>> = Arc::new(config.accounts());
    let service = {
        let select = Selection::new(opened.stores.clone(), config.accounts());
        SmsBatchService::new(opened.stores.clone(), opened.world.clone(), Arc::default(), select)
    };
    let surface = Surface {
        stores: opened.stores.clone(),
        accounts,
        clock: opened.world.clock.clone(),
        commands: Arc::new(Service(service)),
        live: None,
        exporter: None,
    };
    Ok((opened, router::local(surface)))
}

struct Service(SmsBatchService);

#[async_trait::async_trait]
impl Commands for Service {
    async fn command(&self, batch: BatchId, command: Command, argument: Option<String>) -> Result<(), Fault> {
        match command {
            Command::Start => self.0.start(batch, argument.as_deref()).await,
            command => self.0.command(batch, command).await,
        }
        .map(|_| ())
    }
}

struct LiveFleet {
    edges: Edges,
    http: HttpAccounts,
    reports: ReportSink,
    commit_took: Arc<AtomicU64>,
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

    async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault> {
        let known = self.http.get(&callback.account).and_then(|account| Some((account, account.receipts_token()?)));
        let digest_of = |text: &str| digest([text.as_bytes()]);
        // Digests are compared, so that the time it takes says nothing about the token; and whether the account or the token
        // is wrong is nobody's business.
        let Some((account, _)) = known.filter(|(_, token)| {
            !token.is_empty() && callback.token.as_deref().is_some_and(|given| digest_of(given) == digest_of(token))
        }) else {
            return Err(Fault::new(Code::AccountUnknown, "no account takes receipts under this name and token"));
        };
        let reports = if callback.body.is_empty() {
            account.parse_receipts(callback.query.as_bytes(), "application/x-www-form-urlencoded")?
        } else {
            account.parse_receipts(&callback.body, &callback.content_type)?
        };
        for reports in reports.chunks(REPORTS_PER_INTAKE) {
            let (ack, durable) = oneshot::channel();
            let reports = Reports { account: callback.account.clone(), reports: reports.to_vec(), inbound: vec![], ack };
            let stored = async { self.reports.send(reports).await.is_ok() && durable.await == Ok(true) };
            if tokio::time::timeout(DURABLE_WITHIN, stored).await != Ok(true) {
                return Err(Fault::new(Code::StoreUnavailable, "the receipts could not be stored now: send them again"));
            }
        }
        let (content_type, body) = account.receipt_reply();
        Ok(CallbackReply { content_type: content_type.to_owned(), body: body.to_owned() })
    }
}
