//! What this process says of itself, every few seconds: its sheet in the store, by which people and the leader know it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::adapters::kafka::Kafka;
use crate::coordinate::members;
use crate::deliver::Delivery;
use crate::model::fleet::{FleetRole, Lag, SHEET_EVERY, Sheet};
use crate::model::id::WorkerId;
use crate::model::time::Timestamp;
use crate::prepare::worker::Partitions;
use crate::roles::coordinator::Leading;
use crate::roles::edges::Edges;
use crate::roles::gauges;
use crate::roles::surface::VERSION;
use crate::runtime::metrics;
use crate::serve::health::Health;

/// So many sheets that could not be written one after the other make a process not ready.
const MISSED_MAX: u32 = 3;
/// How long the lag may take to be measured.
const LAG_WITHIN: Duration = Duration::from_secs(2);

/// Where the facts of a sheet come from.
pub struct Facts {
    /// What the process is for.
    pub role: FleetRole,
    /// Its name.
    pub worker: WorkerId,
    /// The machine's name.
    pub host: String,
    /// When it began.
    pub started: Timestamp,
    /// Store, accounts, rates.
    pub edges: Edges,
    /// The queues.
    pub kafka: Arc<Kafka>,
    /// Since when it leads, where it may.
    pub leading: Option<Leading>,
    /// What it delivers, where it does.
    pub delivery: Option<Arc<Delivery>>,
    /// The partitions it prepares from, where it does.
    pub preparing: Option<Partitions>,
}

impl Facts {
    async fn sheet(&self, commit: Option<Duration>) -> Sheet {
        let leads_since = self.leading.as_ref().and_then(|since| *since.lock().unwrap_or_else(PoisonError::into_inner));
        let holds = self.delivery.as_ref().map(|delivery| delivery.holds()).unwrap_or_default();
        let wanted = self.delivery.as_ref().map(|delivery| gauges::wanted(&self.edges, delivery)).unwrap_or_default();
        let sends = self.delivery.is_some();
        let partitions = self.preparing.as_ref().map_or(holds.partitions, Partitions::now);
        Sheet {
            worker: self.worker,
            role: self.role,
            host: self.host.clone(),
            pid: std::process::id(),
            version: VERSION.to_owned(),
            started: self.started,
            at: self.edges.world.clock.now(),
            leads_since,
            lag: if leads_since.is_some() { self.lag().await } else { None },
            partitions: partitions.into_iter().collect(),
            lanes: holds.lanes.into_iter().collect(),
            accounts: if sends { self.edges.live_accounts() } else { vec![] },
            wanted: wanted.into_iter().collect(),
            commit_ms: commit.map(|took| took.as_secs_f64() * 1_000.0),
        }
    }

    async fn lag(&self) -> Option<Lag> {
        match tokio::time::timeout(LAG_WITHIN, self.kafka.lag()).await {
            Ok(Ok(lag)) => {
                gauges::lag(lag.prepare, lag.delivery);
                Some(Lag { prepare: lag.prepare, delivery: lag.delivery })
            }
            Ok(Err(fault)) => {
                tracing::debug!(code = %fault.code, "the lag cannot be measured: {}", fault.context);
                None
            }
            Err(_) => None,
        }
    }
}

/// Writes sheets until `stop`, then takes the last one away.
pub async fn keep(facts: Facts, health: Health, stop: CancellationToken) {
    let (mut missed, mut commit) = (0, None);
    loop {
        let sheet = facts.sheet(commit).await;
        let began = Instant::now();
        match members::write(&facts.edges.stores, &sheet).await {
            Ok(()) => {
                missed = 0;
                health.works("store");
                // One conditional write among the others: a fair sample of what they take here.
                let took = began.elapsed();
                metrics::observe(&metrics::STORE_COMMIT, &[], took);
                commit = Some(took);
            }
            Err(error) => {
                missed += 1;
                tracing::warn!(code = %error.code(), %error, "this process's sheet could not be written");
                if missed >= MISSED_MAX {
                    health.fails("store", format!("ScyllaDB does not answer (scylla.nodes): {error}"));
                }
            }
        }
        if tokio::time::timeout(SHEET_EVERY, stop.cancelled()).await.is_ok() {
            break;
        }
    }
    if let Err(error) = members::leave(&facts.edges.stores, facts.worker).await {
        tracing::warn!(code = %error.code(), "this process's sheet could not be taken away; it is forgotten after a while");
    }
}
