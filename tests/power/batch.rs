//! Whole batches through the real roles, over a database on a disk that loses its power several times on the way.
//!
//! Time and chance are simulated as in [`crate::simulation`], the database is real: each of its writes is carried out before
//! simulated time goes on. When the power goes, nothing that was asked of the store is answered any more, every process ends
//! where it stands, and queue and lock are empty; the provider, who is elsewhere, remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::embedded::engine::redb::{EngineOptions, RedbEngine};
use smsfleet::adapters::embedded::engine::{Batch, Engine, Reader, Written};
use smsfleet::adapters::embedded::index::IndexOptions;
use smsfleet::adapters::embedded::keyed::{Keyed, MarkCell};
use smsfleet::adapters::memory::clock::SimClock;
use smsfleet::adapters::system::SeededChance;
use smsfleet::batch::SmsBatchService;
use smsfleet::model::batch::SmsBatch;
use smsfleet::model::id::BatchId;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::clock::{Chance, Clock};
use smsfleet::ports::{StoreError, Stores, World};
use smsfleet::roles::selection::Selection;
use tokio::sync::Notify;

use super::disk::{PowerDisk, Told};
use crate::simulation::network::Network;
use crate::simulation::oracle;
use crate::simulation::process::{Process, Shared, accounts};
use crate::simulation::run::Outcome;

/// Cuts of one batch.
const CUTS: u64 = 6;

/// The database, carried out on the caller: simulated time stands still meanwhile.
struct Inline {
    engine: RedbEngine,
    disk: PowerDisk,
}

#[async_trait::async_trait]
impl Engine for Inline {
    fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError> {
        self.engine.read()
    }

    async fn write(&self, batch: Batch) -> Result<Written, StoreError> {
        let written = if self.disk.is_on() { Some(now(self.engine.write(batch))) } else { None };
        match written {
            Some(written) if self.disk.is_on() => written,
            // Without power nobody hears of it.
            _ => std::future::pending().await,
        }
    }

    fn room(&self) -> Result<(), StoreError> {
        self.engine.room()
    }
}

/// Waits on the spot. The writer's thread must not be waited for by a task that has used up its turn.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(tokio::task::unconstrained(future))
}

/// The store on a disk, as a process finds it that starts when the power is back.
async fn open(disk: &PowerDisk, outside: &MarkCell) -> Result<Stores, String> {
    let options = EngineOptions { cache_bytes: 4 << 20, min_free_bytes: 0 };
    let engine = RedbEngine::open(Arc::new(disk.clone()), options).map_err(|fault| fault.to_string())?;
    let engine: Arc<dyn Engine> = Arc::new(Inline { engine, disk: disk.opened() });
    let index = IndexOptions { memtable_entries: 64, merge_runs: 3, filter_bytes: 3_000 };
    let chance = Arc::new(SeededChance::from_seed(9));
    let keyed = Keyed::open(engine, index, chance, Box::new(outside.clone())).await.map_err(|error| error.to_string())?;
    Ok(Arc::new(keyed).stores())
}

struct Machine {
    shared: Shared,
    world: World,
    disk: PowerDisk,
    outside: MarkCell,
    chance: SeededChance,
    processes: Vec<Process>,
    started: u64,
}

impl Machine {
    async fn new(seed: u64, disk: PowerDisk) -> Result<Machine, String> {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(Timestamp(1_800_000_000_000)));
        let outside = MarkCell::default();
        let network = Network::new(seed ^ 2, clock.clone(), Default::default());
        // Receipts early, late and twice, refusals, answers that never come.
        *network.per_mille.lock().expect("not poisoned") = 30;
        let shared = Shared::new(&open(&disk, &outside).await?, network, clock.clone());
        let world = World { clock, chance: Arc::new(SeededChance::from_seed(seed ^ 3)) };
        let chance = SeededChance::from_seed(seed);
        Ok(Machine { shared, world, disk, outside, chance, processes: vec![], started: seed << 16 })
    }

    fn start(&mut self) {
        self.started += 1;
        self.processes.push(Process::start(&self.shared, self.started, None));
    }

    fn service(&self) -> SmsBatchService {
        let select = Selection::new(self.shared.stores.clone(), accounts());
        SmsBatchService::new(self.shared.stores.clone(), self.world.clone(), Arc::new(Notify::new()), select)
    }

    /// The machine comes up again after its power went.
    async fn come_up(&mut self) -> Result<(), String> {
        for process in self.processes.drain(..) {
            process.crash(&self.shared);
        }
        self.shared.broker.lose_all();
        self.shared.lease.flush();
        self.disk.restore();
        self.shared.reopen(&open(&self.disk, &self.outside).await?);
        // The mark is looked at as at every start.
        match self.shared.stores.meta.check_mark().await {
            Ok(Ok(())) => {}
            Ok(Err(differs)) => return Err(format!("the store is taken for a restored one: {differs}")),
            Err(error) => return Err(error.to_string()),
        }
        self.start();
        Ok(())
    }

    /// What is awaited, or `None` when the power went first.
    async fn while_on<T>(&self, wanted: impl Future<Output = Result<T, String>>) -> Result<Option<T>, String> {
        let off = async {
            while self.disk.is_on() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = off => Ok(None),
            done = wanted => match done {
                // A read that failed because the power went.
                Err(_) if !self.disk.is_on() => Ok(None),
                done => done.map(Some),
            },
        }
    }
}

