//! The engine on a disk: redb, one writer thread with group commit, reads on the caller.
//!
//! Every commit is synced before anybody hears of it. A disk that is full refuses the write and nothing else happens: the
//! database is opened again, since redb keeps refusing after any failed write; whoever reads meanwhile is told to come again,
//! since opening looks at every page. A sync that fails, or any other failure of the disk, ends the engine: what is on the disk
//! is not known any more, and only a start can tell, which reads the disk itself and not what the system remembers of it
//! ([`Disks::open`]).

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, TableError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Disks, Failure, Watched};
use super::room::RoomLeft;
use super::writer::{Job, Writer, last_commit};
use super::{Batch, Engine, Order, Reader, Table, Visit, Written};
use crate::model::code::{Code, Fault};
use crate::ports::StoreError;

/// Longer than a new file of redb, which has some 72 KiB.
const UNBORN_BYTES_MAX: u64 = 128 << 10;
/// Bytes by which redb knows its files, at their beginning.
const REDB_NAME_BYTES: usize = 9;
/// A page of redb; its header has the first to itself.
const PAGE_BYTES: usize = 4_096;

pub(super) type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// How the engine uses memory and disk.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Bytes of pages kept in memory.
    pub cache_bytes: usize,
    /// Data is refused while less than this is free, so that control rows can still be written.
    pub min_free_bytes: u64,
}

/// The open database, its disk, and how that failed last.
pub(super) struct Opened {
    pub(super) database: Arc<Database>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) failure: Arc<Mutex<Option<Failure>>>,
}

pub(super) type Slot = RwLock<Option<Opened>>;

/// See the file's first sentence.
pub struct RedbEngine {
    slot: Arc<Slot>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failed: CancellationToken,
    left: Arc<RoomLeft>,
}

impl RedbEngine {
    /// Opens the database, repairing it after a crash, and starts the writer thread.
    pub fn open(disks: Arc<dyn Disks>, options: EngineOptions) -> Result<RedbEngine, Fault> {
        RedbEngine::start(disks, options).map_err(|error| open_fault(&error))
    }

    fn start(disks: Arc<dyn Disks>, options: EngineOptions) -> Result<RedbEngine, redb::Error> {
        let opened = open(&*disks, options.cache_bytes)?;
        let number = last_commit(&opened.database)?;
        let left = Arc::new(RoomLeft::new(disks.clone(), options.min_free_bytes));
        left.begin(&opened.database, &*opened.disk)?;
        let slot = Arc::new(RwLock::new(Some(opened)));
        let failed = CancellationToken::new();
        let (jobs, queue) = mpsc::channel();
        let writer = Writer::new(slot.clone(), disks, left.clone(), options.cache_bytes, failed.clone(), number);
        let thread = std::thread::Builder::new()
            .name("smsfleet-store".into())
            .spawn(move || writer.run(queue))
            .map_err(redb::Error::Io)?;
        Ok(RedbEngine { slot, jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), failed, left })
    }

    /// Cancelled when the disk failed: nothing is written any more, and the process should end.
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Writes what is queued, closes the database and waits for the writer thread.
    pub fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that panicked has told so through `failed`.
            let _ = thread.join();
        }
        drop(self.slot.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait::async_trait]
impl Engine for RedbEngine {
    fn room(&self) -> Result<(), StoreError> {
        self.left.for_bytes(0)
    }

    fn read(&self) -> Result<Box<dyn Reader + '_>, StoreError> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        let opened = slot.as_ref().ok_or_else(closed)?;
        let transaction = opened.database.begin_read().map_err(|error| read_error(&error.into()))?;
        Ok(Box::new(RedbReader { transaction, last: RefCell::new(None) }))
    }

    async fn write(&self, batch: Batch) -> Result<Written, StoreError> {
        if self.failed.is_cancelled() {
            return Err(StoreError::Unavailable("the disk failed; restart".into()));
        }
        self.left.for_batch(&batch)?;
        let (answer, answered) = oneshot::channel();
        {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.as_ref().ok_or_else(closed)?.send(Job { batch, answer }).map_err(|_| closed())?;
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::Unknown("the writer ended".into())))
    }
}

