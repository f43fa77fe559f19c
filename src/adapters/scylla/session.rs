//! One session with the cluster, and the four things that are done with it: read, write, write many rows of one partition,
//! and write under a condition.
//!
//! Every request waits for one of a bounded number of places, so that no caller can flood the cluster however much it writes
//! at once. Timestamps are given by this process and never go back: what one process wrote later is later, whichever node
//! it was sent to.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use scylla::client::PoolSize;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{ExecutionError, PrepareError};
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;
use scylla::response::PagingState;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::bound::BoundStatement;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, Row};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config::ScyllaConfig;
use super::error::{self, Asked};
use super::statement::Statement;
use super::tls;
use crate::adapters::rows::frame::corrupt;
use crate::model::code::{Code, Fault};
use crate::ports::StoreError;
use crate::ports::control::Cas;
use crate::runtime::metrics;

/// Bytes of rows in one batch at most: servers refuse batches of 50 KiB, and warn long before.
const BATCH_BYTES_MAX: usize = 40_000;
/// Rows in one batch at most.
const BATCH_ROWS_MAX: usize = 200;
/// Between two looks whether all nodes have the same schema.
const AGREEMENT_INTERVAL: Duration = Duration::from_millis(50);
/// How often a write that may be repeated is sent at most before its caller hears of it.
const TRIES: u32 = 3;
/// The column that says whether a conditional write was applied. Servers differ in which other columns they send, and
/// where.
const APPLIED: &str = "[applied]";

/// A session with the cluster.
pub struct Cql {
    session: Session,
    reads: ExecutionProfileHandle,
    prepared: RwLock<HashMap<&'static str, Arc<PreparedStatement>>>,
    places: Semaphore,
    keyspace: String,
    request_timeout: Duration,
}

impl Cql {
    /// Connects once, with the fleet's keyspace in use.
    ///
    /// # Errors
    /// [`Code::ServerUnavailable`], [`Code::ServerLogin`], [`Code::ServerTls`], or [`Code::ServerSchema`] when there is no
    /// such keyspace; each names the address and the setting.
    pub async fn connect(config: &ScyllaConfig) -> Result<Cql, Fault> {
        Cql::open(config, true).await
    }

    /// Connects once, without a keyspace: for making it.
    pub(super) async fn connect_bare(config: &ScyllaConfig) -> Result<Cql, Fault> {
        Cql::open(config, false).await
    }

