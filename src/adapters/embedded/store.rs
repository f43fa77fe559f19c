//! The store in a folder: opening, checking its format, closing.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::engine::disk::{Disks, FileDisks};
use super::engine::redb::{EngineOptions, RedbEngine};
use super::engine::{Batch, Engine, Table};
use super::folder::{Folder, fault};
use super::index::{Index, IndexOptions};
use super::keyed::{Keyed, MarkFile};
use crate::adapters::rows::frame::{read_small, small};
use crate::adapters::system::SeededChance;
use crate::model::code::{Code, Fault};
use crate::model::limits::DELIVERY_PARTITIONS;
use crate::ports::Stores;
use crate::ports::clock::Chance;
use crate::ports::meta::Outside;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

const FORMAT_KEY: &[u8] = b"format";
/// How long the index rests after its work failed, for want of room above all.
const REST: Duration = Duration::from_secs(1);

/// How the store uses memory and disk.
#[derive(Clone)]
pub struct StoreOptions {
    /// Bytes of database pages kept in memory.
    pub cache_bytes: usize,
    /// Data is refused while less than this is free on the disk, so that control rows can still be written.
    pub min_free_bytes: u64,
    /// The database file never grows beyond this; may be changed while the store is open.
    pub max_bytes: Arc<AtomicU64>,
    /// Sizes of the receipt index.
    pub index: IndexOptions,
    /// Where the key of short links comes from.
    pub chance: Arc<dyn Chance>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            cache_bytes: 48 << 20,
            min_free_bytes: 64 << 20,
            max_bytes: Arc::new(AtomicU64::new(u64::MAX)),
            index: IndexOptions::default(),
            chance: Arc::new(SeededChance::from_system()),
        }
    }
}

/// The durable store in one folder.
pub struct EmbeddedStore {
    keyed: Arc<Keyed>,
    engine: Arc<RedbEngine>,
    maintenance: Mutex<Option<(SyncSender<()>, JoinHandle<()>)>>,
    stop: CancellationToken,
    folder: Folder,
}

impl EmbeddedStore {
    /// Opens the folder, creating it if there is none; after a crash the database is repaired first.
    ///
    /// [`Code::FolderInUse`] when another process has it, [`Code::StoreFormat`] when another version wrote it.
    pub async fn open(path: &Path, options: StoreOptions) -> Result<EmbeddedStore, Fault> {
        let folder = Folder::open(path)?;
        let disks = Arc::new(FileDisks::new(&folder.database(), options.max_bytes.clone()));
        let outside = Box::new(MarkFile::new(&folder.mark(), &folder.database()));
        EmbeddedStore::open_on(folder, disks, outside, options).await
    }

    /// Opens a store whose database lies on `disks`: for tests of disks that are small, fail, or lose what was not synced.
    pub async fn open_on(
        folder: Folder,
        disks: Arc<dyn Disks>,
        outside: Box<dyn Outside>,
        options: StoreOptions,
    ) -> Result<EmbeddedStore, Fault> {
        let engine_options = EngineOptions { cache_bytes: options.cache_bytes, min_free_bytes: options.min_free_bytes };
        let opened = tokio::task::spawn_blocking(move || RedbEngine::open(disks, engine_options)).await;
        let engine = Arc::new(opened.map_err(|error| Fault::new(Code::Internal, error.to_string()))??);
        if folder.database().exists() {
            folder.hide_database()?;
        }
        check_format(&engine).await?;
        let keyed = Keyed::open(engine.clone(), options.index, options.chance, outside).await?;
        let stop = CancellationToken::new();
        let (wake, woken) = sync_channel(1);
        let (index, stopped) = (keyed.index(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("smsfleet-index".into())
            .spawn(move || keep_index(&index, &woken, &stopped))
            .map_err(|error| fault(&folder.database(), &error))?;
        let waker = wake.clone();
        // A wake that finds one waiting is one too many.
        let keyed = Arc::new(keyed.maintained_by(Box::new(move || {
            let _ = waker.try_send(());
        })));
        let _ = wake.try_send(());
        Ok(EmbeddedStore { keyed, engine, maintenance: Mutex::new(Some((wake, thread))), stop, folder })
    }

    /// The ports.
    pub fn stores(&self) -> Stores {
        self.keyed.stores()
    }

    /// Cancelled when the disk failed: nothing is written any more, and the process should end with an error.
    pub fn failed(&self) -> CancellationToken {
        self.engine.failed()
    }

    /// Where standard input is kept until it is read.
    pub fn spool(&self) -> PathBuf {
        self.folder.spool()
    }

    /// The receipt index, for people who watch.
    pub fn index(&self) -> Arc<Index> {
        self.keyed.index()
    }

    /// Writes what is queued and closes the database. Every later call on a port answers
    /// [`StoreError::Unavailable`].
    pub fn close(&self) {
        self.stop.cancel();
        let maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((wake, thread)) = maintenance {
            let _ = wake.try_send(());
            // The thread ends within one piece of work; if it panicked, there is nothing to wait for.
            let _ = thread.join();
        }
        self.engine.close();
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// The index's own thread: merging eight runs of a million entries must not stand in the way of a window.
fn keep_index(index: &Index, woken: &Receiver<()>, stop: &CancellationToken) {
    let mut rest = Duration::MAX;
    loop {
        let waited = if rest == Duration::MAX {
            woken.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            woken.recv_timeout(rest)
        };
        if waited == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        rest = Duration::MAX;
        loop {
            if stop.is_cancelled() {
                return;
            }
            match futures::executor::block_on(index.maintain()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "the receipt index could not be kept up; it is tried again");
                    rest = REST;
                    break;
                }
            }
        }
    }
}

async fn check_format(engine: &RedbEngine) -> Result<(), Fault> {
    let row = engine.read().and_then(|reader| reader.get(Table::System, FORMAT_KEY))?;
    let Some(row) = row else {
        let row = small(&(FORMAT, DELIVERY_PARTITIONS));
        engine.write(Batch::control().put(Table::System, FORMAT_KEY.to_vec(), row)).await?;
        return Ok(());
    };
    let (format, partitions): (u32, u16) = read_small("format", &row)?;
    if format != FORMAT {
        return Err(Fault::new(Code::StoreFormat, format!("the folder has format {format}, this version reads {FORMAT}")));
    }
    if partitions != DELIVERY_PARTITIONS {
        let context = format!("the folder has {partitions} delivery partitions, this version {DELIVERY_PARTITIONS}");
        return Err(Fault::new(Code::StoreFormat, context));
    }
    Ok(())
}
