//! A keyspace for one test on the shared server: made with all tables, and removed with everything in it.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::query_result::QueryResult;
use smsfleet::adapters::embedded::keyed::MarkCell;
use smsfleet::adapters::scylla::config::{Flavour, ScyllaConfig};
use smsfleet::adapters::scylla::{CqlOptions, CqlStore, migrate};
use smsfleet::adapters::system::SeededChance;
use smsfleet::ports::clock::Chance;

use crate::servers;

/// Cassandra does not bear changes of the schema at once, not even of different keyspaces.
static CHANGING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long message ids are found in tests: the shortest that is allowed.
pub const INDEX_TTL: Duration = Duration::from_secs(73 * 3_600);

/// See the file's first sentence.
pub struct Keyspace {
    pub config: ScyllaConfig,
    pub outside: MarkCell,
}

impl Keyspace {
    /// A keyspace with all tables, under a name of its own.
    pub async fn made() -> Keyspace {
        let keyspace = Keyspace::named();
        let _alone = CHANGING.lock().await;
        migrate(&keyspace.config).await.expect("the schema is made");
        keyspace
    }

    /// The name of a keyspace that is not there.
    pub fn named() -> Keyspace {
        let config = ScyllaConfig {
            nodes: vec![servers::cql()],
            keyspace: format!("t{:016x}", SeededChance::from_system().next()),
            replication: 1,
            flavour: Flavour::Cassandra,
            // The server shares two cores with everything else.
            request_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(20),
            ..ScyllaConfig::default()
        };
        Keyspace { config, outside: MarkCell::default() }
    }

    /// A store on it, as a process has one.
    pub async fn connect(&self) -> Arc<CqlStore> {
        self.connect_by(&self.config).await
    }

    /// A store on it by another way.
    pub async fn connect_by(&self, config: &ScyllaConfig) -> Arc<CqlStore> {
        let chance = Arc::new(SeededChance::from_system());
        let options = CqlOptions::new(INDEX_TTL, chance, Arc::new(self.outside.clone()));
        CqlStore::connect(config, options).await.expect("it connects")
    }

    /// Runs CQL in the keyspace, past the store.
    pub async fn run(&self, text: &str) -> QueryResult {
        let session = SessionBuilder::new().known_nodes(&self.config.nodes).keyspaces_to_fetch([&self.config.keyspace]);
        let session = session.use_keyspace(&self.config.keyspace, true).build().await.expect("a session");
        session.query_unpaged(text, ()).await.expect("it is done")
    }

    /// What a query answers, past the store.
    pub async fn rows<R>(&self, text: &str) -> Vec<R>
    where
        R: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        let answer = self.run(text).await.into_rows_result().expect("rows");
        answer.rows().expect("of this kind").map(|row| row.expect("a row")).collect()
    }

    /// The one number that a query answers.
    pub async fn number(&self, text: &str) -> i32 {
        let rows = self.run(text).await.into_rows_result().expect("rows");
        rows.single_row::<(i32,)>().expect("a number").0
    }
}

impl Drop for Keyspace {
    /// Removed even when its test failed, by a thread of its own: the test's runtime may be going down.
    fn drop(&mut self) {
        let (nodes, keyspace) = (self.config.nodes.clone(), self.config.keyspace.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let _alone = CHANGING.lock().await;
                let session = SessionBuilder::new().known_nodes(&nodes).keyspaces_to_fetch([&keyspace]).build().await;
                let session = session.map_err(std::io::Error::other)?;
                let dropped = session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {keyspace}"), ()).await;
                dropped.map(|_| ()).map_err(std::io::Error::other)
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the keyspace {} is left behind: {error}", self.config.keyspace),
            Err(_) => eprintln!("the keyspace {} is left behind", self.config.keyspace),
        }
    }
}
