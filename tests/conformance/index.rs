//! The receipt index: found at once, found after restarts and merges, the newest first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smsfleet::adapters::embedded::engine::memory::MemoryEngine;
use smsfleet::adapters::embedded::engine::{Batch, Engine, Order, Reader, Table, Written};
use smsfleet::adapters::embedded::index::Index;
use smsfleet::model::id::{Msisdn, WindowKey};
use smsfleet::model::lane::mix;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::receipts::{IndexEntry, PartKey};
use smsfleet::ports::{StoreError, Stores};

use super::fixture::{SMALL_INDEX, Subject, lane, over_all, over_embedded, part, runtime};
use super::windows::window_row;

const DAY: i64 = 24 * 3_600_000;

fn entry(account: &str, id: &str, number: u64, part: PartKey) -> IndexEntry {
    IndexEntry { account: account.into(), message_id: id.into(), number: Msisdn(number), part }
}

async fn put(stores: &Stores, window: u64, at: i64, entries: Vec<IndexEntry>) {
    let key = WindowKey { lane: lane(1, 3), window };
    stores.windows.put(key, &window_row(window, 1, at), entries).await.expect("it is stored");
}

async fn find(stores: &Stores, account: &str, id: &str, number: Option<u64>) -> Vec<PartKey> {
    let found = stores.receipt_index.find(account, &[(id.to_owned(), number.map(Msisdn))]).await.expect("it is looked up");
    found.into_iter().next().expect("one answer for one id")
}

#[test]
fn the_newest_comes_first_and_a_number_narrows() {
    over_all(async |subject| {
        let stores = subject.stores();
        put(&stores, 1, 0, vec![entry("a", "x", 10, part(1, 1)), entry("a", "x", 20, part(1, 2))]).await;
        put(&stores, 2, 0, vec![entry("a", "x", 10, part(2, 3)), entry("b", "x", 10, part(1, 4))]).await;
        // The same window again, as after a lost answer.
        put(&stores, 2, 0, vec![entry("a", "x", 10, part(2, 3))]).await;
        assert_eq!(find(&stores, "a", "x", None).await, [part(2, 3), part(1, 2), part(1, 1)]);
        assert_eq!(find(&stores, "a", "x", Some(10)).await, [part(2, 3), part(1, 1)]);
        assert_eq!(find(&stores, "a", "x", Some(30)).await, []);
        assert_eq!(find(&stores, "b", "x", None).await, [part(1, 4)]);
        assert_eq!(find(&stores, "a", "y", None).await, []);
        let many = [("y".to_owned(), None), ("x".to_owned(), Some(Msisdn(20))), ("x".to_owned(), Some(Msisdn(20)))];
        let found = stores.receipt_index.find("a", &many).await.expect("they are looked up");
        assert_eq!(found, [vec![], vec![part(1, 2)], vec![part(1, 2)]], "in the order they were asked for");
    });
}

#[test]
fn ids_that_differ_in_their_ends_alone_are_found_by_one_call() {
    over_all(async |subject| {
        let stores = subject.stores();
        let id = |n: u32| format!("00a7{n:02x}");
        put(&stores, 1, 0, (0..256).map(|n| entry("a", &id(n), u64::from(n), part(1, n))).collect()).await;
        // Backwards, behind one that nobody has.
        let ids: Vec<(String, Option<Msisdn>)> = (0..=256).rev().map(|n| (id(n), None)).collect();
        let found = stores.receipt_index.find("a", &ids).await.expect("they are looked up");
        let wanted = (0..=256).rev().map(|n| if n == 256 { vec![] } else { vec![part(1, n)] });
        assert_eq!(found, wanted.collect::<Vec<_>>());
    });
}

