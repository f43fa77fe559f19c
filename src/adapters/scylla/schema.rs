//! Making the schema, and checking at every start that it is the one this version reads.

use scylla::errors::ExecutionError;

use super::config::{Flavour, ScyllaConfig};
use super::error;
use super::session::Cql;
use super::statement::Statement;
use super::tables::{CORE, Table};
use super::tables_service::SERVICE;
use crate::adapters::system::SeededChance;
use crate::model::code::{Code, Fault};
use crate::model::limits::DELIVERY_PARTITIONS;
use crate::ports::clock::Chance;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

pub(super) const READ_META: Statement = Statement::serial_read("SELECT value FROM meta WHERE name = ?");
const ADD_META: Statement = Statement::condition("INSERT INTO meta (name, value) VALUES (?, ?) IF NOT EXISTS");
const READ_TABLES: Statement = Statement::read("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?");

/// What `smsfleet migrate` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The keyspace.
    pub keyspace: String,
    /// Tables that were made.
    pub made: Vec<String>,
    /// Tables that were there.
    pub found: Vec<String>,
}

/// Makes the keyspace and all tables that are not there, one after another: Cassandra does not bear changes of the schema at
/// once. Nothing that is there is changed.
///
/// # Errors
/// As for [`Cql::connect`]; [`Code::ServerSchema`] when another version or other settings made what is there.
pub async fn migrate(config: &ScyllaConfig) -> Result<Report, Fault> {
    let bare = Cql::connect_bare(config).await?;
    let failed = |what: String| move |error: ExecutionError| error::setup(config, &what, &error);
    let keyspace = config.keyspace.clone();
    bare.define(&keyspace_text(config)).await.map_err(failed(format!("the keyspace {keyspace} cannot be made")))?;
    drop(bare);
    let cql = Cql::connect(config).await?;
    let there = tables_there(&cql, config).await?;
    let mut report = Report { keyspace, ..Report::default() };
    for table in all_tables() {
        if there.iter().any(|name| name == table.name) {
            report.found.push(table.name.to_owned());
            continue;
        }
        cql.define(&table_text(table)).await.map_err(failed(format!("the table {} cannot be made", table.name)))?;
        report.made.push(table.name.to_owned());
    }
    let chance = SeededChance::from_system();
    let incarnation = format!("{:016x}{:016x}", chance.next(), chance.next());
    let rows = [("format", FORMAT.to_string()), ("partitions", DELIVERY_PARTITIONS.to_string()), ("incarnation", incarnation)];
    for (name, value) in rows {
        cql.cas(&ADD_META, (name, value)).await?;
    }
    check_schema(&cql, config).await?;
    Ok(report)
}

/// Removes the keyspace with everything in it.
///
/// # Errors
/// As for [`Cql::connect`]; what the server refuses.
pub async fn remove(config: &ScyllaConfig) -> Result<(), Fault> {
    let bare = Cql::connect_bare(config).await?;
    let keyspace = &config.keyspace;
    let dropped = bare.define(&format!("DROP KEYSPACE IF EXISTS {keyspace}")).await;
    dropped.map(|_| ()).map_err(|error| error::setup(config, &format!("the keyspace {keyspace} cannot be removed"), &error))
}

/// Checks that all tables are there and were made by this format, and gives back which store it is.
///
/// # Errors
/// [`Code::ServerSchema`] saying what differs.
pub async fn check_schema(cql: &Cql, config: &ScyllaConfig) -> Result<String, Fault> {
    let keyspace = &config.keyspace;
    let differs = |what: String| Fault::new(Code::ServerSchema, format!("keyspace {keyspace} (scylla.keyspace): {what}"));
    let there = tables_there(cql, config).await?;
    let missing: Vec<&str> =
        all_tables().map(|table| table.name).filter(|name| !there.iter().any(|found| found == name)).collect();
    if !missing.is_empty() {
        return Err(differs(format!("tables are missing: {}", missing.join(", "))));
    }
    let meta = async |name: &'static str| -> Result<String, Fault> {
        let row: Option<(String,)> = cql.first(&READ_META, (name,)).await?;
        row.map(|(value,)| value).ok_or_else(|| differs(format!("the row {name:?} of the table meta is missing")))
    };
    for (name, wanted) in [("format", FORMAT), ("partitions", u32::from(DELIVERY_PARTITIONS))] {
        let found = meta(name).await?;
        if found != wanted.to_string() {
            return Err(differs(format!("its {name} is {found}, this version's is {wanted}")));
        }
    }
    meta("incarnation").await
}

fn all_tables() -> impl Iterator<Item = &'static Table> {
    CORE.iter().chain(SERVICE)
}

async fn tables_there(cql: &Cql, config: &ScyllaConfig) -> Result<Vec<String>, Fault> {
    let rows: Vec<(String,)> = cql.rows(&READ_TABLES, (config.keyspace.as_str(),)).await?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}

fn keyspace_text(config: &ScyllaConfig) -> String {
    // Conditional writes do not go with tablets in several releases of ScyllaDB; Cassandra does not know the option.
    let tablets = match config.flavour {
        Flavour::Scylla => " AND tablets = {'enabled': false}",
        Flavour::Cassandra => "",
    };
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {}}}{tablets}",
        config.keyspace, config.replication
    )
}

fn table_text(table: &Table) -> String {
    let options = if table.options.is_empty() { String::new() } else { format!(" WITH {}", table.options) };
    format!("CREATE TABLE IF NOT EXISTS {} ({}){options}", table.name, table.columns)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_flavours_differ_in_tablets_alone() {
        let text = |flavour| keyspace_text(&ScyllaConfig { flavour, ..ScyllaConfig::default() });
        let (scylla, cassandra) = (text(Flavour::Scylla), text(Flavour::Cassandra));
        assert_eq!(scylla, format!("{cassandra} AND tablets = {{'enabled': false}}"));
        assert!(cassandra.ends_with("'replication_factor': 3}"));
    }

    /// What every table of a lane's rows is partitioned by: without the bucket a large lane would be one partition.
    #[test]
    fn rows_of_a_large_lane_are_partitioned_by_range_or_bucket() {
        let partition = |name: &str| {
            let table = all_tables().find(|table| table.name == name).unwrap_or_else(|| panic!("{name} is a table"));
            let (_, key) = table.columns.split_once("PRIMARY KEY ((").expect("a composite key");
            key.split_once(')').expect("it closes").0
        };
        assert_eq!(partition("sms_delivery_pack"), "batch_id, lane, range_no");
        for name in ["send_window", "receipt"] {
            assert_eq!(partition(name), "batch_id, lane, bucket");
        }
        assert_eq!((partition("reject"), partition("suppressed")), ("batch_id, range_no", "bucket"));
        assert_eq!((partition("document"), partition("batch_by_day")), ("shelf, bucket", "day, shard"));
    }

    #[test]
    fn tables_have_names_of_their_own_and_use_nothing_that_one_server_alone_knows() {
        let names: BTreeSet<&str> = all_tables().map(|table| table.name).collect();
        assert_eq!(names.len(), all_tables().count());
        for table in all_tables() {
            let text = table_text(table);
            assert!(text.contains("PRIMARY KEY"), "{}", table.name);
            for only in ["tablets", "paxos_grace", "tombstone_gc", "per_partition_rate", "Incremental", "counter"] {
                assert!(!text.contains(only), "{}: {only}", table.name);
            }
        }
    }
}
