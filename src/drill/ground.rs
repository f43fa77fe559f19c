//! Where the drill's fleet runs: over a folder of its own, or over the configured cluster in a namespace of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::open::{self, Windows};
use super::worker::Worker;
use crate::model::code::{Code, Fault};
use crate::model::id::{BatchId, WorkerId};
use crate::model::limits::SEND_BY;
use crate::roles::cluster::{migrate, namespace};
use crate::roles::config::Config;
use crate::roles::config_load::{self, Loaded, Sources};
use crate::roles::opened::Opened;
use crate::roles::surface;
use crate::serve::api::{AccountList, FleetView};
use crate::serve::client::Client;
use crate::simulator::Simulator;

/// The account that the drill makes when none is configured.
pub const ACCOUNT: &str = "simulator";
/// What runs embedded, and in a cluster.
pub(super) const EMBEDDED: &[&str] = &["all"];
/// The role that sends in a cluster.
pub(super) const SENDER: &str = "deliver";
const CLUSTER: &[&str] = &["coordinator", "coordinator", "prepare", SENDER, SENDER, SENDER, "gateway"];
/// Whom strikes may hit in a cluster: who sends more often than the others.
const TARGETS: &[&str] = &[SENDER, SENDER, SENDER, "coordinator", "gateway", "prepare"];
/// How much longer than the longest lease a process is frozen.
const BEYOND: Duration = Duration::from_secs(2);
/// How long a process may take until it works: the first start of a cluster's reads every table.
const STARTS_WITHIN: Duration = Duration::from_secs(120);
/// How often it is asked whether it does.
const LOOK: Duration = Duration::from_millis(100);
/// A question that is not answered in this time is asked again.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The ground of one drill.
pub struct Ground {
    /// The folder with the list, the logs and, embedded, the data.
    pub folder: PathBuf,
    /// The configuration as the workers have it.
    pub config: Config,
    /// The provider type that the batch is sent through.
    pub provider_type: String,
    file: Option<PathBuf>,
    keys: Vec<(String, String)>,
    simulator: SocketAddr,
    namespace: Option<String>,
    opened: Option<(Opened, Router)>,
    workers: Vec<Worker>,
    started: u32,
}

impl Ground {
    /// Lays out the ground in `folder`, and in a cluster makes the namespace `name`.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what a server says.
    pub async fn lay(
        given: &Sources,
        folder: PathBuf,
        name: &str,
        simulator: &Simulator,
        stop: &CancellationToken,
    ) -> Result<Ground, Fault> {
        let before = load(given)?;
        let mut keys = common_keys(&folder)?;
        let nowhere = || Fault::new(Code::Internal, "the simulator has no SMPP address");
        let address = simulator.smpp_addr().ok_or_else(nowhere)?;
        if before.config.accounts.is_empty() {
            keys.extend(account_keys(simulator, address));
        }
        let is_cluster = before.config.is_cluster();
        if is_cluster {
            keys.extend(namespace::keys(name));
        }
        let sources = Sources { file: before.file.clone(), flags: keys.clone(), ..given.clone() };
        let config = config(&sources)?;
        // Looked at once more with everything in force: what is sent, is sent by this.
        super::guard::address(&config)?;
        let provider_type = config.accounts().into_values().next().map(|account| account.provider_type).unwrap_or_default();
        let mut ground = Ground {
            folder,
            config,
            provider_type,
            file: before.file,
            keys,
            simulator: address,
            namespace: is_cluster.then(|| name.to_owned()),
            opened: None,
            workers: vec![],
            started: 0,
        };
        if is_cluster {
            migrate::migrate(&ground.config, stop).await?;
            ground.opened = Some(surface::reading(&ground.config).await?);
        }
        Ok(ground)
    }

    /// The namespace on the servers of a cluster; embedded there is none.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// How long a frozen process outlasts every lease: the time in which windows are sent, and a cluster's sessions.
    pub fn beyond_leases(&self) -> Duration {
        let session = if self.namespace.is_some() { self.config.kafka.session_timeout } else { Duration::ZERO };
        SEND_BY.max(session) + BEYOND
    }

    /// The way to the surface: the worker that holds the folder, or straight to the cluster's store.
    pub fn client(&self) -> Client {
        match &self.opened {
            Some((_, router)) => Client::Here(router.clone()),
            None => Client::Socket(self.config.data_dir.clone()),
        }
    }

    /// Starts all workers and waits until each works.
    ///
    /// # Errors
    /// One that ends by itself, with the place of its log.
    pub async fn start_all(&mut self) -> Result<(), Fault> {
        for role in if self.namespace.is_some() { CLUSTER } else { EMBEDDED } {
            self.start(role)?;
        }
        for at in 0..self.workers.len() {
            self.until_it_works(at).await?;
        }
        Ok(())
    }

