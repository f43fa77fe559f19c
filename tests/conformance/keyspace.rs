//! Keyspaces on the shared server.
//!
//! Making all tables takes a server of tests several seconds of its processors' time, so most tests take an empty keyspace
//! from a few that stay, one test at a time, whichever process it is in. A test that changes the schema makes its own, which
//! is removed with everything in it.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
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

/// Keyspaces that stay, at most.
const SHARED: usize = 16;
/// What their tables were made from: another form of them is another keyspace.
const TABLES: [&str; 3] = [
    include_str!("../../src/adapters/scylla/tables.rs"),
    include_str!("../../src/adapters/scylla/tables_service.rs"),
    include_str!("../../src/adapters/scylla/schema.rs"),
];

/// How long message ids are found in tests: the shortest that is allowed.
pub const INDEX_TTL: Duration = Duration::from_secs(73 * 3_600);

/// A keyspace for one test.
pub struct Keyspace {
    pub config: ScyllaConfig,
    pub outside: MarkCell,
    /// The place among those that stay; `None`: it is this test's own.
    shared: Option<File>,
}

fn config(keyspace: String) -> ScyllaConfig {
    ScyllaConfig {
        nodes: vec![servers::cql()],
        keyspace,
        replication: 1,
        flavour: Flavour::Cassandra,
        // The server shares two cores with everything else.
        request_timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        ..ScyllaConfig::default()
    }
}

impl Keyspace {
    /// An empty keyspace with all tables.
    pub async fn empty() -> Keyspace {
        let (place, number) = free_place().await;
        let mut form = DefaultHasher::new();
        TABLES.hash(&mut form);
        let keyspace = Keyspace {
            config: config(format!("t{:016x}_{number}", form.finish())),
            outside: MarkCell::default(),
            shared: Some(place),
        };
        {
            let _alone = CHANGING.lock().await;
            migrate(&keyspace.config).await.expect("the schema is made");
        }
        keyspace.clear().await;
        keyspace
    }

    /// A keyspace with all tables that is this test's own.
    pub async fn made() -> Keyspace {
        let keyspace = Keyspace::named();
        let _alone = CHANGING.lock().await;
        migrate(&keyspace.config).await.expect("the schema is made");
        keyspace
    }

    /// The name of a keyspace that is not there.
    pub fn named() -> Keyspace {
        let name = format!("t{:016x}", SeededChance::from_system().next());
        Keyspace { config: config(name), outside: MarkCell::default(), shared: None }
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
        self.session().await.query_unpaged(text, ()).await.expect("it is done")
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

    /// A bare session in it, past the store.
    pub async fn session(&self) -> Session {
        // A change of the schema waits behind those of other tests.
        let patient = ExecutionProfile::builder().request_timeout(Some(Duration::from_secs(120))).build();
        let session = SessionBuilder::new().known_nodes(&self.config.nodes).keyspaces_to_fetch([&self.config.keyspace]);
        let session = session.default_execution_profile_handle(patient.into_handle());
        session.use_keyspace(&self.config.keyspace, true).build().await.expect("a session")
    }

    /// Empties every table, whatever an earlier test left, and takes the mark back.
    async fn clear(&self) {
        let session = self.session().await;
        let run = async |text: String| session.query_unpaged(text, ()).await.expect("it is done");
        let names = run(format!("SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{}'", self.config.keyspace));
        let names = names.await.into_rows_result().expect("rows");
        for name in names.rows::<(String,)>().expect("names") {
            let (name,) = name.expect("a name");
            // Entries of this one carry small timestamps: they would be hidden by those that were deleted earlier.
            let is_used = name == "active_batch"
                || name != "meta"
                    && run(format!("SELECT * FROM {name} LIMIT 1")).await.into_rows_result().expect("rows").rows_num() > 0;
            if is_used {
                run(format!("TRUNCATE {name}")).await;
            }
        }
        run("DELETE FROM meta WHERE name = 'mark' IF EXISTS".to_owned()).await;
    }
}

/// Waits for a place among the keyspaces that stay; it is held as long as the file is open.
async fn free_place() -> (File, usize) {
    let folder = servers::folder().join("keyspaces");
    std::fs::create_dir_all(&folder).expect("a folder");
    loop {
        for number in 0..SHARED {
            let file = File::create(folder.join(number.to_string())).expect("a file");
            if file.try_lock().is_ok() {
                return (file, number);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for Keyspace {
    /// Removed even when its test failed, by a thread of its own: the test's runtime may be going down.
    fn drop(&mut self) {
        if self.shared.is_some() {
            return;
        }
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