/// Creates the batch, however often the power goes.
async fn create(machine: &mut Machine, batch: &SmsBatch) -> Result<BatchId, String> {
    loop {
        let service = machine.service();
        let created = machine.while_on(async {
            let created = service.create("key", batch.clone()).await.map_err(|fault| fault.to_string())?;
            // Done before, when the power went behind it.
            let _ = service.entry_process(created.batch).await;
            Ok(created.batch)
        });
        if let Some(batch) = created.await? {
            return Ok(batch);
        }
        machine.come_up().await?;
    }
}

/// One batch through all its cuts; what the disk says of them.
async fn run(seed: u64, disk: PowerDisk, outcome: &mut Outcome) -> Result<Told, String> {
    let mut machine = Machine::new(seed, disk).await?;
    machine.start();
    let records = 150 + machine.chance.next() % 250;
    let batch = SmsBatch {
        content_signature: "Sim".into(),
        auto_trigger: true,
        min_recipients_per_lane: [0, 50, 5_000][(seed % 3) as usize],
        ..SmsBatch::new(&format!("{}:{records}", seed * 8), "Hello {{name}}", "sim")
    };
    let mut cuts = 0;
    machine.disk.cut_after(1 + machine.chance.next() % 400);
    let id = create(&mut machine, &batch).await?;
    machine.disk.cut_after(1 + machine.chance.next() % 400);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3 * 3_600);
    let row = loop {
        if tokio::time::Instant::now() > deadline {
            return Err(format!("batch {id} does not end"));
        }
        let service = machine.service();
        let looked = machine.while_on(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            service.load(id).await.map_err(|fault| fault.to_string())
        });
        match looked.await? {
            Some(stored) if stored.row.settlement.as_ref().is_some_and(|settlement| settlement.settled) => break stored.row,
            Some(_) => {}
            None => {
                machine.come_up().await?;
                cuts += 1;
                if cuts < CUTS {
                    // Soon again, or a good while later: a batch takes some thousand operations.
                    let span = [40, 400, 1_500][(machine.chance.next() % 3) as usize];
                    machine.disk.cut_after(1 + machine.chance.next() % span);
                }
            }
        }
    };
    machine.disk.stay_on();
    oracle::until_looked_over(&machine.shared).await?;
    oracle::check(&machine.shared, &row, &batch, None, outcome).await?;
    for process in machine.processes.drain(..) {
        process.stop(&machine.shared).await;
    }
    Ok(machine.disk.told())
}

fn simulate(seed: u64, disk: PowerDisk, outcome: &mut Outcome) -> Result<Told, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        match tokio::time::timeout(Duration::from_secs(86_400), run(seed, disk, outcome)).await {
            Ok(done) => done,
            Err(_) => Err("it never ends".into()),
        }
    })
}

#[test]
fn a_batch_survives_power_cuts_with_nobody_lost_and_nobody_twice() {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    let mut outcome = Outcome::default();
    for seed in 0..12 {
        let told = simulate(seed, PowerDisk::new(seed, 0), &mut outcome).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        for (what, count) in [("cuts", told.cuts), ("torn", told.torn), ("syncs", told.syncs), ("lost", told.lost)] {
            *all.entry(what).or_default() += count;
        }
    }
    println!("{all:?}, accepted {}, failed {}, uncertain {}", outcome.accepted, outcome.failed, outcome.uncertain);
    assert!(all["cuts"] >= 40 && all["torn"] >= 15 && all["syncs"] > 5_000, "the cuts were no trouble: {all:?}");
    assert!(outcome.accepted > 1_500 && outcome.uncertain > 0, "{outcome:?}");
}

/// Such a disk goes back to an earlier moment with its power: what was acknowledged in between is gone, and may be done again.
#[test]
fn a_batch_over_a_disk_that_lies_about_its_syncs_breaks_the_rules() {
    let liar = |seed| PowerDisk::new(seed, 500).forgetful();
    let noticed: Vec<String> = (0..12).filter_map(|seed| simulate(seed, liar(seed), &mut Outcome::default()).err()).collect();
    println!("{noticed:#?}");
    assert!(!noticed.is_empty(), "a disk that lies was not noticed");
}
