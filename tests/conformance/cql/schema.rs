//! Making the schema, and noticing that it is another one.

use std::sync::Arc;

use smsfleet::adapters::scylla::{CqlOptions, CqlStore, migrate};
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::code::{Code, Fault};
use smsfleet::ports::StoreError;
use smsfleet::ports::meta::{Left, Outside};

use crate::conformance::fixture::Keyspace;
use crate::conformance::keyspace::INDEX_TTL;

async fn start(keyspace: &Keyspace) -> Result<Arc<CqlStore>, Fault> {
    let options = CqlOptions::new(INDEX_TTL, Arc::new(SeededChance::from_system()), Arc::new(keyspace.outside.clone()));
    CqlStore::connect(&keyspace.config, options).await
}

async fn refused(keyspace: &Keyspace) -> String {
    let fault = start(keyspace).await.err().expect("it does not start");
    assert_eq!(fault.code, Code::ServerSchema, "{fault}");
    fault.context
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_mends_what_is_missing() {
    let keyspace = Keyspace::made().await;
    let store = start(&keyspace).await.expect("it starts");
    store.stores().meta.put("a", "kept").await.expect("it is stored");
    let again = migrate(&keyspace.config).await.expect("it is there");
    assert_eq!((again.made.as_slice(), again.found.contains(&"lane_ledger".to_owned())), (&[][..], true));
    assert_eq!(start(&keyspace).await.expect("it starts").incarnation(), store.incarnation());
    keyspace.run("DROP TABLE lane_ledger").await;
    assert!(refused(&keyspace).await.contains("lane_ledger"));
    assert_eq!(migrate(&keyspace.config).await.expect("it is mended").made, ["lane_ledger"]);
    let mended = start(&keyspace).await.expect("it starts");
    assert_eq!(mended.stores().meta.get("a").await, Ok(Some("kept".into())));
}

#[tokio::test]
async fn another_format_is_refused_by_a_start_and_by_migrate() {
    let keyspace = Keyspace::made().await;
    keyspace.run("UPDATE meta SET value = '99' WHERE name = 'format' IF value = '1'").await;
    assert!(refused(&keyspace).await.contains("its format is 99"));
    assert_eq!(migrate(&keyspace.config).await.map_err(|fault| fault.code), Err(Code::ServerSchema));
    keyspace.run("UPDATE meta SET value = '1' WHERE name = 'format' IF value = '99'").await;
    keyspace.run("UPDATE meta SET value = '64' WHERE name = 'partitions' IF value = '128'").await;
    assert!(refused(&keyspace).await.contains("its partitions is 64"));
}

#[tokio::test]
async fn a_restored_store_is_noticed_until_it_is_accepted() {
    let keyspace = Keyspace::empty().await;
    let store = start(&keyspace).await.expect("it starts");
    let meta = store.stores().meta;
    assert_eq!((meta.raise_mark().await, meta.raise_mark().await), (Ok(1), Ok(2)));
    // As a backup has it.
    keyspace.run("UPDATE meta SET value = '1' WHERE name = 'mark' IF value = '2'").await;
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("restored")));
    assert!(matches!(meta.raise_mark().await, Err(StoreError::Unavailable(_))), "that would wipe out the trace");
    meta.accept().await.expect("it is accepted");
    assert_eq!((meta.check_mark().await, meta.raise_mark().await), (Ok(Ok(())), Ok(4)));
    // A later backup of the lost time, put back after that.
    keyspace.run("UPDATE meta SET value = '2' WHERE name = 'mark' IF value = '4'").await;
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("restored")));
    meta.accept().await.expect("it is accepted");
    assert_eq!((meta.check_mark().await, meta.raise_mark().await), (Ok(Ok(())), Ok(6)));
    let left = Left { mark: 1, identity: "another".into() };
    keyspace.outside.write(left).await.expect("it is left");
    assert!(matches!(meta.check_mark().await, Ok(Err(why)) if why.contains("another")));
}

#[tokio::test]
async fn marks_of_two_processes_never_meet() {
    let keyspace = Keyspace::empty().await;
    let raising = (0..2).map(|_| async {
        let meta = start(&keyspace).await.expect("it starts").stores().meta;
        let mut seen = Vec::new();
        for _ in 0..10 {
            // A mark that the other left outside meanwhile may be ahead of what was read before.
            seen.extend(meta.raise_mark().await);
        }
        seen
    });
    let mut marks: Vec<u64> = futures::future::join_all(raising).await.concat();
    let all = marks.len();
    marks.sort_unstable();
    marks.dedup();
    assert_eq!((marks.len(), all), (20, 20), "{marks:?}");
}
