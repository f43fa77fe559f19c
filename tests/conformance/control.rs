//! Control rows: compare-and-set, and the lists that change with them.

use smsfleet::model::batch::Command;
use smsfleet::model::id::{BatchId, RangeKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::record::{RangePlan, RangeRow};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::control::Cas;

use super::fixture::{batch_row, lane, over_all};

#[test]
fn a_row_is_created_once_and_replaced_only_at_its_version() {
    over_all(async |subject| {
        let ledgers = subject.stores().ledgers;
        let key = lane(1, 0);
        assert_eq!(ledgers.load(key).await, Ok(None));
        assert_eq!(ledgers.replace(key, 1, &Ledger::sealed(1), 5).await, Ok(Cas::Refused), "there is nothing to replace");
        assert_eq!(ledgers.insert(key, &Ledger::sealed(1), 5).await, Ok(Cas::Applied));
        assert_eq!(ledgers.insert(key, &Ledger::sealed(2), 6).await, Ok(Cas::Refused));
        let first = ledgers.load(key).await.expect("it is read").expect("it is there");
        assert_eq!((first.version, first.nonce, first.row), (1, 5, Ledger::sealed(1)));
        for wrong in [0, 2, u64::MAX - 1] {
            assert_eq!(ledgers.replace(key, wrong, &Ledger::sealed(9), 7).await, Ok(Cas::Refused));
        }
        assert_eq!(ledgers.replace(key, 1, &Ledger::sealed(3), 7).await, Ok(Cas::Applied));
        let second = ledgers.load(key).await.expect("it is read").expect("it is there");
        assert_eq!((second.version, second.nonce, second.row), (2, 7, Ledger::sealed(3)));
        let subject = subject.restarted().await;
        let again = subject.stores().ledgers;
        assert_eq!(again.load(key).await.expect("it is read").map(|row| row.version), Some(2));
    });
}

#[test]
fn of_many_racers_one_wins_each_round() {
    over_all(async |subject| {
        let key = lane(1, 0);
        let ledgers = subject.stores().ledgers;
        ledgers.insert(key, &Ledger::sealed(1), 0).await.expect("it is created");
        for version in 1..6 {
            let racers: Vec<_> = (0..64u64)
                .map(|nonce| {
                    let ledgers = ledgers.clone();
                    tokio::spawn(async move {
                        let won = ledgers.replace(key, version, &Ledger::sealed(nonce as u32), nonce).await == Ok(Cas::Applied);
                        // Whoever was answered reads at least what was applied.
                        let seen = ledgers.load(key).await.expect("it is read").expect("it is there").version;
                        assert!(seen > version, "an answer came before its change could be seen");
                        won.then_some(nonce)
                    })
                })
                .collect();
            let mut winners = Vec::new();
            for racer in racers {
                winners.extend(racer.await.expect("no racer fails"));
            }
            let row = ledgers.load(key).await.expect("it is read").expect("it is there");
            assert_eq!((winners.as_slice(), row.version), (&[row.nonce][..], version + 1));
        }
    });
}

#[test]
fn rows_of_a_batch_are_listed_in_order_and_without_its_neighbours() {
    over_all(async |subject| {
        let stores = subject.stores();
        for (batch, range) in [(7u128, 300u32), (7, 2), (8, 0), (6, u32::MAX), (7, 0)] {
            let row = RangeRow::planned(RangePlan { records: u64::from(range), ..RangePlan::default() });
            let key = RangeKey { batch: BatchId(batch), range };
            assert_eq!(stores.ranges.insert(key, &row, 1).await, Ok(Cas::Applied));
        }
        let listed = stores.ranges.list(BatchId(7)).await.expect("they are listed");
        assert_eq!(listed.iter().map(|(key, _)| key.range).collect::<Vec<_>>(), [0, 2, 300]);
        assert_eq!(listed[2].1.row.plan.records, 300);
        assert_eq!(stores.ledgers.list(BatchId(7)).await.map(|rows| rows.len()), Ok(0));
        for number in [5, 127, 0] {
            stores.ledgers.insert(lane(u128::MAX, number), &Ledger::sealed(1), 1).await.expect("it is created");
        }
        let lanes = stores.ledgers.list(BatchId(u128::MAX)).await.expect("they are listed");
        assert_eq!(lanes.iter().map(|(key, _)| key.lane).collect::<Vec<_>>(), [0, 5, 127]);
    });
}

#[test]
fn active_batches_follow_their_rows() {
    over_all(async |subject| {
        let stores = subject.stores();
        for id in [3, 1, 2] {
            stores.batches.insert(BatchId(id), &batch_row(id, 0), 1).await.expect("it is created");
        }
        assert_eq!(stores.batch_index.active().await, Ok(vec![BatchId(1), BatchId(2), BatchId(3)]));
        let canceled = batch_row(2, 0).command(Command::EntryProcess, Timestamp(1));
        let canceled = canceled.and_then(|row| row.command(Command::Cancel, Timestamp(1))).expect("it is canceled");
        assert!(!canceled.is_active());
        assert_eq!(stores.batches.replace(BatchId(2), 9, &canceled, 2).await, Ok(Cas::Refused));
        assert_eq!(stores.batch_index.active().await.map(|active| active.len()), Ok(3), "a refused change changes nothing");
        assert_eq!(stores.batches.replace(BatchId(2), 1, &canceled, 2).await, Ok(Cas::Applied));
        assert_eq!(stores.batch_index.active().await, Ok(vec![BatchId(1), BatchId(3)]));
        let subject = subject.restarted().await;
        let stores = subject.stores();
        assert_eq!(stores.batch_index.active().await, Ok(vec![BatchId(1), BatchId(3)]));
        assert_eq!(stores.batches.list(BatchId(2)).await.map(|rows| rows.len()), Ok(1));
    });
}

#[test]
fn batches_are_listed_newest_first_page_by_page() {
    over_all(async |subject| {
        let stores = subject.stores();
        assert_eq!(stores.batch_index.list(None, 5).await, Ok((vec![], None)));
        for (id, created) in [(1, 50), (2, -10), (3, 70), (4, 50), (5, 0)] {
            stores.batches.insert(BatchId(id), &batch_row(id, created), 1).await.expect("it is created");
        }
        // The places are texts that every engine gives and takes: whoever has one of a folder reads on in a cluster.
        let place_of = |created: i64, id: u128| format!("{:016x}{id:032x}", created as u64 ^ 1 << 63);
        let (rest, _) = stores.batch_index.list(Some(place_of(50, 4)), 9).await.expect("a page");
        assert_eq!(rest.iter().map(|listed| listed.batch.0).collect::<Vec<_>>(), [1, 5, 2]);
        let (mut seen, mut place, mut places) = (Vec::new(), None, Vec::new());
        loop {
            let (page, next) = stores.batch_index.list(place, 2).await.expect("a page");
            assert!(page.len() <= 2);
            places.extend(next.clone());
            seen.extend(page.iter().map(|listed| listed.batch.0));
            // What is created meanwhile moves nothing that was not seen yet.
            stores.batches.insert(BatchId(100 + seen.len() as u128), &batch_row(9, 1_000), 1).await.expect("it is created");
            place = next;
            if place.is_none() {
                break;
            }
        }
        assert_eq!((seen, places), (vec![3, 4, 1, 5, 2], vec![place_of(50, 4), place_of(0, 5)]));
        assert_eq!(stores.batch_index.list(Some("no such place".into()), 2).await, Ok((vec![], None)));
    });
}
