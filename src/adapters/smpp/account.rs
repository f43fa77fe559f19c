//! An SMPP account: the provider port over its sessions.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::config::SmppConfig;
use super::connect;
use super::core::{Core, Counters};
use super::pdu::Template;
use crate::adapters::secure;
use crate::adapters::waiting::{self, Queue};
use crate::model::account::Account;
use crate::model::code::Fault;
use crate::ports::clock::{Chance, Clock};
use crate::ports::provider::{Chunk, Health, Provider, ReportSink};
use crate::runtime::pulse::{self, Turns};
use crate::runtime::task;

/// How long sessions get beyond the grace period to say good-bye.
const FAREWELL: Duration = Duration::from_secs(2);

/// An account that speaks SMPP 3.4. Dropping it closes it without grace.
pub struct SmppAccount {
    core: Arc<Core>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    window: u32,
}

impl SmppAccount {
    /// Checks the configuration and starts the sessions; they connect on their own and go on trying. Receipts go to `sink`.
    /// Fails with `ConfigInvalid` or `ProviderTls` only for what no later try could mend.
    pub fn start(
        account: Account,
        config: SmppConfig,
        sink: ReportSink,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<Arc<SmppAccount>, Fault> {
        config.check()?;
        let template = Template::new(&account, &config)?;
        let tls = if config.tls.on {
            Some(TlsConnector::from(Arc::new(secure::client_config(config.tls.ca_file.as_deref())?)))
        } else {
            None
        };
        let roles = config.sessions();
        let window = roles.iter().filter(|role| role.sends()).count() as u32 * config.window;
        let core = Arc::new(Core {
            queue: Queue::new(2 * window as usize, account.capabilities.long_message),
            template,
            tls,
            sink,
            clock,
            chance,
            closing: watch::Sender::new(None),
            counters: Counters::default(),
            bound: AtomicU64::new(0),
            bound_to_send: AtomicU64::new(0),
            outstanding: roles.iter().map(|_| AtomicU64::new(0)).collect(),
            last_error: Mutex::new(None),
            account,
            config,
        });
        let mut tasks = vec![task::spawn("smpp sweep", {
            let core = core.clone();
            async move { waiting::sweep(&core.queue, &*core.clock, core.closing.subscribe()).await }
        })];
        for (index, role) in roles.into_iter().enumerate() {
            let keeping = pulse::watch("smpp account", Turns::WhenWoken, connect::keep(core.clone(), index, role));
            tasks.push(task::spawn("smpp session", keeping));
        }
        Ok(Arc::new(SmppAccount { core, tasks: Mutex::new(tasks), window }))
    }

    /// What happened since it was started.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    fn stop(&self, grace: Duration) {
        self.core.queue.close();
        let deadline = Instant::now() + grace;
        self.core.closing.send_modify(|closing| *closing = Some(closing.map_or(deadline, |earlier| earlier.min(deadline))));
    }
}

#[async_trait::async_trait]
impl Provider for SmppAccount {
    async fn submit(&self, chunk: Chunk) -> Result<(), Chunk> {
        self.core.queue.put(chunk, &*self.core.clock).await
    }

    fn health(&self) -> Health {
        self.core.health()
    }

    fn window(&self) -> u32 {
        self.window
    }

    async fn close(&self, grace: Duration) {
        self.stop(grace);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let limit = Instant::now() + grace + FAREWELL;
        for mut task in tasks {
            if tokio::time::timeout_at(limit, &mut task).await.is_err() {
                // Its window answers everything when it is dropped.
                task.abort();
                let _ = task.await;
            }
        }
    }
}

impl Drop for SmppAccount {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