    /// Starts one worker; its place.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&mut self, role: &'static str) -> Result<usize, Fault> {
        self.started += 1;
        let mut keys = self.keys.clone();
        if self.config.kafka.instance_id.is_some() {
            // Two members of one name would throw each other out.
            keys.push(("kafka.instance_id".into(), format!("drill-{}", self.started)));
        }
        let log = self.folder.join(format!("{role}-{}.log", self.started));
        self.workers.push(Worker::start(role, self.file.as_deref(), &keys, self.simulator, log)?);
        Ok(self.workers.len() - 1)
    }

    /// Waits until a worker takes part.
    ///
    /// # Errors
    /// When it ends instead, or takes too long.
    pub async fn until_it_works(&mut self, at: usize) -> Result<(), Fault> {
        let client = self.client();
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            self.all_live()?;
            let worker = &self.workers[at];
            let works = if self.namespace.is_some() {
                let id = worker.id();
                within(ANSWER_WITHIN, client.get::<FleetView>("/v1/fleet"))
                    .await
                    .is_ok_and(|view| view.members.iter().any(|member| member.alive && member.sheet.pid == id))
            } else {
                within(ANSWER_WITHIN, client.get::<AccountList>("/v1/accounts")).await.is_ok()
            };
            if works {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Fault::new(
                    Code::TooSlow,
                    format!("a {} does not begin to work: {}", worker.role, worker.log.display()),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Refuses to go on when a worker ended that nobody told to.
    ///
    /// # Errors
    /// Names its log.
    pub fn all_live(&mut self) -> Result<(), Fault> {
        for worker in &mut self.workers {
            if let Some(status) = worker.ended()? {
                let context = format!("a {} ended by itself ({status}): see {}", worker.role, worker.log.display());
                return Err(Fault::new(Code::Internal, context));
            }
        }
        Ok(())
    }

    /// The place of a worker that a strike hits, drawn by `whom`.
    pub fn target(&self, whom: u64) -> usize {
        let role = if self.namespace.is_some() { TARGETS[(whom % TARGETS.len() as u64) as usize] } else { EMBEDDED[0] };
        let places: Vec<usize> = (0..self.workers.len()).filter(|at| self.workers[*at].role == role).collect();
        places.get(((whom >> 32) % places.len().max(1) as u64) as usize).copied().unwrap_or(0)
    }

    /// A worker.
    pub fn worker(&mut self, at: usize) -> &mut Worker {
        &mut self.workers[at]
    }

    /// Takes a worker out: it is no longer one of those that must live.
    pub fn remove(&mut self, at: usize) -> Worker {
        self.workers.remove(at)
    }

    /// The name by which the process with this id declares. Embedded there is one process, which needs none.
    pub async fn declarer(&self, pid: u32) -> Option<WorkerId> {
        let (opened, _) = self.opened.as_ref()?;
        tokio::time::timeout(ANSWER_WITHIN, open::declarer(&opened.stores, &opened.world, pid)).await.ok()?
    }

    /// The open windows of a process that stands still or is dead; `None` when a cluster's store does not say so in time.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn open_windows(&self, batch: BatchId, declarer: Option<WorkerId>) -> Result<Option<Windows>, Fault> {
        match (&self.opened, declarer) {
            (Some((opened, _)), Some(worker)) => Ok(open::at_rest(&opened.stores, batch, worker).await),
            (Some(_), None) => Ok(None),
            (None, _) => open::in_folder(&self.config, &self.folder.join("looked-at"), batch).await.map(Some),
        }
    }

    /// Ends all workers in order.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop_all(&mut self) -> Result<(), Fault> {
        let grace = self.config.limits.drain + Duration::from_secs(15);
        let stopping = self.workers.iter_mut().map(|worker| worker.stop(grace));
        let stopped = futures::future::join_all(stopping).await;
        self.workers.clear();
        stopped.into_iter().try_for_each(|stopped| stopped.map(|_| ()))
    }

    /// Ends whoever still runs and removes the namespace. The folder is its owner's to remove.
    ///
    /// # Errors
    /// What a server refuses.
    pub async fn clear(mut self) -> Result<(), Fault> {
        self.workers.clear();
        if let Some((opened, _)) = self.opened.take() {
            opened.close();
        }
        if self.namespace.is_some() { namespace::remove(&self.config).await } else { Ok(()) }
    }
}

/// The configuration that is in force.
///
/// # Errors
/// [`Code::ConfigInvalid`].
pub fn config(sources: &Sources) -> Result<Config, Fault> {
    load(sources).map(|loaded| loaded.config)
}

fn load(sources: &Sources) -> Result<Loaded, Fault> {
    config_load::load(sources).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Fault::new(Code::ConfigInvalid, lines.join("\n  "))
    })
}

/// An answer, or that there is none in time.
///
/// # Errors
/// What the surface says, or [`Code::TooSlow`].
pub async fn within<T>(most: Duration, question: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let silent = || Fault::new(Code::TooSlow, format!("the fleet does not answer within {} s", most.as_secs()));
    tokio::time::timeout(most, question).await.unwrap_or_else(|_| Err(silent()))
}

/// What is set for every worker, whatever the configuration says.
fn common_keys(folder: &Path) -> Result<Vec<(String, String)>, Fault> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| Fault::new(Code::InputInvalid, format!("the path {} is no UTF-8", path.display())))
    };
    let keys = [
        ("data_dir", text(&folder.join("data"))?),
        ("sources.folders", format!("[{:?}]", text(folder)?)),
        ("serve.listen", "127.0.0.1:0".to_owned()),
        // Many lanes, so that a strike meets several at once.
        ("batch.min_recipients_per_lane", "200".to_owned()),
    ];
    Ok(keys.map(|(key, value)| (key.to_owned(), value)).into())
}

/// The account that leads to the simulator.
fn account_keys(simulator: &Simulator, address: SocketAddr) -> Vec<(String, String)> {
    let known = simulator.config();
    let keys = [
        ("answer_timeout", "5".to_owned()),
        ("smpp.host", address.ip().to_string()),
        ("smpp.port", address.port().to_string()),
        ("smpp.system_id", known.system_id),
        ("smpp.password", known.password),
        ("smpp.source_addr", "10690001".to_owned()),
        ("smpp.binds", "2".to_owned()),
        ("smpp.window", "100".to_owned()),
        ("smpp.reconnect_min", "0.1".to_owned()),
    ];
    keys.map(|(key, value)| (format!("accounts.{ACCOUNT}.{key}"), value)).into()
}
