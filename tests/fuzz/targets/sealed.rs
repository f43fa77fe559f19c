//! A batch with everything that its stages leave behind, whose rows say anything at all under checksums that are right: whoever
//! works on it comes to a result, or to a reason with a code. Nobody makes room, counts or goes on by what a row only claims.

use std::collections::BTreeMap;
use std::sync::Arc;

use smsfleet::adapters::embedded::engine::{Batch, Engine, Op, Table};
use smsfleet::adapters::memory::clock::SimClock;
use smsfleet::adapters::memory::queue::MemoryBroker;
use smsfleet::adapters::memory::store::MemoryStore;
use smsfleet::adapters::memory::tallies::MemoryTallies;
use smsfleet::adapters::rows::frame::block;
use smsfleet::adapters::rows::key::{self, KeyBuilder};
use smsfleet::adapters::system::SeededChance;
use smsfleet::coordinate::recover::recover;
use smsfleet::coordinate::{DeliveryStatusTracker, PrepareStatusTracker};
use smsfleet::deliver::loader::Loader;
use smsfleet::model::account::Account;
use smsfleet::model::batch::BatchRow;
use smsfleet::model::code::{Code, Fault};
use smsfleet::model::id::{BatchId, LaneKey, Msisdn, RangeKey, WindowKey, WorkerId};
use smsfleet::model::limits::WINDOW_RECIPIENTS_MAX;
use smsfleet::model::order::RetryWhat;
use smsfleet::model::pack::PackKey;
use smsfleet::model::record::{RangePlan, SourcePlan};
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::sort_out;
use smsfleet::ports::source::{RangeReader, Source, SourceSpec};
use smsfleet::ports::{StoreError, Stores, World};
use smsfleet::prepare::seal::seal_lanes;
use smsfleet::prepare::tools::{Settings, Tools};
use smsfleet::roles::config::AccountConfig;
use smsfleet::runtime::job::Job;
use smsfleet::statistics::{
    RecipientFilter, RecipientPages, explain_batch, explain_number, number_history, progress, recount, select,
};
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::is_reason;
use super::rows::Raw;

const BATCH: BatchId = BatchId(1);
const LANE: LaneKey = LaneKey { batch: BATCH, lane: 0 };
const NUMBER: Msisdn = Msisdn(4_915_112_345_678);
const NOW: Timestamp = Timestamp(1_767_367_860_000);
/// Pages of recipients that a run reads: a batch of a few rows has no more.
const PAGES_MAX: usize = 2_000;

/// Rows: an octet that says of what kind, for some its name, and what its frame holds behind its length.
pub fn sealed(input: &[u8]) -> bool {
    let mut input = Input(input);
    let mut rows = Batch::control();
    let created = KeyBuilder::new().time(Timestamp(1)).batch(BATCH).done();
    rows.ops.push(Op::Put(Table::BatchCreated, created, vec![]));
    rows.ops.push(Op::Put(Table::BatchActive, key::batch(BATCH), vec![]));
    while !input.0.is_empty() {
        put(&mut input, &mut rows);
    }
    // Whoever waits for something waits in no time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads").block_on(use_it(rows))
}

fn put(input: &mut Input, rows: &mut Batch) {
    let kind = input.byte() % 9;
    let name = if (4..=6).contains(&kind) { u64::from(input.number()) << 32 | u64::from(input.number()) } else { 0 };
    let window = WindowKey { lane: LANE, window: name };
    let n = if kind == 7 { u32::from(input.byte()) } else { 0 };
    let octets = input.piece();
    let control = || [&[1][..], &7u64.to_be_bytes(), &9u64.to_be_bytes(), octets].concat();
    let framed = block(&Raw(octets));
    let (table, key, row) = match kind {
        0 => (Table::Batch, key::batch(BATCH), control()),
        1 => (Table::Range, key::range(RangeKey { batch: BATCH, range: 0 }), control()),
        2 => (Table::Ledger, key::lane(LANE), control()),
        3 => (Table::Manifest, key::lane(LANE), framed),
        4 => (Table::Window, key::window(window, false), framed),
        5 => (Table::Window, key::window(window, true), framed),
        6 => (Table::Retry, KeyBuilder::new().lane(LANE).u64(name).done(), framed),
        7 => {
            let key = key::pack(PackKey { lane: LANE, range: 0, attempt: 1, n });
            rows.ops.push(Op::Put(Table::PackText, key.clone(), block(&Raw(input.piece()))));
            (Table::PackHead, key, framed)
        }
        _ => (Table::Rejects, KeyBuilder::new().batch(BATCH).u32(0).u32(1).u32(0).done(), framed),
    };
    rows.ops.push(Op::Put(table, key, row));
}

