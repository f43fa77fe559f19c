//! What the surface needs of the process it runs in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::access::keys::Keys;
use crate::batch::SmsBatchService;
use crate::coordinate::members;
use crate::links::Redirector;
use crate::model::account::Account;
use crate::model::code::Fault;
use crate::model::fleet::Seen;
use crate::model::schedule::LateStart;
use crate::model::window::OnUncertain;
use crate::ports::tallies::Tallies;
use crate::ports::uploads::Uploads;
use crate::ports::{StoreError, Stores, World};
use crate::privacy::Eraser;
use crate::runtime::metrics::Exporter;
use crate::statistics::LiveAccount;
use crate::webhooks::Webhooks;

pub use super::api::Watched;

/// Everything the surface answers from.
#[derive(Clone)]
pub struct Surface {
    /// The store.
    pub stores: Stores,
    /// Time and chance.
    pub world: World,
    /// The configured accounts.
    pub accounts: Arc<BTreeMap<String, Account>>,
    /// Changes of batches.
    pub service: SmsBatchService,
    /// Keys of the API.
    pub keys: Arc<Keys>,
    /// Where events are told.
    pub webhooks: Arc<Webhooks>,
    /// What erases numbers.
    pub eraser: Arc<Eraser>,
    /// What a new batch has when its request does not say otherwise.
    pub defaults: Arc<Defaults>,
    /// Where lists may be, and where those that are handed in are kept.
    pub lists: Arc<dyn Lists>,
    /// How much is taken of one request.
    pub limits: Limits,
    /// The fleet that runs in this process; `None` when the folder was only opened to be read.
    pub live: Option<Arc<dyn Live>>,
    /// The metrics of this process, where they are counted.
    pub exporter: Option<Exporter>,
    /// The batches that somebody watches.
    pub watched: Arc<Watched>,
}

impl Surface {
    /// What the fleet says of its accounts and its store: the one in this process, else the processes whose sheets are in the
    /// store. Whoever only reads a cluster's store is told the truth too.
    ///
    /// # Errors
    /// What the store says.
    pub async fn seen(&self) -> Result<Seen, StoreError> {
        match &self.live {
            Some(live) => Ok(Seen { accounts: live.accounts(), store_latency_ms: live.store_latency_ms() }),
            None => Ok(Seen::of(&members::all(&self.stores).await?, self.world.clock.now())),
        }
    }
}

/// Lists of recipients, as the service reaches them.
#[async_trait::async_trait]
pub trait Lists: Send + Sync {
    /// Where lists that are handed in are kept.
    fn uploads(&self) -> Arc<dyn Uploads>;

    /// The address of a list as it is stored, if whoever asks may name it: over the network only what the configuration names.
    fn check(&self, table_name: &str, from_network: bool) -> Result<String, Fault>;

    /// Uploads that batches may still read, by id.
    async fn in_use(&self) -> Result<BTreeSet<String>, Fault>;
}

/// What a new batch has when its request does not say otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Whose batches they are, for callers that see all tenants.
    pub tenant: String,
    /// The signature.
    pub signature: String,
    /// Digits behind the sender's number.
    pub ext_code: String,
    /// What short codes are put behind.
    pub link_base: String,
    /// Region of numbers without a country code.
    pub region: String,
    /// What is done with recipients that were handed over and never answered.
    pub on_uncertain: OnUncertain,
    /// A lane has at least this many recipients.
    pub min_recipients_per_lane: u32,
    /// How long after its creation, or its scheduled time, a batch may still be sent.
    pub not_after: Option<Duration>,
    /// What happens to a start that was missed.
    pub late_start: LateStart,
    /// 0 to 9.
    pub priority: u8,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            tenant: "default".into(),
            signature: String::new(),
            ext_code: String::new(),
            link_base: String::new(),
            region: String::new(),
            on_uncertain: OnUncertain::Hold,
            min_recipients_per_lane: 5_000,
            not_after: None,
            late_start: LateStart::Hold,
            priority: 5,
        }
    }
}

/// How much is taken of one request, and of one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body, uploads apart.
    pub body_bytes: usize,
    /// Bytes of all bodies that are not answered yet, uploads and the first 64 KiB of each apart.
    pub bodies_bytes: usize,
    /// Bytes of an upload.
    pub upload_bytes: u64,
    /// How long a request may take, listings, uploads and watchers apart.
    pub request: Duration,
    /// Requests a second of one key.
    pub requests_per_second: u32,
    /// Connections open at once.
    pub connections: usize,
    /// How long a connection may take to send the head of a request.
    pub head: Duration,
    /// How long a connection may stand still while it is answered.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 4 << 20,
            bodies_bytes: 256 << 20,
            upload_bytes: 2 << 30,
            request: Duration::from_secs(60),
            requests_per_second: 200,
            connections: 4_096,
            head: Duration::from_secs(10),
            stall: Duration::from_secs(120),
        }
    }
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

    /// Whether a callback is from an account that takes any of its kind, and knows the token. Asked before its body is read:
    /// strangers fill no memory.
    ///
    /// # Errors
    /// What they are answered, which does not say what is wrong.
    fn admits(&self, kind: CallbackKind, callback: &Callback) -> Result<(), Fault>;

    /// Takes a provider's callback with delivery reports. Answers only once they are durable; a fault is answered to the
    /// provider as its status, so that it sends them again.
    async fn receipts(&self, callback: Callback) -> Result<CallbackReply, Fault>;

    /// Takes a provider's callback with messages of people, under the same rules.
    async fn inbound(&self, callback: Callback) -> Result<CallbackReply, Fault>;
}

/// What a callback carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackKind {
    /// Delivery reports.
    Receipts,
    /// Messages of people.
    Inbound,
}

/// A request with delivery reports, as a provider sent it.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The account it says it is from.
    pub account: String,
    /// The token it carries, in the query (`token=`) or as a bearer.
    pub token: Option<String>,
    /// Its query, without the question mark and the token.
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
