//! Lists and indexes beside the rows: what late and repeated writes leave of them.

use smsfleet::model::batch::Command;
use smsfleet::model::id::{BatchId, Msisdn, WindowKey};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::control::Cas;
use smsfleet::ports::receipts::IndexEntry;

use crate::conformance::fixture::{Keyspace, batch_row, lane, part};
use crate::conformance::windows::window_row;

const DAY: i64 = 24 * 3_600_000;

#[tokio::test]
async fn a_creation_that_comes_again_after_the_end_leaves_no_trace() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    let (id, row) = (BatchId(1), batch_row(1, 5));
    assert_eq!(stores.batches.insert(id, &row, 1).await, Ok(Cas::Applied));
    let ended = row.command(Command::EntryProcess, Timestamp(6)).and_then(|row| row.command(Command::Cancel, Timestamp(7)));
    assert_eq!(stores.batches.replace(id, 1, &ended.expect("it is canceled"), 2).await, Ok(Cas::Applied));
    // The same request once more, by another process, whose clock differs.
    let other = keyspace.connect().await.stores();
    assert_eq!(other.batches.insert(id, &row, 3).await, Ok(Cas::Refused));
    assert_eq!(stores.batch_index.active().await, Ok(vec![]), "the version has the last word");
    assert_eq!(other.batches.insert(id, &batch_row(1, 3 * DAY), 4).await, Ok(Cas::Refused));
    let (listed, next) = stores.batch_index.list(None, 9).await.expect("a list");
    assert_eq!((listed.len(), listed[0].row.created, next), (1, Timestamp(5), None));
}

#[tokio::test]
async fn entries_that_nobody_needs_go_after_a_while() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    stores.batches.insert(BatchId(2), &batch_row(2, 5), 1).await.expect("it is created");
    // A creation that came to nothing long ago, and one that may be on its way.
    let now = 10_000_000_000_000i64;
    for (id, noted) in [(16, 1), (17, now)] {
        let text = format!(
            "INSERT INTO active_batch (shard, batch_id, created, noted) VALUES ({}, 0x{id:032x}, 1, {noted}) USING TIMESTAMP 1",
            id % 8
        );
        keyspace.run(&text).await;
    }
    let first = stores.batch_index.active().await.expect("they are listed");
    assert_eq!(first, [BatchId(2), BatchId(16), BatchId(17)]);
    for _ in 0..256 {
        stores.batch_index.active().await.expect("they are listed");
    }
    assert_eq!(stores.batch_index.active().await, Ok(vec![BatchId(2), BatchId(17)]));
}

#[tokio::test]
async fn batches_are_listed_over_days_and_shards() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    // Days 0, 1 and 40; within a day all shards, and times that are equal.
    let created = |id: u128| [0, 1, 40][(id % 3) as usize] * DAY + (id / 9) as i64;
    for id in 0..36 {
        stores.batches.insert(BatchId(id), &batch_row(id, created(id)), 1).await.expect("it is created");
    }
    // No day is one partition: each has all eight.
    let partitions: Vec<(i32, i32)> = keyspace.rows("SELECT DISTINCT day, shard FROM batch_by_day").await;
    let days: std::collections::BTreeSet<i32> = partitions.iter().map(|(day, _)| *day).collect();
    assert_eq!((partitions.len(), days), (24, [0, 1, 40].into()), "{partitions:?}");
    let mut expected: Vec<u128> = (0..36).collect();
    expected.sort_by_key(|id| std::cmp::Reverse((created(*id), *id)));
    for page in [1, 5, 12, 36, 100] {
        let (mut seen, mut place) = (Vec::new(), None);
        loop {
            let (listed, next) = stores.batch_index.list(place, page).await.expect("a page");
            assert!(listed.len() <= page);
            seen.extend(listed.iter().map(|listed| listed.batch.0));
            place = next;
            if place.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "by {page}");
    }
}

#[tokio::test]
async fn an_id_that_many_recipients_had_is_found_newest_first_over_batches_of_any_size() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    let entry =
        |id: String, seq| IndexEntry { account: "a".into(), message_id: id, number: Msisdn(seq), part: part(1, seq as u32) };
    // More rows of one partition than one batch takes, and ids that count up.
    let mut entries: Vec<IndexEntry> = (0..450).map(|seq| entry("77".into(), seq)).collect();
    entries.extend((0..1_000).map(|seq| entry(format!("{seq:08}"), 1_000 + seq)));
    let key = WindowKey { lane: lane(1, 3), window: 700 };
    stores.windows.put(key, &window_row(700, 2_000, 5), entries).await.expect("it is stored");
    let ids: Vec<_> = std::iter::once(("77".to_owned(), None)).chain((0..1_000).map(|n| (format!("{n:08}"), None))).collect();
    let found = stores.receipt_index.find("a", &ids).await.expect("they are looked up");
    assert_eq!(found[0], (0..450).rev().map(|seq| part(1, seq)).collect::<Vec<_>>());
    for (n, found) in found[1..].iter().enumerate() {
        assert_eq!(found, &[part(1, 1_000 + n as u32)], "{n}");
    }
    // And each goes by itself, some time after receipts are waited for no more.
    let lives = keyspace.number("SELECT TTL(place) FROM provider_message LIMIT 1").await;
    assert!((72 * 3_600..=73 * 3_600).contains(&lives), "{lives} s");
}
