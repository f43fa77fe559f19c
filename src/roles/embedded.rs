//! The embedded fleet: all roles in one process over one durable folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::accounts::{Accounts, HttpAccounts};
use super::config::Config;
use super::coordinator::{self, Leading};
use super::edges::Edges;
use super::fleet::{Ends, Fleet, Settings};
use super::opened::Opened;
use super::sources::Lists;
use crate::adapters::embedded::EmbeddedStore;
use crate::adapters::memory::budget::BudgetedPacks;
use crate::adapters::memory::lease::MemoryLease;
use crate::adapters::memory::queue::MemoryBroker;
use crate::adapters::memory::rates::LocalRates;
use crate::adapters::memory::tallies::MemoryTallies;
use crate::adapters::source;
use crate::batch::SmsBatchService;
use crate::coordinate::leader::Terms;
use crate::coordinate::mark::MARK_EVERY;
use crate::coordinate::sweeper::Keep;
use crate::deliver::Delivery;
use crate::links::{ClickLog, Redirector, Settings as LinkSettings};
use crate::model::code::Fault;
use crate::model::id::WorkerId;
use crate::model::limits::{RANGE_RECORDS, RANGE_TASKS_PER_PREPARER};
use crate::ports::Stores;
use crate::ports::provider::{Provider, ReportSink, Reports};
use crate::prepare::tools::Settings as PrepareSettings;
use crate::runtime::metrics;
use crate::runtime::task::Tasks;

/// How long openings of links that still wait may take to be stored when the fleet stops.
pub(super) const CLICKS_WITHIN: Duration = Duration::from_secs(2);
/// Batches of reports that wait for the intake.
pub(super) const REPORTS_WAITING: usize = 64;

/// A fleet that runs over a folder.
pub struct Embedded {
    /// The folder.
    pub opened: Opened,
    store: Arc<EmbeddedStore>,
    /// The edges.
    pub edges: Edges,
    /// Batches and commands.
    pub service: SmsBatchService,
    /// Cancelled when the disk failed or a role ended by itself: the process should end with an error.
    pub failed: CancellationToken,
    /// Where reports that come in over HTTP go.
    pub reports: ReportSink,
    /// Where lists come from, and where those that are handed in are kept.
    pub lists: Lists,
    /// Accounts that get their receipts by callback.
    pub http: HttpAccounts,
    /// Microseconds that the store's last sampled commit took; 0 before the first.
    pub commit_took: Arc<AtomicU64>,
    /// Short links.
    pub links: Arc<Redirector>,
    clicks: (CancellationToken, tokio::task::JoinHandle<()>),
    /// The queues.
    pub(super) broker: Arc<MemoryBroker>,
    providers: Vec<Arc<dyn Provider>>,
    fleet: Fleet,
    marks: Tasks,
    grace: Duration,
}

impl Embedded {
    /// Opens the folder and starts all roles.
    ///
    /// # Errors
    /// As for [`Opened::open`] and [`Opened::check_mark`]; or an account that can never work as it is configured.
    pub async fn start(config: &Config) -> Result<Embedded, Fault> {
        let (opened, store) = Opened::folder(config).await?;
        opened.check_mark().await?;
        let world = opened.world.clone();
        let (reports, reports_in) = mpsc::channel::<Reports>(REPORTS_WAITING);
        let Accounts { routes, http, .. } = Accounts::start(config, None, &world, &reports)?;
        let lists = Lists::new(config, &world, store.spool())?;
        let providers = routes.values().map(|route| route.provider.clone()).collect();
        let budgeted = BudgetedPacks::new(opened.stores.packs.clone());
        let stores = Stores { packs: budgeted.clone(), ..opened.stores.clone() };
        let broker = Arc::new(MemoryBroker::new());
        let limits = routes.iter().map(|(name, route)| (name.clone(), route.account.rate));
        let edges = Edges {
            stores,
            rates: Arc::new(LocalRates::new(limits, world.clock.boot())),
            world,
            source: lists.source.clone(),
            uploads: Some(lists.uploads.clone()),
            routes,
            tallies: Arc::new(MemoryTallies::new()),
            lease: Arc::new(MemoryLease::new()),
            sender: broker.sender(),
            budget: budgeted,
            webhooks: opened.webhooks(config)?,
            wake: Arc::new(Notify::new()),
        };
        let ends = Ends {
            lead: Some(Leading::default()),
            prepare: Some(broker.join_prepare()),
            delivery: Some(broker.join_delivery()),
            reports: Some(reports_in),
        };
        let settings = settings(config);
        let worker = WorkerId(edges.world.chance.next());
        let fleet = Fleet::start(edges.clone(), ends, settings.clone(), worker);
        let marks = Tasks::default();
        let meta = opened.stores.meta.clone();
        let commit_took = Arc::new(AtomicU64::new(0));
        let took = commit_took.clone();
        marks.spawn("mark", async move {
            loop {
                let began = Instant::now();
                match meta.raise_mark().await {
                    // A mark is one synced commit like any other, among the others: a fair sample of what they take.
                    Ok(_) => {
                        took.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                        metrics::observe(&metrics::STORE_COMMIT, &[], began.elapsed());
                    }
                    Err(error) => tracing::warn!(code = %error.code(), "the mark of the store could not be raised"),
                }
                tokio::time::sleep(MARK_EVERY).await;
            }
        });
        marks.spawn("spool", keep_spool(store.spool(), settings.coordinator.keep.texts));
        let (log, writer) = ClickLog::new(edges.stores.clone(), edges.world.clone());
        let links = Arc::new(Redirector::new(edges.stores.clone(), edges.world.clone(), link_settings(config), log));
        let stop_clicks = CancellationToken::new();
        let clicks = (stop_clicks.clone(), marks.spawn("clicks", writer.run(stop_clicks)));
        let service = edges.service();
        let failed = CancellationToken::new();
        let (failing, disk, died) = (failed.clone(), store.failed(), fleet.died.clone());
        marks.spawn("failure", async move {
            tokio::select! {
                biased;
                () = disk.cancelled() => tracing::error!("the disk failed"),
                () = died.cancelled() => {}
            }
            failing.cancel();
        });
        Ok(Embedded {
            opened,
            store,
            edges,
            service,
            failed,
            reports,
            lists,
            http,
            commit_took,
            links,
            clicks,
            broker,
            providers,
            fleet,
            marks,
            grace: settings.grace,
        })
    }

