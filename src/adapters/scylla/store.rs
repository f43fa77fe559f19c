//! The store's ports over one session.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::bucket::Buckets;
use super::config::ScyllaConfig;
use super::parked::ParkedKept;
use super::schema::check_schema;
use super::session::Cql;
use super::suppressions::SuppressedKept;
use super::uncertain::Accounts;
use crate::adapters::system::SystemClock;
use crate::model::code::{Code, Fault};
use crate::ports::Stores;
use crate::ports::clock::{Chance, Clock};
use crate::ports::meta::Outside;
use crate::runtime::passed::PassedOver;

/// Longer than the seventy-two hours for which a receipt is waited for.
const INDEX_TTL_MIN: Duration = Duration::from_secs(72 * 3_600);
/// The longest time to live that the servers take.
const TTL_MAX: u64 = 20 * 365 * 24 * 3_600;

/// What the store needs from the rest of the fleet.
#[derive(Clone)]
pub struct CqlOptions {
    /// How long a message id and an uncertain recipient can be found: longer than receipts are waited for.
    pub index_ttl: Duration,
    /// Where random numbers come from.
    pub chance: Arc<dyn Chance>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where the store's mark is left.
    pub outside: Arc<dyn Outside>,
}

impl CqlOptions {
    /// With the machine's clock.
    pub fn new(index_ttl: Duration, chance: Arc<dyn Chance>, outside: Arc<dyn Outside>) -> CqlOptions {
        CqlOptions { index_ttl, chance, clock: Arc::new(SystemClock), outside }
    }
}

/// The store over CQL. Any number of processes have one each; what they share is in the cluster.
pub struct CqlStore {
    pub(super) cql: Cql,
    pub(super) index_ttl: i32,
    pub(super) chance: Arc<dyn Chance>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outside: Arc<dyn Outside>,
    /// Made once with the schema: tells this store from every other.
    pub(super) incarnation: String,
    /// Buckets that this process has noted already.
    pub(super) buckets: Buckets,
    /// Counts calls for the active batches, so that some of them look for entries that nobody needs any more.
    pub(super) active_calls: AtomicU32,
    pub(super) accounts: Accounts,
    pub(super) parked: ParkedKept,
    pub(super) unread_batches: PassedOver,
    pub(super) unread_parked: PassedOver,
    pub(super) suppressed: SuppressedKept,
    /// Held by whoever reserves link numbers.
    pub(super) reserving: tokio::sync::Mutex<()>,
}

impl CqlStore {
    /// Connects once, and checks that the schema is this version's.
    ///
    /// # Errors
    /// As for [`Cql::connect`] and [`check_schema`]; [`Code::ConfigInvalid`] for a time to live that is too short.
    pub async fn connect(config: &ScyllaConfig, options: CqlOptions) -> Result<Arc<CqlStore>, Fault> {
        let ttl = options.index_ttl.as_secs();
        if options.index_ttl <= INDEX_TTL_MIN || ttl > TTL_MAX {
            let context = format!("message ids are found for {ttl} s: it must be more than 72 hours, and less than 20 years");
            return Err(Fault::new(Code::ConfigInvalid, context));
        }
        let cql = Cql::connect(config).await?;
        let incarnation = check_schema(&cql, config).await?;
        Ok(Arc::new(CqlStore {
            cql,
            index_ttl: i32::try_from(ttl).unwrap_or(i32::MAX),
            chance: options.chance,
            clock: options.clock,
            outside: options.outside,
            incarnation,
            buckets: Buckets::default(),
            active_calls: AtomicU32::new(0),
            accounts: Accounts::default(),
            parked: ParkedKept::default(),
            unread_batches: PassedOver::of("batch"),
            unread_parked: PassedOver::of("parked"),
            suppressed: SuppressedKept::default(),
            reserving: tokio::sync::Mutex::new(()),
        }))
    }

    /// The ports.
    pub fn stores(self: &Arc<CqlStore>) -> Stores {
        Stores::of(self)
    }

    /// Which store this is: made once with its schema, so that another keyspace, or one made anew, is another store.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }
}