async fn use_it(rows: Batch) -> bool {
    let chance = Arc::new(SeededChance::from_seed(1));
    let store = MemoryStore::new(chance.clone());
    store.engine().write(rows).await.expect("a store in memory has room");
    let (stores, world) = (store.stores(), World { clock: Arc::new(SimClock::new(NOW)), chance });
    let accounts: BTreeMap<String, Account> = [("a".to_owned(), AccountConfig::default().account("a"))].into();
    let mut all_read = true;
    let mut told = Told(&mut all_read);
    if let Some(Some(row)) = told.of(stores.batches.load(BATCH).await) {
        look(&stores, &row.row, &accounts, &mut told).await;
        seal(&stores, &world, &row.row, &mut told).await;
    }
    deliver(&stores, &mut told).await;
    let sender = MemoryBroker::new().sender();
    told.of(PrepareStatusTracker::new(stores.clone(), world.clone(), sender.clone(), 4).run_once().await);
    told.of(DeliveryStatusTracker::new(stores.clone(), world.clone(), sender).run_once().await);
    let known = [("a".to_owned(), "a".to_owned())];
    if let Err(fault) = recover(&stores, &world, &known, Timestamp(5)).await {
        assert!(is_reason(&fault.context), "{fault:?}");
        *told.0 = false;
    }
    all_read
}

/// Those who look at a batch.
async fn look(stores: &Stores, row: &BatchRow, accounts: &BTreeMap<String, Account>, told: &mut Told<'_>) {
    if let Some(settlement) = told.of(recount(stores, row, accounts, NOW).await) {
        let _ = (settlement.unaccounted(), settlement.all_well());
    }
    told.of(progress(stores, row, None).await);
    told.of(explain_batch(stores, row, vec![], NOW).await);
    let shared = Arc::new(accounts.clone());
    told.of(explain_number(stores, row, shared.clone(), NUMBER, NOW).await);
    told.of(number_history(stores, &shared, NUMBER, None, None, 10, NOW).await);
    let pages = RecipientPages::new(stores.clone(), row.clone(), shared, RecipientFilter::default(), NOW).await;
    if let Some(mut pages) = told.of(pages) {
        let mut read = 0;
        while let Some(Some(_)) = told.of(pages.next().await) {
            read += 1;
            assert!(read < PAGES_MAX, "a few rows have an end");
        }
    }
    for what in [RetryWhat::Failed, RetryWhat::Unsent] {
        told.of(select(stores, accounts, "a", LANE, &what, 1).await);
    }
}

/// Whoever prepares.
async fn seal(stores: &Stores, world: &World, row: &BatchRow, told: &mut Told<'_>) {
    let (accounts, tallies) = (Arc::new(|_: &str| None), Arc::new(MemoryTallies::new()));
    let tools = Tools::new(stores, world.clone(), Arc::new(NoSource), accounts, tallies, WorkerId(1), Settings::default());
    told.of(seal_lanes(&tools, row.task_code(), 0, u8::MAX, &CancellationToken::new()).await);
}

/// Whoever serves a lane: goes on where its ledger stands, and closes what others left open.
async fn deliver(stores: &Stores, told: &mut Told<'_>) {
    let (ledger, manifest) = (stores.ledgers.load(LANE).await, stores.manifests.get(LANE).await);
    let (Some(Some(ledger)), Some(Some(manifest))) = (told.of(ledger), told.of(manifest)) else { return };
    let mut loader = Loader::new(LANE, manifest, stores);
    let next = ledger.row.next_leg(NOW).map(|leg| (leg.id, leg.declared, leg.len));
    let open = ledger.row.open.iter().map(|window| (window.window, window.leg, window.from, window.to));
    let next = next.map(|(leg, from, len)| (0, leg, from, len.min(from.saturating_add(WINDOW_RECIPIENTS_MAX))));
    for (window, leg, from, to) in open.chain(next) {
        let Some(entries) = told.of(loader.entries(leg, from, to).await) else { continue };
        assert!(entries.len() <= WINDOW_RECIPIENTS_MAX as usize, "{} recipients of a window", entries.len());
        for entry in &entries {
            told.of(loader.message(entry.seq).await);
        }
        let stored = told.of(stores.windows.get(WindowKey { lane: LANE, window }).await).flatten();
        let answers = stored.and_then(|stored| stored.row).map(|row| row.answers).unwrap_or_default();
        for resend in [false, true] {
            let sorted = sort_out(&entries, &answers, resend);
            assert_eq!(sorted.totals.settled() + sorted.again.len() as u64, entries.len() as u64, "everybody counts once");
        }
    }
}

/// Hears what calls come to.
struct Told<'a>(&'a mut bool);

impl Told<'_> {
    /// An answer, or that a row is damaged.
    fn of<T>(&mut self, answer: Result<T, StoreError>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error @ StoreError::Corrupt(_)) => {
                assert!(is_reason(&error.to_string()));
                *self.0 = false;
                None
            }
            Err(other) => panic!("a store in memory answers: {other:?}"),
        }
    }
}

/// A list that nobody reads: a seal knows packs alone.
struct NoSource;

#[async_trait::async_trait]
impl Source for NoSource {
    async fn plan(&self, _: &SourceSpec, _: u32) -> Result<SourcePlan, Fault> {
        Err(Fault::new(Code::Internal, "there is no list"))
    }
    async fn open(&self, _: &SourceSpec, _: &SourcePlan, _: &RangePlan) -> Result<Box<dyn RangeReader>, Fault> {
        Err(Fault::new(Code::Internal, "there is no list"))
    }
}