    /// The delivery worker, to be looked at.
    pub(super) fn delivery(&self) -> Option<Arc<Delivery>> {
        self.fleet.delivery.clone()
    }

    /// Stops from the source's end: nothing new is handed over, answers are waited for, accounts say good-bye, receipts are
    /// stored to the last, and the folder is closed.
    pub async fn stop(mut self) {
        self.fleet.stop_working().await;
        let closing = self.providers.iter().map(|provider| provider.close(self.grace));
        futures::future::join_all(closing).await;
        self.fleet.stop().await;
        self.clicks.0.cancel();
        let _ = tokio::time::timeout(CLICKS_WITHIN, self.clicks.1).await;
        self.marks.abort_all();
        self.store.close();
    }
}

impl Embedded {
    /// Ends everything where it stands, as a crash does, so that the folder can be opened again.
    pub fn crash(self) {
        self.fleet.crash();
        self.marks.abort_all();
        self.store.close();
    }
}

/// Between two looks for copies of lists that are let go.
const SPOOL_EVERY: Duration = Duration::from_secs(600);
/// How long a plain copy of a compressed or recoded list is kept after its last use: it holds a whole list of people on a machine
/// that an erasure may not reach, and is made again when it is needed.
const CONVERTED_KEPT: Duration = Duration::from_secs(3_600);

/// Lets go of copies of lists: at the start those that a killed process left half-written, then those that nothing has used
/// for as long as texts are kept, or for an hour when they can be made again.
pub(super) async fn keep_spool(spool: PathBuf, keep: Duration) {
    if let Err(error) = source::sweep(&spool) {
        tracing::warn!(%error, "half-written copies of lists could not be removed");
    }
    loop {
        let since = |keep| SystemTime::now().checked_sub(keep).unwrap_or(SystemTime::UNIX_EPOCH);
        let converted = source::expire_converted(&spool, since(CONVERTED_KEPT));
        match source::expire(&spool, since(keep)).and_then(|copies| Ok(copies + converted?)) {
            Ok(0) => {}
            Ok(copies) => tracing::info!(copies, "old copies of lists were let go"),
            Err(error) => tracing::warn!(%error, "old copies of lists could not be removed"),
        }
        tokio::time::sleep(SPOOL_EVERY).await;
    }
}

pub(super) fn link_settings(config: &Config) -> LinkSettings {
    let links = &config.links;
    LinkSettings {
        expire: Duration::from_secs(u64::from(links.expire_days) * 86_400),
        fallback: links.fallback.clone(),
        parameters: links.parameters.clone().into_iter().collect(),
        address_header: links.address_header.clone(),
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    let day = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    let keep = Keep {
        texts: day(config.retention.texts_days),
        history: day(config.retention.history_days),
        batch: day(config.retention.batch_days),
        index: day(config.retention.index_days),
        audit: day(config.retention.audit_days),
        inbox: day(config.retention.inbox_days),
        clicks: day(config.retention.clicks_days),
        dead: day(config.retention.dead_days),
        answers: day(config.retention.answers_days),
        uploads: day(config.uploads.keep_days),
    };
    let mut prepare = PrepareSettings::default();
    if config.limits.prepare_tasks > 0 {
        prepare.tasks = config.limits.prepare_tasks as usize;
    }
    let coordinator = coordinator::Settings {
        terms: Terms::default(),
        every: Duration::from_millis(100),
        range_records: RANGE_RECORDS,
        range_tasks: prepare.tasks * RANGE_TASKS_PER_PREPARER,
        keep,
        // One process has all sessions of an account, and holds the folder.
        bind_slots: BTreeMap::new(),
        raise_mark: false,
    };
    Settings { coordinator, prepare, grace: config.limits.drain }
}
