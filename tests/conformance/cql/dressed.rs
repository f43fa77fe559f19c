//! How each kind of statement is sent: what the driver is told, on statements that Cassandra prepared.

use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use smsfleet::adapters::scylla::ScyllaConfig;
use smsfleet::adapters::scylla::statement::Statement;

use crate::conformance::fixture::Keyspace;

const READ: Statement = Statement::read("SELECT value FROM meta WHERE name = ?").by(7);
const SERIAL_READ: Statement = Statement::serial_read("SELECT value FROM meta WHERE name = ?");
const WRITE: Statement = Statement::write("INSERT INTO meta (name, value) VALUES (?, ?)");
const CONDITION: Statement = Statement::condition("INSERT INTO meta (name, value) VALUES (?, ?) IF NOT EXISTS");

/// Consistency, whether the driver may repeat it, its own policy of repeating, whether it has the profile of reads.
type Dress = (Option<Consistency>, bool, Option<String>, bool);

fn dress(prepared: &PreparedStatement) -> Dress {
    let repeats = prepared.get_retry_policy().map(|policy| format!("{policy:?}"));
    let is_of_reads = prepared.get_execution_profile_handle().is_some();
    (prepared.get_consistency(), prepared.get_is_idempotent(), repeats, is_of_reads)
}

#[tokio::test]
async fn each_kind_of_statement_is_sent_as_it_must_be() {
    let keyspace = Keyspace::empty().await;
    let session = keyspace.session().await;
    let reads = ExecutionProfile::builder().request_timeout(Some(Duration::from_secs(9))).build().into_handle();
    let never = Some("FallthroughRetryPolicy".to_owned());
    let cases: [(&Statement, &str, i32, Dress); 4] = [
        (&READ, "SELECT value FROM meta WHERE name = ?", 7, (Some(Consistency::Quorum), true, None, true)),
        (&SERIAL_READ, "SELECT value FROM meta WHERE name = ?", 1_000, (Some(Consistency::Serial), true, None, false)),
        (&WRITE, "INSERT INTO meta (name, value) VALUES (?, ?)", 1_000, (Some(Consistency::Quorum), true, never.clone(), false)),
        (
            &CONDITION,
            "INSERT INTO meta (name, value) VALUES (?, ?) IF NOT EXISTS",
            1_000,
            (Some(Consistency::Quorum), false, never, false),
        ),
    ];
    for (statement, text, rows, wanted) in cases {
        let mut prepared = session.prepare(text).await.expect("Cassandra prepares it");
        statement.dress(&mut prepared, &reads);
        assert_eq!(dress(&prepared), wanted, "{text}");
        assert_eq!(prepared.get_serial_consistency(), Some(SerialConsistency::Serial), "one serial level everywhere: {text}");
        assert_eq!(prepared.get_page_size(), rows, "{text}");
    }
}

#[tokio::test]
async fn reads_that_a_second_node_may_be_asked_for_say_what_was_written() {
    let keyspace = Keyspace::empty().await;
    let impatient = ScyllaConfig { speculative_ms: Some(1), ..keyspace.config.clone() };
    let meta = keyspace.connect_by(&impatient).await.stores().meta;
    for n in 0..50 {
        meta.put("speculation", &n.to_string()).await.expect("it is written");
        assert_eq!(meta.get("speculation").await, Ok(Some(n.to_string())));
    }
}
