//! Disks that are full, that fail, and that lose what was not synced.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use smsfleet::adapters::embedded::engine::disk::{Disk, Disks};
use smsfleet::adapters::embedded::folder::Folder;
use smsfleet::adapters::embedded::keyed::MarkCell;
use smsfleet::adapters::embedded::{EmbeddedStore, StoreOptions};
use smsfleet::model::id::{BatchId, WindowKey};
use smsfleet::model::lane::mix;
use smsfleet::model::ledger::Ledger;
use smsfleet::model::pack::PackKey;
use smsfleet::ports::StoreError;
use smsfleet::ports::control::Cas;

use super::fixture::{lane, small_options};
use super::packs::pack;
use super::windows::window_row;

/// Messages in a pack of these tests: about 30 KB.
const PACK: u64 = 1_500;

fn key(n: u32) -> PackKey {
    PackKey { lane: lane(1, 0), range: 0, attempt: 1, n }
}

/// Stores packs until one is refused; gives back how many were stored and why the next was not.
async fn fill(store: &EmbeddedStore, from: u32) -> (u32, StoreError) {
    let packs = store.stores().packs;
    for n in from..100_000 {
        if let Err(error) = packs.put(vec![(key(n), pack(u64::from(n), PACK))]).await {
            return (n, error);
        }
    }
    panic!("the disk never became full");
}

async fn all_there(store: &EmbeddedStore, packs: u32) {
    for n in 0..packs {
        let found = store.stores().packs.get(key(n)).await.expect("it is read");
        assert_eq!(found.as_deref(), Some(&pack(u64::from(n), PACK)), "pack {n}");
    }
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_data_and_declares_and_still_takes_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    let disks = Arc::new(TestDisks::default());
    let store = open_on(folder.path(), &disks).await;
    let stores = store.stores();
    stores.packs.put(vec![(key(0), pack(0, PACK))]).await.expect("there is room");
    disks.used_up.store(true, Ordering::Relaxed);
    let data = stores.packs.put(vec![(key(1), pack(1, PACK))]).await;
    assert!(matches!(data, Err(StoreError::Full(_))), "{data:?}");
    assert_eq!(stores.ledgers.insert(lane(1, 0), &Ledger::sealed(9), 1).await, Ok(Cas::Applied));
    assert_eq!(stores.ledgers.replace(lane(1, 0), 1, &Ledger::sealed(9), 1).await, Ok(Cas::Applied));
    let row = window_row(3, 4, 0);
    let declared = Ledger { open: vec![row.window.clone()], ..Ledger::sealed(9) };
    let declare = stores.ledgers.replace(lane(1, 0), 2, &declared, 1).await;
    assert!(matches!(declare, Err(StoreError::Full(_))), "{declare:?}: nothing is handed over without room for its answer");
    let key_of = WindowKey { lane: lane(1, 0), window: 3 };
    stores.windows.put(key_of, &row, vec![]).await.expect("answers to what was handed over are stored");
    disks.used_up.store(false, Ordering::Relaxed);
    stores.packs.put(vec![(key(1), pack(1, PACK))]).await.expect("there is room again");
    assert_eq!(stores.ledgers.replace(lane(1, 0), 2, &declared, 1).await, Ok(Cas::Applied));
    all_there(&store, 2).await;
}