type OpenRows = Rc<ReadOnlyTable<&'static [u8], &'static [u8]>>;

struct RedbReader {
    transaction: ReadTransaction,
    /// The table read last: many reads of one table follow one another, and opening one costs as much as a read.
    last: RefCell<Option<(Table, OpenRows)>>,
}

impl RedbReader {
    /// A table that was never written does not exist yet and reads as empty.
    fn table(&self, table: Table) -> Result<Option<OpenRows>, StoreError> {
        if let Some((last, open)) = &*self.last.borrow()
            && *last == table
        {
            return Ok(Some(open.clone()));
        }
        match self.transaction.open_table(rows(table)) {
            Ok(rows) => {
                let open = Rc::new(rows);
                *self.last.borrow_mut() = Some((table, open.clone()));
                Ok(Some(open))
            }
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(read_error(&error.into())),
        }
    }
}

impl Reader for RedbReader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(rows) = self.table(table)? else { return Ok(None) };
        let row = rows.get(key).map_err(|error| read_error(&error.into()))?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, order: Order, visit: &mut Visit) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let Some(rows) = self.table(table)? else { return Ok(()) };
        let range = match to {
            Some(to) => rows.range::<&[u8]>(from..to),
            None => rows.range::<&[u8]>(from..),
        };
        let mut range = range.map_err(|error| read_error(&error.into()))?;
        loop {
            let next = match order {
                Order::Up => range.next(),
                Order::Down => range.next_back(),
            };
            let Some(next) = next else { return Ok(()) };
            let (key, value) = next.map_err(|error| read_error(&error.into()))?;
            if !visit(key.value(), value.value())? {
                return Ok(());
            }
        }
    }
}

pub(super) fn rows(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

pub(super) fn open(disks: &dyn Disks, cache_bytes: usize) -> Result<Opened, redb::DatabaseError> {
    let disk: Arc<dyn Disk> = disks.open()?.into();
    drop_unborn(&*disk)?;
    let (backend, failure) = Watched::new(disk.clone());
    let database = Database::builder().set_cache_size(cache_bytes).create_with_backend(backend)?;
    Ok(Opened { database: Arc::new(database), disk, failure })
}

/// Empties a file whose making was interrupted. redb gives a new one its length and a header, syncs, and only then puts its name at
/// the beginning; a file without that name it would take for another program's, at every start. Nothing else is such a file: behind
/// the header of any other there is something.
fn drop_unborn(disk: &dyn Disk) -> std::io::Result<()> {
    let length = disk.length()?;
    if length == 0 || length > UNBORN_BYTES_MAX {
        return Ok(());
    }
    let mut bytes = vec![0; length as usize];
    disk.read(0, &mut bytes)?;
    let is_unborn = bytes.iter().take(REDB_NAME_BYTES).chain(bytes.iter().skip(PAGE_BYTES)).all(|byte| *byte == 0);
    if is_unborn {
        disk.set_len(0)?;
        disk.sync()?;
    }
    Ok(())
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed, or is being opened again".into())
}

fn open_fault(error: &redb::Error) -> Fault {
    let code = match error {
        redb::Error::UpgradeRequired(_) => Code::StoreFormat,
        redb::Error::Corrupted(_) => Code::StoreCorrupt,
        redb::Error::Io(io) => match io.kind() {
            ErrorKind::InvalidData => Code::StoreCorrupt,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::StoreFull,
            _ => Code::StoreUnavailable,
        },
        _ => Code::StoreUnavailable,
    };
    Fault::new(code, format!("the database cannot be opened: {error}"))
}

fn read_error(error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(how) => StoreError::Corrupt(how.clone()),
        other => StoreError::Unavailable(other.to_string()),
    }
}
