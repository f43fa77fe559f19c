//! A disk that has no room left, and whose reads take long: what the rest of the store notices of it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Result};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use smsfleet::adapters::embedded::engine::disk::{Disk, Disks};
use smsfleet::adapters::embedded::folder::Folder;
use smsfleet::adapters::embedded::keyed::MarkCell;
use smsfleet::adapters::embedded::{EmbeddedStore, StoreOptions};
use smsfleet::ports::{StoreError, Stores};

use super::fixture::small_options;

/// What a disk gives to a file at once.
const BLOCK: usize = 4_096;

/// A disk of some size. As on most, a file is as long as it likes, and takes ground when it is written to for the first time.
#[derive(Clone)]
pub struct SmallDisk(Arc<Shared>);

struct Shared {
    size: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// Blocks that were ever written and not cut off since.
    taken: BTreeSet<usize>,
    opened: u32,
    /// Reads of whoever opened it the n-th time, or later, wait.
    holds_from: Option<u32>,
    is_holding: bool,
}

impl SmallDisk {
    pub fn new(size: u64) -> SmallDisk {
        SmallDisk(Arc::new(Shared { size: AtomicU64::new(size), state: Mutex::default(), changed: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("not poisoned")
    }

    /// Takes away what is free, and gives so much.
    pub fn leave_free(&self, bytes: u64) {
        let taken = self.state().taken.len() * BLOCK;
        self.0.size.store(taken as u64 + bytes, Ordering::Relaxed);
    }

    fn opened(&self) -> u32 {
        self.state().opened
    }

    async fn is_holding(&self) {
        let waiting = async {
            while !self.state().is_holding {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is opened again");
    }

    fn let_go(&self) {
        self.state().holds_from = None;
        self.0.changed.notify_all();
    }
}

impl Disks for SmallDisk {
    fn open(&self) -> Result<Box<dyn Disk>> {
        self.state().opened += 1;
        Ok(Box::new(self.clone()))
    }

    fn free_bytes(&self) -> u64 {
        self.0.size.load(Ordering::Relaxed).saturating_sub((self.state().taken.len() * BLOCK) as u64)
    }
}

impl std::fmt::Debug for SmallDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a small disk")
    }
}

impl Disk for SmallDisk {
    fn length(&self) -> Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn held(&self) -> Result<u64> {
        Ok((self.state().taken.len() * BLOCK) as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        while state.holds_from.is_some_and(|from| state.opened >= from) {
            state.is_holding = true;
            state = self.0.changed.wait(state).expect("not poisoned");
        }
        let from = offset as usize;
        out.copy_from_slice(state.bytes.get(from..from + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.state();
        state.bytes.resize(len as usize, 0);
        let _cut_off = state.taken.split_off(&(len as usize).div_ceil(BLOCK));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        let (from, to) = (offset as usize, offset as usize + data.len());
        let new: Vec<usize> = (from / BLOCK..to.div_ceil(BLOCK)).filter(|block| !state.taken.contains(block)).collect();
        let taken = (state.taken.len() + new.len()) * BLOCK;
        if !new.is_empty() && taken as u64 > self.0.size.load(Ordering::Relaxed) {
            return Err(ErrorKind::StorageFull.into());
        }
        state.bytes.get_mut(from..to).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        state.taken.extend(new);
        Ok(())
    }
}

pub async fn open_on(folder: &Path, disk: &SmallDisk, options: StoreOptions) -> EmbeddedStore {
    let folder = Folder::open(folder).expect("the folder opens");
    let opened = EmbeddedStore::open_on(folder, Arc::new(disk.clone()), Box::new(MarkCell::default()), options);
    opened.await.expect("it opens")
}

/// Stores 10 KB under a name, as a control row.
pub async fn note(store: &Stores, name: &str) -> std::result::Result<(), StoreError> {
    store.meta.put(name, &name.repeat(10_000 / name.len())).await
}

async fn is_noted(store: &Stores, name: &str) -> bool {
    store.meta.get(name).await.expect("it is read").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_opened_again_once_and_nobody_who_reads_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::new(64 << 20);
    let store = open_on(folder.path(), &disk, small_options()).await;
    let stores = store.stores();
    note(&stores, "first").await.expect("there is room");
    disk.leave_free(0);
    disk.state().holds_from = Some(2);
    let writing = {
        let stores = stores.clone();
        tokio::spawn(async move {
            for n in 0..10_000 {
                if let Err(error) = note(&stores, &n.to_string()).await {
                    return (n, error);
                }
            }
            panic!("the disk never became full");
        })
    };
    disk.is_holding().await;
    let reading = {
        let meta = stores.meta.clone();
        tokio::spawn(async move { meta.get("first").await })
    };
    let read = tokio::time::timeout(Duration::from_secs(5), reading).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    disk.let_go();
    let read = read.expect("whoever reads does not wait").expect("no task fails");
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let (stored, error) = writing.await.expect("no task fails");
    assert!(matches!(error, StoreError::Full(_)), "{error}");

    for _ in 0..9 {
        let refused = note(&stores, "refused").await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    }
    assert_eq!(disk.opened(), 2, "what is known is not tried again at once");
    disk.leave_free(8 << 20);
    note(&stores, "last").await.expect("there is room again");
    assert!(!store.failed().is_cancelled());
    for n in 0..stored {
        assert!(is_noted(&stores, &n.to_string()).await, "{n} was answered");
    }
    assert!(!is_noted(&stores, &stored.to_string()).await && !is_noted(&stores, "refused").await);
}