#[tokio::test]
async fn a_store_does_not_grow_beyond_its_configured_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = StoreOptions { min_free_bytes: 200 << 10, ..small_options() };
    options.max_bytes.store(600 << 10, Ordering::Relaxed);
    let store = EmbeddedStore::open(folder.path(), options.clone()).await.expect("it opens");
    let (stored, error) = fill(&store, 0).await;
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    let length = std::fs::metadata(folder.path().join("smsfleet.redb")).expect("it is there").len();
    assert!(stored > 0 && length <= 600 << 10, "{stored} packs in {length} bytes");
    options.max_bytes.store(64 << 20, Ordering::Relaxed);
    store.stores().packs.put(vec![(key(stored), pack(u64::from(stored), PACK))]).await.expect("there is room again");
    all_there(&store, stored + 1).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_write_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // Nothing is refused ahead: the write itself runs into the end of the disk.
    let disks = Arc::new(TestDisks::default());
    disks.limit.lock().expect("a limit").replace(3 << 17);
    let options = StoreOptions { min_free_bytes: 0, ..small_options() };
    let store = open_with(folder.path(), &disks, options).await;
    let mut stored = 0;
    // The file grows by doubling, so a little more room would not be enough.
    for room in [5u64 << 18, 5 << 20, 64 << 20] {
        let (reached, error) = fill(&store, stored).await;
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        assert!(reached > stored, "something fitted");
        stored = reached;
        all_there(&store, stored).await;
        assert!(!store.failed().is_cancelled());
        disks.limit.lock().expect("a limit").replace(room);
    }
    store.stores().packs.put(vec![(key(stored), pack(u64::from(stored), PACK))]).await.expect("there is room again");
    all_there(&store, stored + 1).await;
    drop(store);
    disks.lose_unsynced(None);
    all_there(&open_on(folder.path(), &disks).await, stored + 1).await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let disks = Arc::new(TestDisks::default());
    let store = open_on(folder.path(), &disks).await;
    let ledgers = store.stores().ledgers;
    assert_eq!(ledgers.insert(lane(1, 0), &Ledger::sealed(1), 1).await, Ok(Cas::Applied));
    disks.syncs_fail.store(true, Ordering::Relaxed);
    let answer = ledgers.insert(lane(1, 1), &Ledger::sealed(1), 1).await;
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    store.failed().cancelled().await;
    disks.syncs_fail.store(false, Ordering::Relaxed);
    let later = ledgers.insert(lane(1, 2), &Ledger::sealed(1), 1).await;
    assert!(matches!(later, Err(StoreError::Unavailable(_))), "{later:?}");
    drop(store);
    disks.lose_unsynced(None);
    let store = open_on(folder.path(), &disks).await;
    let row = store.stores().ledgers.load(lane(1, 0)).await.expect("it is read");
    assert!(row.is_some(), "what was answered before is there");
}

#[tokio::test]
async fn a_start_after_a_failed_sync_builds_on_nothing_that_is_not_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let disks = Arc::new(TestDisks::default());
    let store = open_on(folder.path(), &disks).await;
    store.stores().packs.put(vec![(key(0), pack(0, PACK))]).await.expect("it is stored");
    disks.syncs_fail.store(true, Ordering::Relaxed);
    let lost = store.stores().packs.put(vec![(key(1), pack(1, PACK))]).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    drop(store);
    disks.syncs_fail.store(false, Ordering::Relaxed);
    // The process alone starts again: the machine has its power, and shows what it failed to write.
    let store = open_on(folder.path(), &disks).await;
    for n in 1..6 {
        store.stores().packs.put(vec![(key(n), pack(u64::from(n), PACK))]).await.expect("it is stored");
    }
    drop(store);
    disks.lose_unsynced(None);
    all_there(&open_on(folder.path(), &disks).await, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_power_cut_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let disks = Arc::new(TestDisks::default());
    let mut answered = 0u32;
    for round in 0..20u32 {
        let store = open_on(folder.path(), &disks).await;
        let stores = store.stores();
        let ledgers = stores.ledgers.list(BatchId(1)).await.expect("they are listed");
        assert!(ledgers.len() >= usize::from(round.min(100) as u8), "round {round}");
        all_there(&store, answered).await;
        let burst: Vec<_> = (answered..answered + 8)
            .map(|n| {
                let packs = stores.packs.clone();
                tokio::spawn(async move { packs.put(vec![(key(n), pack(u64::from(n), PACK))]).await })
            })
            .collect();
        for put in burst {
            put.await.expect("no task fails").expect("it is stored");
        }
        answered += 8;
        stores.ledgers.insert(lane(1, round as u8), &Ledger::sealed(1), 1).await.expect("it is stored");
        // More is on its way when the power goes; whether it arrives does not matter.
        let packs = stores.packs.clone();
        let cut = tokio::spawn(async move { packs.put(vec![(key(50_000), pack(1, PACK))]).await });
        for _ in 0..round * 3 {
            tokio::task::yield_now().await;
        }
        disks.power_off.store(true, Ordering::Relaxed);
        let _ = cut.await.expect("no task fails");
        drop(store);
        disks.lose_unsynced(Some(round.into()));
        disks.power_off.store(false, Ordering::Relaxed);
    }
}

async fn open_on(folder: &Path, disks: &Arc<TestDisks>) -> EmbeddedStore {
    open_with(folder, disks, small_options()).await
}

