//! The ports over a disk that loses its power: what was answered is there, the rest is there or not, and nothing is half there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use smsfleet::adapters::embedded::EmbeddedStore;
use smsfleet::adapters::embedded::folder::Folder;
use smsfleet::adapters::embedded::keyed::MarkCell;
use smsfleet::adapters::system::SeededChance;
use smsfleet::model::id::{Msisdn, RecipientKey, WindowKey};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::pack::PackKey;
use smsfleet::model::receipt::{Report, Rung};
use smsfleet::model::time::Timestamp;
use smsfleet::ports::clock::Chance;
use smsfleet::ports::control::Cas;
use smsfleet::ports::receipts::{IndexEntry, MatchedReport, PartKey};
use smsfleet::ports::{StoreError, Stores};

use super::disk::{PowerDisk, Told};
use crate::conformance::fixture::{lane, small_options};
use crate::conformance::packs::pack;
use crate::conformance::windows::window_row;

/// Lanes that are written to at once: their writes meet in one commit.
const LANES: u8 = 6;
/// Cuts of one disk.
const CUTS: u32 = 12;
/// Places of a window, and how its answers come: some, then all.
const PARTLY: u32 = 20;
const ALL: u32 = 60;

/// How far each lane's rows are, as those who wrote them know: what was answered, and what was begun.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Versions of the ledger.
    ledger: (u64, u64),
    /// Answers of each window: 0 for none, 1 for some, 2 for all.
    answers: BTreeMap<u64, (u64, u64)>,
    /// Receipts, and packs, by count.
    receipts: (u64, u64),
    packs: (u64, u64),
}

/// A ledger's row at a version: nobody can take one for another.
fn ledger(version: u64) -> Ledger {
    // No window goes beyond its lane.
    let mut row = Ledger::sealed(2_000 + version as u32);
    row.open = (0..version % 3).map(|n| window_row(version * 10 + n, 0, version as i64).window).collect();
    row
}

fn entry(lane_no: u8, n: u64) -> IndexEntry {
    let part = PartKey { recipient: RecipientKey { lane: lane(1, lane_no), seq: n as u32 }, part: 0 };
    IndexEntry { account: "a".into(), message_id: format!("{lane_no:02x}{n:08x}"), number: Msisdn(n), part }
}

fn receipt(lane_no: u8, n: u64) -> MatchedReport {
    let report = Report {
        message_id: format!("{n:x}"),
        number: Some(Msisdn(n)),
        reference: None,
        rung: Rung::Delivered,
        done: None,
        error: "000".into(),
        raw: format!("raw {n}"),
        received: Timestamp(1_000),
    };
    MatchedReport { part: entry(lane_no, n).part, account: "a".into(), report }
}

/// Writes to one lane until the store fails, noting what was begun and what was answered.
async fn write(stores: Stores, lane_no: u8, known: Arc<Mutex<Known>>) -> Result<(), StoreError> {
    let at = lane(1, lane_no);
    let note = |change: &dyn Fn(&mut Known)| change(&mut known.lock().expect("not poisoned"));
    loop {
        // A cut may have kept what was begun: the row itself says where it stands.
        let version = stores.ledgers.load(at).await?.map_or(0, |stored| stored.version);
        note(&|known| known.ledger.1 = version + 1);
        let cas = match version {
            0 => stores.ledgers.insert(at, &ledger(1), 7).await?,
            _ => stores.ledgers.replace(at, version, &ledger(version + 1), 7).await?,
        };
        assert_eq!(cas, Cas::Applied, "nobody else writes it");
        note(&|known| known.ledger.0 = version + 1);

        // The window of this version: some answers with their ids, then all with theirs.
        let key = WindowKey { lane: at, window: version + 1 };
        for (step, answers) in [(1, PARTLY), (2, ALL)] {
            note(&|known| known.answers.entry(version + 1).or_default().1 = step);
            let ids = (0..8).map(|n| entry(lane_no, (version + 1) * 100 + step * 10 + n)).collect();
            stores.windows.put(key, &window_row(version + 1, answers, 5), ids).await?;
            note(&|known| known.answers.entry(version + 1).or_default().0 = step);
        }

        let first = known.lock().expect("not poisoned").receipts.1;
        note(&|known| known.receipts.1 = first + 5);
        stores.receipts.record((first..first + 5).map(|n| receipt(lane_no, n)).collect()).await?;
        note(&|known| known.receipts.0 = first + 5);

        let first = known.lock().expect("not poisoned").packs.1;
        note(&|known| known.packs.1 = first + 2);
        let two = [first, first + 1].map(|n| (pack_key(lane_no, n), pack(n, 40)));
        stores.packs.put(two.into()).await?;
        note(&|known| known.packs.0 = first + 2);
    }
}

