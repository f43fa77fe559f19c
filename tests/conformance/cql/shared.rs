//! Lists that several processes change and keep in memory.

use std::sync::Arc;
use std::time::Duration;

use smsfleet::model::id::{BatchId, Msisdn};
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::control::Cas;
use smsfleet::ports::documents::{Documents, Shelf};
use smsfleet::ports::receipts::{Parked, ParkedReport, UncertainEntry};

use crate::conformance::fixture::{Keyspace, part};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suppressed_number_is_known_to_every_process_within_a_second() {
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores().suppressions, keyspace.connect().await.stores().suppressions);
    let number = |n: u64| Msisdn(8_613_800_000_000 + n);
    let known: Vec<Msisdn> = (0..3_000).map(number).collect();
    one.add(&known).await.expect("they are added");
    assert_eq!(other.count().await, Ok(3_000), "what was there before a process asked first");
    for n in 3_000..3_005 {
        one.add(&[number(n)]).await.expect("it is added");
        assert_eq!(one.check(&[number(n)]).await, Ok(vec![true]), "whoever added it knows at once");
        tokio::time::sleep(Duration::from_millis(950)).await;
        assert_eq!(other.check(&[number(n), number(n + 1)]).await, Ok(vec![true, false]));
    }
    other.remove(&known[1..]).await.expect("they are removed");
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!((one.check(&known[..2]).await, one.count().await), (Ok(vec![true, false]), Ok(6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suppressed_number_is_known_though_the_last_mark_came_from_a_clock_that_is_ahead() {
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores().suppressions, keyspace.connect().await.stores().suppressions);
    let (first, second) = (Msisdn(8_613_800_000_000), Msisdn(8_613_800_000_001));
    one.add(&[first, second]).await.expect("they are added");
    one.remove(&[second]).await.expect("it is removed");
    // As a machine leaves it whose clock is ten seconds ahead.
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_micros() + 10_000_000;
    for bucket in keyspace.rows::<(i32,)>("SELECT bucket FROM suppression_mark").await {
        let text =
            format!("INSERT INTO suppression_mark (one, bucket, nonce) VALUES (0, {}, 5) USING TIMESTAMP {ahead}", bucket.0);
        keyspace.run(&text).await;
    }
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(one.check(&[first, second]).await, Ok(vec![true, false]));
    other.add(&[second]).await.expect("it is added");
    tokio::time::sleep(Duration::from_millis(950)).await;
    assert_eq!(one.check(&[first, second]).await, Ok(vec![true, true]), "nobody sends to it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checking_costs_no_read_for_each_number_and_none_while_the_last_is_fresh() {
    let keyspace = Keyspace::empty().await;
    let store = keyspace.connect().await.stores().suppressions;
    let numbers: Vec<Msisdn> = (0..50_000).map(|n| Msisdn(8_613_900_000_000 + n)).collect();
    store.add(&numbers[..20_000]).await.expect("they are added");
    assert_eq!(store.count().await, Ok(20_000));
    // Behind the store's back, without a mark: a process that read a number's row would see it.
    keyspace.run("TRUNCATE suppressed").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let checked = store.check(&numbers).await.expect("they are checked");
    assert_eq!(checked.into_iter().filter(|suppressed| *suppressed).count(), 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_blocks_of_two_processes_never_overlap_and_reach_over_segments() {
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores().links, keyspace.connect().await.stores().links);
    let keys = tokio::join!(one.key(), other.key());
    assert_eq!(keys.0, keys.1, "the key is made once");
    let large = one.reserve(BatchId(1), 3 << 26).await.expect("a block");
    for number in [large.first, large.first + (1 << 26), large.first + (5 << 25), large.first + large.len - 1] {
        assert_eq!(other.block_of(number).await, Ok(Some(large.clone())), "{number}");
    }
    assert_eq!(other.block_of(large.first + large.len).await, Ok(None));
    let takers: Vec<_> = (0..40u64)
        .map(|n| {
            let links = if n % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move { links.reserve(BatchId(n.into()), 1 + n).await.expect("a block") })
        })
        .collect();
    let mut blocks = vec![large];
    for taker in takers {
        blocks.push(taker.await.expect("no taker fails"));
    }
    blocks.sort_by_key(|block| block.first);
    assert!(blocks.windows(2).all(|pair| pair[0].first + pair[0].len <= pair[1].first), "{blocks:?}");
    assert_eq!(other.end().await, Ok(blocks.last().map_or(0, |block| block.first + block.len)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_insert_or_replace_a_document_one_is_told_that_it_did() {
    let keyspace = Keyspace::empty().await;
    let processes: Vec<Arc<dyn Documents>> =
        vec![keyspace.connect().await.stores().documents, keyspace.connect().await.stores().documents];
    async fn applied(tasks: Vec<tokio::task::JoinHandle<Result<Cas, smsfleet::ports::StoreError>>>) -> Vec<usize> {
        let mut applied = Vec::new();
        for (n, task) in tasks.into_iter().enumerate() {
            if task.await.expect("no task fails").expect("it is answered") == Cas::Applied {
                applied.push(n);
            }
        }
        applied
    }
    type Changed = futures::future::BoxFuture<'static, Result<Cas, smsfleet::ports::StoreError>>;
    let all = |change: fn(Arc<dyn Documents>, String) -> Changed| {
        (0..12).map(|n| tokio::spawn(change(processes[n % 2].clone(), n.to_string()))).collect::<Vec<_>>()
    };
    let inserted =
        applied(all(|documents, body| Box::pin(async move { documents.insert(Shelf::Slots, "a", &body).await }))).await;
    assert_eq!(inserted.len(), 1);
    assert_eq!(processes[0].get(Shelf::Slots, "a").await, Ok(Some(inserted[0].to_string())));
    processes[1].put(Shelf::Slots, "a", "old").await.expect("it is put");
    let replaced =
        applied(all(|documents, body| Box::pin(async move { documents.replace(Shelf::Slots, "a", "old", &body).await }))).await;
    assert_eq!(replaced.len(), 1);
    assert_eq!(processes[0].get(Shelf::Slots, "a").await, Ok(Some(replaced[0].to_string())));
    assert_eq!(processes[0].replace(Shelf::Slots, "b", "", "x").await, Ok(Cas::Refused), "what is not there has no text");
    // Puts and deletes that meet: whatever came last, all processes see the same.
    let changes: Vec<_> = (0..12)
        .map(|n| {
            let documents = processes[n % 2].clone();
            tokio::spawn(async move {
                match n % 3 {
                    0 => documents.delete(Shelf::Slots, "a").await,
                    _ => documents.put(Shelf::Slots, "a", &n.to_string()).await,
                }
            })
        })
        .collect();
    for change in changes {
        change.await.expect("no task fails").expect("it is done");
    }
    assert_eq!(processes[0].get(Shelf::Slots, "a").await, processes[1].get(Shelf::Slots, "a").await);
    processes[0].put(Shelf::Slots, "a", "last").await.expect("it is put");
    assert_eq!(processes[1].get(Shelf::Slots, "a").await, Ok(Some("last".into())), "and what comes behind them stands");
}

fn parked(id: u64, due: i64) -> ParkedReport {
    let report = Report {
        message_id: "1a".into(),
        number: None,
        reference: None,
        rung: Rung::Delivered,
        done: None,
        error: String::new(),
        raw: format!("raw {id}"),
        received: Timestamp(1),
    };
    ParkedReport { id, account: "a".into(), report, due: Some(Timestamp(due)), looks: 0 }
}

async fn ids(parked: &Arc<dyn Parked>, now: i64) -> Vec<u64> {
    parked.due(Timestamp(now), 9).await.expect("they are listed").into_iter().map(|parked| parked.id).collect()
}

/// On one thread, so that its clock can be put forward.
#[tokio::test]
async fn places_without_their_rows_count_for_nothing_and_go_after_a_while() {
    let keyspace = Keyspace::empty().await;
    let store = keyspace.connect().await.stores().parked;
    store.park(vec![parked(1, 100), parked(2, 200)]).await.expect("they are parked");
    // A removal that was interrupted between the row and its place.
    keyspace.run(&format!("DELETE FROM parked WHERE id = {}", i64::MIN + 1)).await;
    assert_eq!(ids(&store, 1_000).await, [2]);
    let places = async || keyspace.rows::<(i64,)>("SELECT count(*) FROM parked_place").await[0].0;
    assert_eq!(places().await, 2, "it may be the first step of a park that goes on");
    store.park(vec![parked(1, 100)]).await.expect("it goes on");
    assert_eq!(ids(&store, 1_000).await, [1, 2]);
    forward(Duration::from_secs(61)).await;
    keyspace.run(&format!("DELETE FROM parked WHERE id = {}", i64::MIN + 1)).await;
    assert_eq!(ids(&store, 1_000).await, [2]);
    assert_eq!(places().await, 2, "what agreed in between begins anew");
    forward(Duration::from_secs(61)).await;
    assert_eq!(ids(&store, 1_000).await, [2]);
    assert_eq!(places().await, 1, "nobody goes on with it any more");
    assert_eq!(ids(&store, 1_000).await, [2]);
}

#[tokio::test]
async fn what_another_process_parked_with_an_old_due_time_is_found_after_a_while() {
    let keyspace = Keyspace::empty().await;
    let (one, other) = (keyspace.connect().await.stores().parked, keyspace.connect().await.stores().parked);
    let minute = 60_000;
    assert_eq!(ids(&one, 60 * minute).await, [0; 0]);
    other.park(vec![parked(1, 10 * minute), parked(2, 56 * minute)]).await.expect("they are parked");
    assert_eq!(ids(&one, 61 * minute).await, [2], "reads begin some minutes before the present");
    assert_eq!(ids(&other, 61 * minute).await, [1, 2], "a process knows what it parked itself");
    forward(Duration::from_secs(601)).await;
    assert_eq!(ids(&one, 61 * minute).await, [1, 2]);
}

#[tokio::test]
async fn a_damaged_report_stands_in_nobodys_way_and_goes_with_what_is_old() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    let number = Msisdn(8_613_800_000_000);
    let unmatched = |id| ParkedReport { due: None, ..parked(id, 0) };
    let of_number =
        |report: ParkedReport| ParkedReport { report: Report { number: Some(number), ..report.report.clone() }, ..report };
    let reports = [parked(1, 100), parked(2, 200), unmatched(3), unmatched(4)];
    stores.parked.park(reports.into_iter().map(of_number).collect()).await.expect("they are parked");
    for id in [1, 3] {
        keyspace.run(&format!("UPDATE parked SET body = 0x00 WHERE id = {}", i64::MIN + id)).await;
    }
    assert_eq!(ids(&stores.parked, 1_000).await, [2]);
    let names = |reports: Vec<ParkedReport>| reports.into_iter().map(|parked| parked.id).collect::<Vec<_>>();
    assert_eq!(names(stores.parked.unmatched(None, 9).await.expect("they are listed")), [4]);
    assert_eq!(names(stores.erasure.of_number(number).await.expect("they are looked for").parked), [2, 4]);
    let left = async || keyspace.rows::<(i64,)>("SELECT count(*) FROM parked").await[0].0;
    // The others came in at 1; the damaged were written just now.
    stores.retention.drop_index_before(Timestamp(2)).await.expect("they are dropped");
    assert_eq!(left().await, 2);
    stores.retention.drop_index_before(Timestamp(i64::MAX / 1_000)).await.expect("they are dropped");
    assert_eq!(left().await, 0);
}

/// Puts the clock of this test's timers forward.
async fn forward(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn uncertain_recipients_go_by_themselves() {
    let keyspace = Keyspace::empty().await;
    let stores = keyspace.connect().await.stores();
    let entry = UncertainEntry { account: "a".into(), number: Msisdn(5), part: part(1, 7), declared_at: Timestamp(1) };
    stores.receipt_index.put_uncertain(vec![entry]).await.expect("it is stored");
    let lives = keyspace.number("SELECT TTL(declared_at) FROM uncertain LIMIT 1").await;
    assert!((72 * 3_600..=73 * 3_600).contains(&lives), "{lives} s");
}