    async fn open(config: &ScyllaConfig, in_keyspace: bool) -> Result<Cql, Fault> {
        if let Some((key, text)) = config.check().into_iter().next() {
            return Err(Fault::new(Code::ConfigInvalid, format!("scylla.{key} {text}")));
        }
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::Quorum)
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(config.request_timeout))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .load_balancing_policy(DefaultPolicy::builder().token_aware(true).build());
        let speculation =
            config.speculative_ms.map(|after| -> Arc<dyn scylla::policies::speculative_execution::SpeculativeExecutionPolicy> {
                Arc::new(SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: Duration::from_millis(after) })
            });
        let profile = profile.build();
        let reads = profile.to_builder().speculative_execution_policy(speculation).build().into_handle();
        let connections = NonZeroUsize::new(config.connections as usize).unwrap_or(NonZeroUsize::MIN);
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.nodes)
            .default_execution_profile_handle(profile.into_handle())
            .connection_timeout(config.connect_timeout)
            .hostname_resolution_timeout(Some(config.connect_timeout))
            .pool_size(PoolSize::PerShard(connections))
            .keyspaces_to_fetch([&config.keyspace])
            // What a session needs to know of the tables it reads when it starts; whoever makes tables starts another.
            .refresh_metadata_on_auto_schema_agreement(false)
            .schema_agreement_interval(AGREEMENT_INTERVAL)
            .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()));
        if let Some(datacenter) = &config.datacenter {
            builder = builder.prefer_datacenter(datacenter.clone());
        }
        if !config.username.is_empty() {
            builder = builder.user(&config.username, config.password.expose());
        }
        if config.tls.enabled {
            builder = builder.tls_context(Some(tls::context(&config.tls)?));
        }
        if in_keyspace {
            builder = builder.use_keyspace(&config.keyspace, true);
        }
        // The driver's own limit covers a connection, not what is said on it: a node that takes connections and never says
        // anything would be waited for without end.
        let limit = config.connect_timeout * u32::try_from(config.nodes.len() + 1).unwrap_or(u32::MAX);
        let session = match tokio::time::timeout(limit, builder.build()).await {
            Ok(built) => built.map_err(|error| error::connect(config, &error))?,
            Err(_) => return Err(error::silent(config, limit)),
        };
        check_datacenter(config, &session)?;
        Ok(Cql {
            session,
            reads,
            prepared: RwLock::default(),
            places: Semaphore::new(config.in_flight as usize),
            keyspace: config.keyspace.clone(),
            request_timeout: config.request_timeout,
        })
    }

    /// The first row, or none.
    pub async fn first<R, V>(&self, statement: &'static Statement, values: V) -> Result<Option<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
        V: SerializeRow + Send + Sync,
    {
        let bound = self.bind(statement, &values).await?;
        let result = {
            let _place = self.place("read").await?;
            self.session.execute_bound_unpaged(&bound).await.map_err(|error| error::request(Asked::Read, &error))?
        };
        let rows = result.into_rows_result().map_err(|error| corrupt("answer", &error.to_string()))?;
        rows.maybe_first_row().map_err(|error| corrupt("row", &error.to_string()))
    }

    /// All rows, page by page. For what is known to be small.
    pub async fn rows<R, V>(&self, statement: &'static Statement, values: V) -> Result<Vec<R>, StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm> + Send,
        V: SerializeRow + Send + Sync,
    {
        let mut all = Vec::new();
        self.scan(statement, values, |row| {
            all.push(row);
            Ok(true)
        })
        .await?;
        Ok(all)
    }

    /// Shows rows to `each`, page by page, until it answers false.
    pub async fn scan<R, V>(
        &self,
        statement: &'static Statement,
        values: V,
        mut each: impl FnMut(R) -> Result<bool, StoreError> + Send,
    ) -> Result<(), StoreError>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
        V: SerializeRow + Send + Sync,
    {
        let bound = self.bind(statement, &values).await?;
        let mut from = PagingState::start();
        loop {
            let (result, next) = {
                let _place = self.place("read").await?;
                let page = self.session.execute_bound_single_page(&bound, from).await;
                page.map_err(|error| error::request(Asked::Read, &error))?
            };
            let rows = result.into_rows_result().map_err(|error| corrupt("answer", &error.to_string()))?;
            for row in rows.rows::<R>().map_err(|error| corrupt("row", &error.to_string()))? {
                if !each(row.map_err(|error| corrupt("row", &error.to_string()))?)? {
                    return Ok(());
                }
            }
            // A page may be cut short anywhere: only the server says that it was the last.
            match next.into_paging_control_flow() {
                std::ops::ControlFlow::Continue(state) => from = state,
                std::ops::ControlFlow::Break(()) => return Ok(()),
            }
        }
    }

    /// Writes, durably. Sent again where another node may do it; an overload is the caller's to wait out.
    pub async fn write<V>(&self, statement: &'static Statement, values: V) -> Result<(), StoreError>
    where
        V: SerializeRow + Send + Sync,
    {
        let bound = self.bind(statement, &values).await?;
        let _place = self.place("write").await?;
        let mut tries = Tries::new();
        loop {
            match self.session.execute_bound_unpaged(&bound).await {
                Ok(_) => return Ok(()),
                Err(error) => tries.goes_on(&error)?,
            }
        }
    }

    /// Writes rows of ONE partition by the same statement, in unlogged batches that servers take: each batch is one write of
    /// that partition. `bytes` says about how many bytes a row has.
    pub async fn write_rows<V>(
        &self,
        statement: &'static Statement,
        rows: Vec<V>,
        bytes: impl Fn(&V) -> usize + Send,
    ) -> Result<(), StoreError>
    where
        V: SerializeRow + Send + Sync,
    {
        let (mut rows, mut chunk, mut size) = (rows.into_iter().peekable(), Vec::new(), 0);
        while let Some(row) = rows.next() {
            size += bytes(&row);
            chunk.push(row);
            let is_full = chunk.len() >= BATCH_ROWS_MAX || rows.peek().is_none_or(|next| size + bytes(next) > BATCH_BYTES_MAX);
            if is_full {
                self.write_chunk(statement, std::mem::take(&mut chunk)).await?;
                size = 0;
            }
        }
        Ok(())
    }

    async fn write_chunk<V>(&self, statement: &'static Statement, mut rows: Vec<V>) -> Result<(), StoreError>
    where
        V: SerializeRow + Send + Sync,
    {
        if rows.len() == 1
            && let Some(row) = rows.pop()
        {
            return self.write(statement, row).await;
        }
        let prepared = self.prepared(statement).await?;
        let statements = vec![BatchStatement::PreparedStatement((*prepared).clone()); rows.len()];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_consistency(Consistency::Quorum);
        batch.set_is_idempotent(true);
        batch.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        let _place = self.place("write").await?;
        let mut tries = Tries::new();
        loop {
            match self.session.batch(&batch, &rows).await {
                Ok(_) => return Ok(()),
                Err(error) => tries.goes_on(&error)?,
            }
        }
    }

    /// Writes under the statement's condition: sent once, and never again but by whoever reads the row first.
    pub async fn cas<V>(&self, statement: &'static Statement, values: V) -> Result<Cas, StoreError>
    where
        V: SerializeRow + Send + Sync,
    {
        let bound = self.bind(statement, &values).await?;
        let _place = self.place("conditional").await?;
        let result = self.session.execute_bound_unpaged(&bound).await;
        read_cas(result.map_err(|error| error::request(Asked::Condition, &error))?)
    }

    /// Runs a statement that is not prepared: for tables and keyspaces.
    pub(super) async fn define(&self, text: &str) -> Result<QueryResult, ExecutionError> {
        self.session.query_unpaged(text, ()).await
    }

    async fn bind<V: SerializeRow + Sync>(
        &self,
        statement: &'static Statement,
        values: &V,
    ) -> Result<BoundStatement, StoreError> {
        let prepared = self.prepared(statement).await?;
        (*prepared).clone().bind(values).map_err(|error| corrupt("row to be written", &error.to_string()))
    }

    /// The statement, prepared now or earlier. Two that prepare it at once both may: one is kept.
    async fn prepared(&self, statement: &'static Statement) -> Result<Arc<PreparedStatement>, StoreError> {
        let known = self.prepared.read().unwrap_or_else(PoisonError::into_inner).get(statement.text).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        // The driver itself waits for ever for a node that does not answer a preparation.
        let preparing = tokio::time::timeout(self.request_timeout, self.session.prepare(statement.text_in(&self.keyspace)));
        let mut prepared = match preparing.await {
            Ok(answer) => answer.map_err(|error| unprepared(&error))?,
            Err(_) => return Err(StoreError::Unavailable("no node prepared the statement in time".into())),
        };
        statement.dress(&mut prepared, &self.reads);
        let prepared = Arc::new(prepared);
        self.prepared.write().unwrap_or_else(PoisonError::into_inner).insert(statement.text, prepared.clone());
        Ok(prepared)
    }

    /// Waits for a place among the requests on their way, and counts the request.
    async fn place(&self, kind: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        metrics::count(&metrics::STORE_REQUESTS, &[kind], 1);
        self.places.acquire().await.map_err(|_| StoreError::Unavailable("the session is closed".into()))
    }
}

fn unprepared(error: &PrepareError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// A datacenter that the cluster does not have would leave every request without a node.
fn check_datacenter(config: &ScyllaConfig, session: &Session) -> Result<(), Fault> {
    let Some(wanted) = &config.datacenter else { return Ok(()) };
    let state = session.get_cluster_state();
    let mut known: Vec<&str> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
    known.sort_unstable();
    known.dedup();
    if known.contains(&wanted.as_str()) {
        return Ok(());
    }
    let context =
        format!("the store at {} has no datacenter {wanted:?} (scylla.datacenter); it has {known:?}", config.addresses());
    Err(Fault::new(Code::ConfigInvalid, context))
}

/// The tries of one write that may be repeated: what its caller hears in the end covers them all.
struct Tries {
    left: u32,
    may_have_happened: bool,
}

impl Tries {
    fn new() -> Tries {
        Tries { left: TRIES, may_have_happened: false }
    }

    /// Whether to try again; else the answer for the caller.
    fn goes_on(&mut self, error: &ExecutionError) -> Result<(), StoreError> {
        self.left -= 1;
        let answer = error::request(Asked::Write, error);
        self.may_have_happened |= matches!(answer, StoreError::Unknown(_));
        if self.left > 0 && error::is_worth_another_try(error) {
            return Ok(());
        }
        Err(if self.may_have_happened { StoreError::Unknown(error.to_string()) } else { answer })
    }
}

fn read_cas(result: QueryResult) -> Result<Cas, StoreError> {
    let unread = |why: &str| StoreError::Unknown(format!("the answer to a conditional write cannot be read: {why}"));
    let rows = result.into_rows_result().map_err(|error| unread(&error.to_string()))?;
    let row: Option<Row> = rows.maybe_first_row().map_err(|error| unread(&error.to_string()))?;
    let row = row.ok_or_else(|| unread("it is empty"))?;
    applied(rows.column_specs().iter().map(|column| column.name()), &row.columns)
        .ok_or_else(|| unread("it does not say [applied]"))
}

fn applied<'a>(names: impl Iterator<Item = &'a str>, columns: &[Option<CqlValue>]) -> Option<Cas> {
    let mut named = names.zip(columns);
    match named.find(|(name, _)| *name == APPLIED)? {
        (_, Some(CqlValue::Boolean(true))) => Some(Cas::Applied),
        (_, Some(CqlValue::Boolean(false))) => Some(Cas::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use scylla::errors::{DbError, RequestAttemptError};

    use super::*;

    #[test]
    fn applied_is_found_by_its_name_in_the_forms_of_both_servers() {
        let yes = || Some(CqlValue::Boolean(true));
        let no = || Some(CqlValue::Boolean(false));
        let old = || Some(CqlValue::BigInt(7));
        // Cassandra: alone when applied, with the row when not.
        assert_eq!(applied(["[applied]"].into_iter(), &[yes()]), Some(Cas::Applied));
        assert_eq!(applied(["[applied]", "version"].into_iter(), &[no(), old()]), Some(Cas::Refused));
        // ScyllaDB: the old row in any case, with nulls where there was none; a column of the table may be boolean too.
        let names = ["flag", "[applied]", "version"];
        assert_eq!(applied(names.into_iter(), &[no(), yes(), old()]), Some(Cas::Applied));
        assert_eq!(applied(names.into_iter(), &[yes(), no(), old()]), Some(Cas::Refused));
        assert_eq!(applied(names.into_iter(), &[None, yes(), None]), Some(Cas::Applied));
        assert_eq!(applied(["version"].into_iter(), &[old()]), None);
        assert_eq!(applied(["[applied]"].into_iter(), &[None]), None);
    }

    #[test]
    fn a_write_that_may_have_happened_in_an_earlier_try_stays_unknown() {
        let answer = |error| ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()));
        let mut tries = Tries::new();
        assert_eq!(tries.goes_on(&answer(DbError::ServerError)), Ok(()), "another node may do it");
        assert!(matches!(tries.goes_on(&ExecutionError::EmptyPlan), Err(StoreError::Unknown(_))));
        let mut tries = Tries::new();
        assert_eq!(tries.goes_on(&answer(DbError::IsBootstrapping)), Ok(()));
        assert!(matches!(tries.goes_on(&ExecutionError::EmptyPlan), Err(StoreError::Unavailable(_))));
        let mut tries = Tries::new();
        let ends = (0..TRIES).map(|_| tries.goes_on(&answer(DbError::ServerError)).is_err()).collect::<Vec<_>>();
        assert_eq!(ends, [false, false, true]);
    }

    #[test]
    fn an_overload_is_told_to_the_caller_and_never_sent_again_at_once() {
        let overloaded = ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Overloaded, String::new()));
        assert!(matches!(Tries::new().goes_on(&overloaded), Err(StoreError::Unknown(_))));
    }
}