/// 3,000 ids in windows of 50, with one id that is used again in every window: far more than the small index keeps in
/// memory, so there are runs, and runs of runs.
async fn fill(stores: &Stores) {
    for window in 0..60u32 {
        let mut entries: Vec<IndexEntry> = (0..50u32)
            .map(|n| entry("a", &format!("{:x}", mix(u64::from(window * 50 + n))), u64::from(n), part(1, window * 50 + n)))
            .collect();
        entries.push(entry("a", "again", 1, part(2, window)));
        put(stores, u64::from(window), i64::from(window), entries).await;
    }
}

async fn all_are_found(stores: &Stores) {
    let ids: Vec<(String, Option<Msisdn>)> = (0..3_000u64).map(|n| (format!("{:x}", mix(n)), None)).collect();
    let found = stores.receipt_index.find("a", &ids).await.expect("they are looked up");
    for (seq, found) in found.iter().enumerate() {
        assert_eq!(found, &[part(1, seq as u32)], "id {seq}");
    }
    let newest_first: Vec<PartKey> = (0..60).rev().map(|window| part(2, window)).collect();
    assert_eq!(find(stores, "a", "again", None).await, newest_first);
}

#[test]
fn entries_are_found_over_runs_merges_and_restarts() {
    over_all(async |subject| {
        fill(&subject.stores()).await;
        all_are_found(&subject.stores()).await;
        subject.index_at_rest().await;
        all_are_found(&subject.stores()).await;
        if let Some(index) = subject.index() {
            let (runs, entries) = index.runs();
            assert!(entries >= 3_000 - 64, "{entries} of 3,060 entries are in runs");
            assert!((2..10).contains(&runs), "{runs} runs are left of about 48");
        }
        let subject = subject.restarted().await;
        all_are_found(&subject.stores()).await;
        put(&subject.stores(), 99, 0, vec![entry("a", "again", 1, part(2, 99))]).await;
        assert_eq!(find(&subject.stores(), "a", "again", None).await[..2], [part(2, 99), part(2, 59)]);
        let subject = subject.restarted().await;
        assert_eq!(find(&subject.stores(), "a", "again", None).await.len(), 61);
    });
}

#[test]
fn looking_up_while_runs_are_merged_misses_nobody() {
    over_all(async |subject| {
        let stores = subject.stores();
        put(&stores, 1_000, 0, vec![entry("a", "first", 1, part(3, 7))]).await;
        let looking = {
            let stores = stores.clone();
            tokio::spawn(async move {
                for _ in 0..300 {
                    assert_eq!(find(&stores, "a", "first", None).await, [part(3, 7)]);
                    tokio::task::yield_now().await;
                }
            })
        };
        fill(&stores).await;
        looking.await.expect("it was found every time");
    });
}

#[test]
fn old_runs_are_let_go() {
    // Entries in a cluster have a time to live instead: see `cql`.
    over_embedded(async |subject| {
        let stores = subject.stores();
        for day in 0..3i64 {
            for window in 0..10u32 {
                let name = |n| format!("{day}-{window}-{n}");
                let entries = (0..40).map(|n| entry("a", &name(n), 1, part(1, window * 40 + n))).collect();
                put(&stores, u64::from(window), day * DAY, entries).await;
            }
            subject.index_at_rest().await;
        }
        stores.retention.drop_index_before(Timestamp(3 * DAY)).await.expect("all are let go");
        for day in 0..3 {
            assert_eq!(find(&stores, "a", &format!("{day}-9-39"), None).await, []);
        }
        assert_eq!(subject.index().map(|index| index.runs()), Some((0, 0)));
        put(&stores, 5, 3 * DAY, vec![entry("a", "new", 1, part(1, 1))]).await;
        stores.retention.drop_index_before(Timestamp(3 * DAY)).await.expect("none is let go");
        assert_eq!(find(&stores, "a", "new", None).await, [part(1, 1)]);
        let subject: Subject = subject.restarted().await;
        assert_eq!(find(&subject.stores(), "a", "new", None).await, [part(1, 1)]);
        assert_eq!(find(&subject.stores(), "a", "2-9-39", None).await, []);
    });
}

