//! Receipts that come twice, in any order, to two processes at once, count once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use smsfleet::model::id::{LaneKey, Msisdn, RecipientKey};
use smsfleet::model::lane::mix;
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::Stores;
use smsfleet::ports::receipts::{MatchedReport, PartKey};

use crate::conformance::fixture::{Keyspace, lane};

/// Reports of one call, as the intake makes them.
const REPORTS_PER_CALL: usize = 4_096;
/// Calls of one process that are on their way at once.
const CALLS_AT_ONCE: usize = 2;
const LANES: u32 = 16;
/// Parts of each message, whose receipts come to both processes in different orders.
const PARTS: u32 = 3;

fn report(n: u32) -> MatchedReport {
    let lane = lane(77, (n % LANES) as u8);
    let place = n / LANES;
    let part = PartKey { recipient: RecipientKey { lane, seq: place / PARTS }, part: (place % PARTS) as u8 };
    let report = Report {
        message_id: format!("{:08x}", mix(n.into()) as u32),
        number: Some(Msisdn(8_613_000_000_000 + u64::from(n))),
        reference: None,
        rung: Rung::Delivered,
        done: Some(1_700_000_000),
        error: "000".into(),
        raw: format!("id:{n:08x} sub:001 dlvrd:001 submit date:2611251200 done date:2611251201 stat:DELIVRD err:000 text:"),
        received: Timestamp(1_700_000_000_000),
    };
    MatchedReport { part, account: "main".into(), report }
}

/// All receipts, in an order of a process's own.
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by_key(|n| mix(u64::from(*n) ^ seed));
    order
}

/// Records all of them, and again where the server does not follow, as the intake does; answers how many it was told are
/// new, and how many calls it made again.
async fn record_all(stores: &Stores, order: &[u32]) -> (usize, usize) {
    let calls: Vec<Vec<u32>> = order.chunks(REPORTS_PER_CALL).map(<[u32]>::to_vec).collect();
    let counts = stream::iter(calls).map(|call| async move {
        let reports: Vec<MatchedReport> = call.into_iter().map(report).collect();
        for again in 0..20 {
            match stores.receipts.record(reports.clone()).await {
                Ok(new) => return (new.into_iter().filter(|new| *new).count(), again),
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        panic!("the server never takes it");
    });
    counts.buffer_unordered(CALLS_AT_ONCE).fold((0, 0), async |all, (new, again)| (all.0 + new, all.1 + again)).await
}

async fn listed(stores: &Stores, lane: LaneKey) -> HashSet<u32> {
    let (mut found, mut from) = (HashSet::new(), 0);
    loop {
        let page = stores.receipts.list(lane, from, 5_000).await.expect("they are listed");
        let Some(last) = page.last() else { return found };
        from = last.part.recipient.seq + 1;
        for matched in page {
            let place = matched.part.recipient.seq * PARTS + u32::from(matched.part.part);
            let n = place * LANES + u32::from(lane.lane);
            assert!(found.insert(n), "{n} is there twice");
            assert_eq!(matched, report(n));
        }
    }
}

/// `SMSFLEET_TEST_RECEIPTS=1000000` makes it a million, as `tests/campaign --receipts` does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_come_twice_in_any_order_to_two_processes_count_once() {
    let count = std::env::var("SMSFLEET_TEST_RECEIPTS").map_or(40_000, |count| count.parse().expect("a number of receipts"));
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores(), keyspace.connect().await.stores());
    let (mine, others) = (shuffled(count, 1), shuffled(count, 2));
    let begun = Instant::now();
    let (a, b) = tokio::join!(record_all(&one, &mine), record_all(&other, &others));
    let took = begun.elapsed().as_secs_f64();
    let rate = f64::from(count) * 2.0 / took;
    let again = a.1 + b.1;
    println!("{count} receipts, each twice over two sessions: {took:.1} s, {rate:.0} a second, {again} calls made again");
    // A call that failed half-way stored some whose answer nobody heard.
    assert!(again > 0 || a.0 + b.0 >= count as usize, "{a:?} and {b:?}: every one was new to somebody");
    let mut all = 0;
    for number in 0..LANES {
        all += listed(&one, lane(77, number as u8)).await.len();
    }
    assert_eq!(all, count as usize, "each counts once");
    // Once more, by one process alone: nothing is new any more.
    assert_eq!(record_all(&other, &mine[..mine.len().min(20_000)]).await.0, 0);
}