fn pack_key(lane_no: u8, n: u64) -> PackKey {
    PackKey { lane: lane(1, lane_no), range: 0, attempt: 1, n: n as u32 }
}

/// Holds what a lane has against what was answered and what was begun, and gives back what it has. The error says what is wrong.
async fn check(stores: &Stores, lane_no: u8, known: &Known) -> Result<Known, String> {
    let at = lane(1, lane_no);
    let failed = |error: StoreError| format!("lane {lane_no}: {error}");
    let between = |what: &str, found: u64, (answered, begun): (u64, u64)| {
        let holds = (answered..=begun).contains(&found);
        if holds { Ok(()) } else { Err(format!("lane {lane_no}: {what} {found}, answered {answered}, begun {begun}")) }
    };
    let stored = stores.ledgers.load(at).await.map_err(failed)?;
    let version = stored.as_ref().map_or(0, |stored| stored.version);
    between("ledger", version, known.ledger)?;
    if stored.is_some_and(|stored| stored.row != ledger(version)) {
        return Err(format!("lane {lane_no}: the ledger of version {version} holds another row"));
    }

    let windows = stores.windows.list(at, 0, 100_000).await.map_err(failed)?;
    let mut steps = BTreeMap::new();
    for stored in &windows {
        let window = stored.key.window;
        let step = match &stored.row {
            Some(row) if *row == window_row(window, PARTLY, 5) => 1,
            Some(row) if *row == window_row(window, ALL, 5) => 2,
            other => {
                return Err(format!(
                    "lane {lane_no}: window {window} is half there: {:?}",
                    other.as_ref().map(|row| row.complete)
                ));
            }
        };
        steps.insert(window, step);
        // Its ids are there with the row that came with them: all of them, and none of a row that is not.
        for with in [1, 2] {
            let ids: Vec<IndexEntry> = (0..8).map(|n| entry(lane_no, window * 100 + with * 10 + n)).collect();
            let asked: Vec<(String, Option<Msisdn>)> = ids.iter().map(|id| (id.message_id.clone(), None)).collect();
            let found = stores.receipt_index.find("a", &asked).await.map_err(failed)?;
            let there = ids.iter().zip(&found).filter(|(id, found)| **found == [id.part]).count();
            if there != if with <= step { 8 } else { 0 } {
                return Err(format!(
                    "lane {lane_no}: window {window} has {there} of the ids of step {with}, and stands at {step}"
                ));
            }
        }
    }
    if let Some(strange) = steps.keys().find(|window| !known.answers.contains_key(window)) {
        return Err(format!("lane {lane_no}: nobody wrote window {strange}"));
    }
    for (window, promised) in &known.answers {
        between("answers", steps.get(window).copied().unwrap_or(0), *promised)?;
    }

    let receipts = stores.receipts.list(at, 0, 1_000_000).await.map_err(failed)?;
    between("receipts", receipts.len() as u64, known.receipts)?;
    if receipts.len() % 5 != 0 || receipts.iter().zip(0..).any(|(found, n)| *found != receipt(lane_no, n)) {
        return Err(format!("lane {lane_no}: {} receipts, some of them half there", receipts.len()));
    }
    let mut packs = 0;
    while let Some(found) = stores.packs.get(pack_key(lane_no, packs)).await.map_err(failed)? {
        if *found != pack(packs, 40) {
            return Err(format!("lane {lane_no}: pack {packs} is another one"));
        }
        packs += 1;
    }
    between("packs", packs, known.packs)?;
    if packs % 2 != 0 {
        return Err(format!("lane {lane_no}: one pack of two"));
    }
    let receipts = receipts.len() as u64;
    Ok(Known {
        ledger: (version, version),
        answers: steps.into_iter().map(|(window, step)| (window, (step, step))).collect(),
        receipts: (receipts, receipts),
        packs: (packs, packs),
    })
}