#[test]
fn what_was_let_go_does_not_come_back_when_its_run_was_faster_than_its_log() {
    runtime().block_on(async {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
        let index = Index::open(engine.clone(), SMALL_INDEX).await.expect("it opens");
        let entries: Vec<IndexEntry> = (0..64).map(|n| entry("a", &format!("{n}"), 1, part(1, n))).collect();
        let mut batch = Batch::control();
        let noted = index.note(&entries, Timestamp(DAY), &mut batch).await.expect("it is noted");
        assert!(noted.is_full);
        while index.maintain().await.expect("it is kept up") {}
        engine.write(batch).await.expect("it is stored");
        index.stored(noted);
        let find = |index: &Index| index.find("a", &[("7".to_owned(), None)]).expect("it is looked up");
        assert_eq!(find(&index), [[part(1, 7)]]);

        let again = Index::open(engine.clone(), SMALL_INDEX).await.expect("it opens again");
        assert_eq!(find(&again), [[part(1, 7)]], "in the run and in the log, and named once");
        let before = Timestamp(2 * DAY);
        let mut late = Batch::control();
        let noted = index.note(&[entry("a", "late", 1, part(1, 99))], before, &mut late).await.expect("it is noted");
        engine.write(late).await.expect("it is stored");
        index.stored(noted);
        index.drop_before(before).await.expect("the day is let go");
        let index = Index::open(engine, SMALL_INDEX).await.expect("it opens again");
        assert_eq!(find(&index), [Vec::<PartKey>::new()]);
        assert_eq!(index.find("a", &[("late".to_owned(), None)]).expect("it is looked up"), [[part(1, 99)]]);
    });
}

/// An engine that refuses one write and takes all others.
struct RefusesOne {
    rows: MemoryEngine,
    until: AtomicUsize,
}

#[async_trait::async_trait]
impl Engine for RefusesOne {
    fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError> {
        self.rows.read()
    }

    async fn write(&self, batch: Batch) -> Result<Written, StoreError> {
        match self.until.fetch_sub(1, Ordering::Relaxed) {
            1 => Err(StoreError::Full("for a moment".into())),
            _ => self.rows.write(batch).await,
        }
    }

    fn room(&self) -> Result<(), StoreError> {
        self.rows.room()
    }
}

impl RefusesOne {
    /// The runs that a table names in the first bytes of its keys.
    fn runs_in(&self, table: Table) -> BTreeSet<Vec<u8>> {
        let mut runs = BTreeSet::new();
        let scan = self.read().expect("it is read").scan(table, &[], None, Order::Up, &mut |key, _| {
            runs.insert(key[..8].to_vec());
            Ok(true)
        });
        scan.expect("it is read");
        runs
    }
}

#[test]
fn a_merge_that_is_refused_at_any_write_leaves_no_blocks_behind() {
    runtime().block_on(async {
        let mut refusals = 0;
        for until in 1..=8 {
            let engine = Arc::new(RefusesOne { rows: MemoryEngine::default(), until: AtomicUsize::new(usize::MAX) });
            let index = Index::open(engine.clone(), SMALL_INDEX).await.expect("it opens");
            for n in 0..3 {
                let entries: Vec<IndexEntry> = (0..64).map(|id| entry("a", &format!("{n}-{id}"), 1, part(1, id))).collect();
                index.note(&entries, Timestamp(n), &mut Batch::control()).await.expect("it is noted");
            }
            // Three tables become runs and these one, then their blocks go.
            engine.until.store(until, Ordering::Relaxed);
            loop {
                match index.maintain().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => refusals += 1,
                }
            }
            assert_eq!(index.runs(), (1, 192), "refused at {until}");
            assert_eq!(engine.runs_in(Table::IndexBlock), engine.runs_in(Table::IndexRun), "refused at {until}");
        }
        assert_eq!(refusals, 8, "a merge writes as often as this");
    });
}
