//! Making, or bringing up to date, the tables and the topics of a cluster. Done a second time it changes nothing.

use serde::{Deserialize, Serialize};

use super::servers::{self, Wait};
use crate::adapters;
use crate::model::code::Fault;
use crate::roles::config::Config;
use crate::serve::health::Health;
use tokio_util::sync::CancellationToken;

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// The keyspace.
    pub keyspace: String,
    /// Tables that were made now.
    pub tables_made: Vec<String>,
    /// Tables that were there.
    pub tables_present: Vec<String>,
    /// Topics that were made now.
    pub topics_made: Vec<String>,
    /// Topics that were there.
    pub topics_present: Vec<String>,
}

/// Migrates both; servers that are away are waited for until `stop`.
///
/// # Errors
/// What a server refuses for good; or the last trouble when `stop` comes.
pub async fn migrate(config: &Config, stop: &CancellationToken) -> Result<Migrated, Fault> {
    let wait = Wait { health: Health::starting("it migrates"), stop: stop.clone(), seed: 1 };
    let tables = servers::reach("ScyllaDB", &wait, || adapters::scylla::migrate(&config.scylla)).await?;
    let topics = servers::reach("Kafka", &wait, || adapters::kafka::migrate(&config.kafka)).await?;
    Ok(Migrated {
        keyspace: config.scylla.keyspace.clone(),
        tables_made: tables.made,
        tables_present: tables.found,
        topics_made: topics.created,
        topics_present: topics.present,
    })
}