async fn open(folder: &Path, disk: &PowerDisk) -> Result<EmbeddedStore, String> {
    let folder = Folder::open(folder).map_err(|fault| fault.to_string())?;
    let opened = EmbeddedStore::open_on(folder, Arc::new(disk.clone()), Box::new(MarkCell::default()), small_options());
    opened.await.map_err(|fault| fault.to_string())
}

/// One disk through all its cuts.
async fn endure(seed: u64, lies: u64) -> Result<Told, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = PowerDisk::new(seed, lies);
    let chance = SeededChance::from_seed(seed ^ 0x5eed);
    let mut known: BTreeMap<u8, Known> = (0..LANES).map(|lane| (lane, Known::default())).collect();
    for _ in 0..CUTS {
        // The power may go while the database is opened and repaired, too.
        disk.cut_after(1 + chance.next() % if chance.next().is_multiple_of(4) { 20 } else { 600 });
        if let Ok(store) = open(folder.path(), &disk).await {
            let notes: Vec<_> = known.values().map(|known| Arc::new(Mutex::new(known.clone()))).collect();
            let writing = known.keys().zip(&notes).map(|(lane, note)| tokio::spawn(write(store.stores(), *lane, note.clone())));
            let writing: Vec<_> = writing.collect();
            for ended in futures::future::join_all(writing).await {
                let ended = ended.map_err(|panic| format!("a writer panicked: {panic}"))?;
                if disk.is_on() {
                    return Err(format!("a write failed while there was power: {ended:?}"));
                }
            }
            for (known, note) in known.values_mut().zip(&notes) {
                known.clone_from(&note.lock().expect("not poisoned"));
            }
            drop(store);
        } else if disk.is_on() {
            return Err("it does not open although there is power".into());
        }
        disk.restore();
        let store = open(folder.path(), &disk).await?;
        for (lane, known) in &mut known {
            // What a cut kept of what was begun counts as answered from here on; it was read.
            *known = check(&store.stores(), *lane, known).await?;
        }
        // Closing writes too: the power goes with the store open.
        disk.cut();
        drop(store);
        disk.restore();
    }
    Ok(disk.told())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn what_was_answered_outlives_the_power_and_nothing_is_half_there() {
    let mut all = Told::default();
    for seed in 0..20 {
        let told = runtime().block_on(endure(seed, 0)).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        (all.cuts, all.syncs, all.torn) = (all.cuts + told.cuts, all.syncs + told.syncs, all.torn + told.torn);
        (all.lost, all.kept) = (all.lost + told.lost, all.kept + told.kept);
    }
    println!("{all:?}");
    assert!(all.torn > 50 && all.lost > 1_000 && all.kept > 1_000 && all.syncs > 2_000, "the cuts were no trouble: {all:?}");
}

/// The first start of all, whose power goes while the database is being made: the next must not find another program's file.
#[test]
fn a_first_start_that_is_interrupted_leaves_a_folder_that_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    for steps in 1..=8 {
        for seed in 0..16 {
            let disk = PowerDisk::new(seed, 0);
            disk.cut_after(steps);
            runtime().block_on(async {
                assert!(open(folder.path(), &disk).await.is_err(), "the power went while it was opened");
                disk.restore();
                let opened = open(folder.path(), &disk).await.map(|_| ());
                assert_eq!(opened, Ok(()), "cut after {steps} steps, seed {seed}");
            });
        }
    }
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_noticed() {
    let noticed = |lies: u64| {
        let found = (0..8).filter_map(|seed| runtime().block_on(endure(seed, lies)).err());
        found.collect::<Vec<String>>()
    };
    // One that never syncs loses everything each time; one that lies now and then is harder to catch.
    let always = noticed(1_000);
    assert_eq!(always.len(), 8, "{always:?}");
    let sometimes = noticed(300);
    println!("{always:#?}\n{sometimes:#?}");
    assert!(sometimes.len() >= 4, "{sometimes:?}");
    let missed = always.iter().chain(&sometimes).filter(|wrong| wrong.contains(", answered ")).count();
    assert!(missed > 0, "what was answered and lost was never noticed as such");
}
