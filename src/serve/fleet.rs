//! What the surface needs of the process it runs in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::links::Redirector;
use crate::model::account::Account;
use crate::model::batch::Command;
use crate::model::code::Fault;
use crate::model::id::BatchId;
use crate::ports::Stores;
use crate::ports::clock::Clock;
use crate::ports::tallies::Tallies;
use crate::runtime::metrics::Exporter;
use crate::statistics::LiveAccount;

/// Everything the surface answers from.
#[derive(Clone)]
pub struct Surface {
    /// The store.
    pub stores: Stores,
    /// The configured accounts.
    pub accounts: Arc<BTreeMap<String, Account>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Changes of batches.
    pub commands: Arc<dyn Commands>,
    /// The fleet that runs in this process; `None` when the folder was only opened to be read.
    pub live: Option<Arc<dyn Live>>,
    /// The metrics of this process, where they are counted.
    pub exporter: Option<Exporter>,
}

/// Changes of batches, as `SmsBatchService` makes them.
#[async_trait::async_trait]
pub trait Commands: Send + Sync {
    /// Carries out a command. `argument` is the new provider type of [`Command::ChangeProvider`], and the plan hash that an
    /// operator approves with [`Command::Start`].
    async fn command(&self, batch: BatchId, command: Command, argument: Option<String>) -> Result<(), Fault>;
}

/// A fleet that runs in this process.
#[async_trait::async_trait]
pub trait Live: Send + Sync {
    /// Its accounts now.
    fn accounts(&self) -> Vec<LiveAccount>;

    /// Milliseconds that the store's latest commits took, when they are measured.
    fn store_latency_ms(&self) -> Option<f64>;

    /// Live counters.
    fn tallies(&self) -> Arc<dyn Tallies>;

    /// Why it cannot work now, when it cannot.
    fn ready(&self) -> Result<(), String>;

    /// Short links, where this process serves them.
    fn links(&self) -> Option<Arc<Redirector>> {
        None
    }

    /// Takes a provider's callback with delivery reports. Answers only once they are durable; a fault is answered to the
    /// provider as its status, so that it sends them again.
    async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault>;

    /// Takes a provider's callback with messages of people, under the same rules.
    async fn inbound(&self, callback: Callback) -> Result<CallbackReply, Fault>;
}

/// A request with delivery reports, as a provider sent it.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The account it says it is from.
    pub account: String,
    /// The token it carries, in the query (`token=`) or as a bearer.
    pub token: Option<String>,
    /// Its query, without the question mark.
    pub query: String,
    /// Its content type, without parameters.
    pub content_type: String,
    /// Its body.
    pub body: Bytes,
}

/// What a provider wants to hear once its reports are durable.
#[derive(Clone, Debug, Default)]
pub struct CallbackReply {
    /// The content type.
    pub content_type: String,
    /// The body.
    pub body: String,
}
