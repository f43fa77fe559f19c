//! Suppressed numbers, link numbers, and letting go of old data.

use std::collections::BTreeSet;

use smsfleet::model::id::{BatchId, Msisdn, RangeKey, RecipientKey, WindowKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::pack::{Manifest, PackKey};
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::record::{RangePlan, RangeRow, Reject, RejectKind};
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::RetryPack;
use smsfleet::ports::Stores;
use smsfleet::ports::receipts::{MatchedReport, ParkedReport, PartKey, UncertainEntry};
use smsfleet::ports::retention::Kind;

use super::fixture::{batch_row, lane, over_all, part};
use super::packs::pack;
use super::windows::window_row;

#[test]
fn suppressed_numbers_are_known_at_once_and_after_a_restart() {
    over_all(async |subject| {
        let suppressions = subject.stores().suppressions;
        let numbers: Vec<Msisdn> = (0..20_000).map(|n| Msisdn(8_613_000_000_000 + n * 3)).collect();
        suppressions.add(&numbers).await.expect("they are added");
        suppressions.add(&numbers[..5]).await.expect("adding again is harmless");
        suppressions.remove(&numbers[1..3]).await.expect("they are removed");
        suppressions.remove(&[Msisdn(1)]).await.expect("removing nobody is harmless");
        let subject = subject.restarted().await;
        for suppressions in [suppressions, subject.stores().suppressions] {
            let asked = [numbers[0], numbers[1], numbers[3], Msisdn(8_613_000_000_001), numbers[19_999]];
            assert_eq!(suppressions.check(&asked).await, Ok(vec![true, false, true, false, true]));
            assert_eq!(suppressions.count().await, Ok(19_998));
        }
    });
}

#[test]
fn link_blocks_never_overlap() {
    over_all(async |subject| {
        let links = subject.stores().links;
        let takers: Vec<_> = (0..20u64)
            .map(|n| {
                let links = links.clone();
                tokio::spawn(async move { links.reserve(BatchId(n.into()), n * 10 + 1).await.expect("a block") })
            })
            .collect();
        let mut seen = BTreeSet::new();
        for (n, taker) in takers.into_iter().enumerate() {
            let block = taker.await.expect("no taker fails");
            assert_eq!((block.len, block.batch), (n as u64 * 10 + 1, BatchId(n as u128)));
            for number in block.first..block.first + block.len {
                assert!(seen.insert(number), "{number} is handed out twice");
            }
            assert_eq!(links.block_of(block.first).await, Ok(Some(block.clone())));
            assert_eq!(links.block_of(block.first + block.len - 1).await, Ok(Some(block)));
        }
        let key = links.key().await.expect("a key");
        let subject = subject.restarted().await;
        let links = subject.stores().links;
        assert_eq!(links.key().await, Ok(key), "the key never changes");
        assert_ne!(key, [0; 16]);
        let next = links.reserve(BatchId(1), 1).await.expect("a block");
        assert!(!seen.contains(&next.first), "what was handed out before the restart stays so");
        assert_eq!(links.block_of(next.first + 1).await, Ok(None));
        assert_eq!(links.end().await, Ok(next.first + 1), "behind everything handed out");
    });
}

async fn fill(stores: &Stores, batch: u128) {
    let (range, place) = (RangeKey { batch: BatchId(batch), range: 0 }, lane(batch, 3));
    let key = PackKey { lane: place, range: 0, attempt: 1, n: 0 };
    stores.batches.insert(BatchId(batch), &batch_row(batch, 5), 1).await.expect("stored");
    stores.ranges.insert(range, &RangeRow::planned(RangePlan::default()), 1).await.expect("stored");
    stores.ledgers.insert(place, &Ledger::sealed(1), 1).await.expect("stored");
    stores.packs.put(vec![(key, pack(1, 10))]).await.expect("stored");
    let number = "1".to_owned();
    let reject = Reject { record: 1, line: 1, kind: RejectKind::Suppressed, code: None, detail: String::new(), number };
    stores.rejects.put(range, 1, 0, vec![reject]).await.expect("stored");
    stores.manifests.put(place, &Manifest::default()).await.expect("stored");
    stores.windows.put(WindowKey { lane: place, window: 2 }, &window_row(2, 4, 5), vec![]).await.expect("stored");
    stores.windows.put_retry(place, 9, &RetryPack::default()).await.expect("stored");
    let reports = (0..3_000).map(|seq| matched(batch, seq)).collect();
    stores.receipts.record(reports).await.expect("stored");
}

fn report(received: i64) -> Report {
    Report {
        message_id: "m".into(),
        number: None,
        reference: None,
        rung: Rung::Delivered,
        done: None,
        error: String::new(),
        raw: String::new(),
        received: Timestamp(received),
    }
}

fn matched(batch: u128, seq: u32) -> MatchedReport {
    let part = PartKey { recipient: RecipientKey { lane: lane(batch, 3), seq }, part: 0 };
    MatchedReport { part, account: "a".into(), report: report(0) }
}

/// What is there of a batch: texts, history, control rows.
async fn there(stores: &Stores, batch: u128) -> (usize, usize, usize) {
    let (range, place) = (RangeKey { batch: BatchId(batch), range: 0 }, lane(batch, 3));
    let key = PackKey { lane: place, range: 0, attempt: 1, n: 0 };
    let texts = [
        stores.packs.get(key).await.expect("read").is_some(),
        stores.packs.head(key).await.expect("read").is_some(),
        !stores.rejects.get(range, 1, 0).await.expect("read").is_empty(),
        stores.manifests.get(place).await.expect("read").is_some(),
    ];
    let history = [
        !stores.windows.list(place, 0, 9).await.expect("read").is_empty(),
        stores.windows.retry(place, 9).await.expect("read").is_some(),
        !stores.receipts.list(place, 0, 9).await.expect("read").is_empty(),
    ];
    let (listed, _) = stores.batch_index.list(None, 9).await.expect("read");
    let control = [
        stores.batches.load(BatchId(batch)).await.expect("read").is_some(),
        !stores.ranges.list(BatchId(batch)).await.expect("read").is_empty(),
        !stores.ledgers.list(BatchId(batch)).await.expect("read").is_empty(),
        stores.batch_index.active().await.expect("read").contains(&BatchId(batch)),
        listed.iter().any(|listed| listed.batch == BatchId(batch)),
    ];
    let count = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
    (count(&texts), count(&history), count(&control))
}

#[test]
fn each_kind_of_a_batch_goes_alone_and_its_neighbours_stay() {
    over_all(async |subject| {
        let stores = subject.stores();
        for batch in [6, 7, 8] {
            fill(&stores, batch).await;
        }
        assert_eq!(there(&stores, 7).await, (4, 3, 5));
        for (kind, left) in [(Kind::Texts, (0, 3, 5)), (Kind::History, (0, 0, 5)), (Kind::Batch, (0, 0, 0))] {
            stores.retention.drop_batch(BatchId(7), kind).await.expect("it is dropped");
            assert_eq!(there(&stores, 7).await, left, "{kind:?}");
            stores.retention.drop_batch(BatchId(7), kind).await.expect("dropping again is harmless");
        }
        assert_eq!((there(&stores, 6).await, there(&stores, 8).await), ((4, 3, 5), (4, 3, 5)));
    });
}

#[test]
fn old_parked_reports_and_uncertain_entries_go() {
    over_all(async |subject| {
        let stores = subject.stores();
        let parked = |id, received, due: Option<i64>| ParkedReport {
            id,
            account: "a".into(),
            report: report(received),
            due: due.map(Timestamp),
            looks: 0,
        };
        stores.parked.park((0..2_500).map(|id| parked(id, 10, (id % 2 == 0).then_some(50))).collect()).await.expect("parked");
        stores.parked.park(vec![parked(9_000, 20, None)]).await.expect("parked");
        let uncertain =
            |seq, at| UncertainEntry { account: "a".into(), number: Msisdn(5), part: part(1, seq), declared_at: Timestamp(at) };
        let entries = (0..2_500).map(|seq| uncertain(seq, 10)).chain([uncertain(9_000, 20)]).collect();
        stores.receipt_index.put_uncertain(entries).await.expect("stored");
        stores.retention.drop_index_before(Timestamp(20)).await.expect("dropped");
        assert_eq!(stores.parked.counts().await, Ok((0, 1)));
        assert_eq!(stores.parked.unmatched(None, 9).await, Ok(vec![parked(9_000, 20, None)]));
        assert_eq!(stores.receipt_index.uncertain("a", Msisdn(5)).await, Ok(vec![uncertain(9_000, 20)]));
    });
}