async fn open_with(folder: &Path, disks: &Arc<TestDisks>, options: StoreOptions) -> EmbeddedStore {
    let folder = Folder::open(folder).expect("the folder opens");
    EmbeddedStore::open_on(folder, disks.clone(), Box::new(MarkCell::default()), options).await.expect("it opens")
}

/// A disk in memory that keeps what was synced apart from what was only written.
#[derive(Debug, Default)]
struct TestDisks {
    synced: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<Vec<u8>>>,
    /// Blocks written since the last sync.
    dirty: Arc<Mutex<BTreeMap<u64, usize>>>,
    limit: Arc<Mutex<Option<u64>>>,
    syncs_fail: Arc<AtomicBool>,
    power_off: Arc<AtomicBool>,
    /// Whether hardly anything is free.
    used_up: AtomicBool,
}

impl TestDisks {
    /// Loses what was not synced: all of it, or, since a disk writes in any order, some of it by a seed.
    fn lose_unsynced(&self, some: Option<u64>) {
        let mut synced = self.synced.lock().expect("synced");
        let mut written = self.written.lock().expect("written");
        for (offset, len) in std::mem::take(&mut *self.dirty.lock().expect("dirty")) {
            let (from, to) = (offset as usize, (offset as usize + len).min(written.len()));
            if some.is_some_and(|seed| mix(seed ^ offset).is_multiple_of(2)) && from < to {
                let end = synced.len().max(to);
                synced.resize(end, 0);
                synced[from..to].copy_from_slice(&written[from..to]);
            }
        }
        written.clone_from(&synced);
    }
}

impl Disks for TestDisks {
    fn open(&self) -> Result<Box<dyn Disk>> {
        let disk = TestDisk {
            synced: self.synced.clone(),
            written: self.written.clone(),
            dirty: self.dirty.clone(),
            limit: self.limit.clone(),
            syncs_fail: self.syncs_fail.clone(),
            power_off: self.power_off.clone(),
        };
        // What can still be written is, the rest of what is remembered is dropped.
        disk.sync()?;
        self.written.lock().expect("written").clone_from(&self.synced.lock().expect("synced"));
        Ok(Box::new(disk))
    }

    fn free_bytes(&self) -> u64 {
        if self.used_up.load(Ordering::Relaxed) {
            return 1_000;
        }
        let limit = *self.limit.lock().expect("a limit");
        limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.written.lock().expect("written").len() as u64))
    }
}

#[derive(Debug)]
struct TestDisk {
    synced: Arc<Mutex<Vec<u8>>>,
    written: Arc<Mutex<Vec<u8>>>,
    dirty: Arc<Mutex<BTreeMap<u64, usize>>>,
    limit: Arc<Mutex<Option<u64>>>,
    syncs_fail: Arc<AtomicBool>,
    power_off: Arc<AtomicBool>,
}

impl TestDisk {
    fn powered(&self) -> Result<()> {
        if self.power_off.load(Ordering::Relaxed) { Err(Error::other("the power is off")) } else { Ok(()) }
    }
}

impl Disk for TestDisk {
    fn length(&self) -> Result<u64> {
        Ok(self.written.lock().expect("written").len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let written = self.written.lock().expect("written");
        let from = offset as usize;
        let bytes = written.get(from..from + out.len()).ok_or(ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.powered()?;
        let mut written = self.written.lock().expect("written");
        if self.limit.lock().expect("a limit").is_some_and(|limit| len > limit) && len > written.len() as u64 {
            return Err(ErrorKind::StorageFull.into());
        }
        written.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.powered()?;
        if self.syncs_fail.load(Ordering::Relaxed) {
            // As Linux has it: what could not be written is still shown, and no later sync will try it again.
            self.dirty.lock().expect("dirty").clear();
            return Err(Error::other("the disk is broken"));
        }
        let written = self.written.lock().expect("written");
        let mut synced = self.synced.lock().expect("synced");
        synced.resize(written.len(), 0);
        for (offset, len) in std::mem::take(&mut *self.dirty.lock().expect("dirty")) {
            let (from, to) = (offset as usize, (offset as usize + len).min(written.len()));
            if from < to {
                synced[from..to].copy_from_slice(&written[from..to]);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.powered()?;
        let (from, to) = (offset as usize, offset as usize + data.len());
        self.written.lock().expect("written").get_mut(from..to).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        let mut dirty = self.dirty.lock().expect("dirty");
        let known = dirty.entry(offset).or_default();
        *known = (*known).max(data.len());
        Ok(())
    }
}
