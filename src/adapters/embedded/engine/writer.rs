//! The writer thread: takes all batches that wait, applies them in one transaction, syncs it, answers all.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::disk::{Disks, Failure};
use super::redb::{Opened, Slot, closed, open, rows};
use super::room::{Moved, RoomLeft};
use super::{Batch, Expect, Op, TABLES, Table, Written};
use crate::model::growing::Grows;
use crate::ports::StoreError;
use crate::runtime::pulse;

/// A commit holds about this many bytes and changes at most, so that nobody waits long behind others.
const COMMIT_BYTES_MAX: usize = 4 << 20;
const COMMIT_OPS_MAX: usize = 8_192;

/// While the disk is full, opening the database again and again takes at most a tenth of the time; in between the answer is known.
const RESTS: u32 = 9;
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(300);
/// So much more must be free before a full disk is tried early: what other programs write and remove comes and goes.
const GROWN_BYTES: u64 = 256 << 10;

/// Under this key of the system table stands the number of the last commit: after a failure it tells what was applied.
const COMMIT_KEY: &[u8] = b"commit";

/// A batch and who waits for it.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) answer: oneshot::Sender<Result<Written, StoreError>>,
}

pub(super) struct Writer {
    slot: Arc<Slot>,
    disks: Arc<dyn Disks>,
    left: Arc<RoomLeft>,
    cache_bytes: usize,
    failed: CancellationToken,
    number: Cell<u64>,
    full: RefCell<Option<Full>>,
    /// Whether the database was opened again for damage, and nothing was committed since.
    is_damaged: Cell<bool>,
}

/// A disk that was full: why, what was free then, and until when that is believed.
struct Full {
    why: StoreError,
    free: u64,
    until: Instant,
}

/// Why a transaction was not committed, as far as is known.
struct Failed {
    error: redb::Error,
    /// Whether redb takes no transaction any more until it is opened again. Nothing is known of this one then, either; otherwise it
    /// was dropped, and nothing of it was applied.
    is_stuck: bool,
}

impl Writer {
    /// `number` is that of the last commit.
    pub(super) fn new(
        slot: Arc<Slot>,
        disks: Arc<dyn Disks>,
        left: Arc<RoomLeft>,
        cache_bytes: usize,
        failed: CancellationToken,
        number: u64,
    ) -> Writer {
        let (number, full, is_damaged) = (Cell::new(number), RefCell::new(None), Cell::new(false));
        Writer { slot, disks, left, cache_bytes, failed, number, full, is_damaged }
    }

    /// Runs until the engine is closed or the disk fails.
    pub(super) fn run(self, queue: Receiver<Job>) {
        // Also said when this thread panics: no write is ever answered again.
        let tell = self.failed.clone().drop_guard();
        let pulse = pulse::thread("store's writer");
        while let Ok(first) = pulse.waits(|| queue.recv()) {
            let group = gather(first, &queue);
            if !self.commit(group) {
                tracing::error!("the store's disk failed; nothing is written any more");
                return;
            }
        }
        tell.disarm();
    }

    /// Applies a group and answers it. `false` when the engine is at its end.
    fn commit(&self, group: Vec<Job>) -> bool {
        if let Some(why) = self.still_full() {
            answer_all(group, &why);
            return true;
        }
        let opened = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().map(|opened| (opened.database.clone(), opened.disk.clone()))
        };
        let Some((database, disk)) = opened else {
            answer_all(group, &closed());
            return true;
        };
        let (batches, answers): (Vec<Batch>, Vec<_>) = group.into_iter().map(|job| (job.batch, job.answer)).unzip();
        let mut written = Vec::with_capacity(batches.len());
        let number = self.number.get() + 1;
        let applied = apply(&database, number, batches, &mut written);
        drop(database);
        let (outcome, goes_on) = match applied {
            Ok(moved) => {
                self.left.committed(moved, &*disk);
                self.is_damaged.set(false);
                (Ok(()), true)
            }
            Err(failed) => {
                drop(disk);
                self.recover(failed, number)
            }
        };
        if outcome.is_ok() {
            self.number.set(number);
        }
        for (at, answer) in answers.into_iter().enumerate() {
            // Whoever stopped waiting reads the row before anything else.
            let _ = match &outcome {
                Ok(()) => answer.send(Ok(std::mem::replace(&mut written[at], Written::Refused))),
                Err(error) => answer.send(Err(error.clone())),
            };
        }
        goes_on
    }

    /// The answer of a disk that was full a moment ago, and has nothing more free.
    fn still_full(&self) -> Option<StoreError> {
        let mut full = self.full.borrow_mut();
        let is_over =
            |full: &Full| Instant::now() >= full.until || self.disks.free_bytes() >= full.free.saturating_add(GROWN_BYTES);
        if full.as_ref().is_some_and(is_over) {
            *full = None;
        }
        full.as_ref().map(|full| full.why.clone())
    }

    /// What a failed transaction is to those who wait (`Ok` when it was applied all the same), and whether the engine goes on.
    fn recover(&self, failed: Failed, number: u64) -> (Result<(), StoreError>, bool) {
        let why = failed.error.to_string();
        let failure = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().and_then(|opened| *opened.failure.lock().unwrap_or_else(PoisonError::into_inner))
        };
        match failure {
            Some(Failure::NoRoom) => {
                let began = Instant::now();
                self.left.ran_out();
                let (outcome, goes_on) = self.open_again(number, StoreError::Full(why));
                if let Err(why @ StoreError::Full(_)) = &outcome {
                    let rest = (began.elapsed() * RESTS).clamp(REST_MIN, REST_MAX);
                    let (why, free) = (why.clone(), self.disks.free_bytes());
                    *self.full.borrow_mut() = Some(Full { why, free, until: Instant::now() + rest });
                }
                tracing::warn!(applied = outcome.is_ok(), "the disk is full");
                (outcome, goes_on)
            }
            Some(Failure::Lost) => (Err(StoreError::Unknown(why)), false),
            // Not the disk: the transaction was dropped, so nothing of it was applied.
            None if !failed.is_stuck => (Err(StoreError::Unavailable(why)), true),
            // Not the disk, but a page that is damaged. Opening again repairs what can be repaired; it does not help twice.
            None if self.is_damaged.replace(true) => (Err(StoreError::Unknown(why)), false),
            None => {
                tracing::error!(why, "the database is damaged; it is opened again");
                self.open_again(number, StoreError::Unavailable(why))
            }
        }
    }

    /// Opens the database again, which tells whether commit `number` was applied; `otherwise` is the answer when it was not.
    fn open_again(&self, number: u64, otherwise: StoreError) -> (Result<(), StoreError>, bool) {
        // Nobody waits for the lock meanwhile: opening may look at every page, and reads are done on the runtime's threads.
        self.change_slot(None);
        let opened = open(&*self.disks, self.cache_bytes).map_err(redb::Error::from);
        match opened.and_then(|opened| Ok((last_commit(&opened.database)?, opened))) {
            Ok((last, opened)) => {
                self.change_slot(Some(opened));
                (if last == number { Ok(()) } else { Err(otherwise) }, true)
            }
            Err(again) => (Err(StoreError::Unknown(again.to_string())), false),
        }
    }

    fn change_slot(&self, opened: Option<Opened>) {
        let before = std::mem::replace(&mut *self.slot.write().unwrap_or_else(PoisonError::into_inner), opened);
        // Closing a database takes its time, too.
        drop(before);
    }
}

/// The first job and all that wait behind it, up to the size of one commit.
fn gather(first: Job, queue: &Receiver<Job>) -> Vec<Job> {
    let (mut bytes, mut ops) = (first.batch.bytes(), first.batch.ops.len());
    let mut group = vec![first];
    while bytes < COMMIT_BYTES_MAX && ops < COMMIT_OPS_MAX {
        let Ok(job) = queue.try_recv() else { break };
        bytes += job.batch.bytes();
        ops += job.batch.ops.len();
        group.push(job);
    }
    group
}

fn answer_all(group: Vec<Job>, error: &StoreError) {
    for job in group {
        let _ = job.answer.send(Err(error.clone()));
    }
}

/// The number of the last commit that the database holds; 0 before the first.
///
/// # Errors
/// [`redb::Error::Corrupted`] when it was never counted up to: a commit that failed would be taken for another.
pub(super) fn last_commit(database: &Database) -> Result<u64, redb::Error> {
    let system = match database.begin_read()?.open_table(rows(Table::System)) {
        Ok(system) => system,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let Some(row) = system.get(COMMIT_KEY)? else { return Ok(0) };
    let number = row.value().try_into().ok().map(u64::from_be_bytes).filter(|number| *number <= u64::MOST);
    number.ok_or_else(|| redb::Error::Corrupted("commit: its number is none that was counted up to".into()))
}

/// One transaction. Each batch sees what those before it did; one whose condition does not hold changes nothing.
fn apply(database: &Database, number: u64, batches: Vec<Batch>, written: &mut Vec<Written>) -> Result<Moved, Failed> {
    let stuck = |error| Failed { error, is_stuck: true };
    let mut transaction = database.begin_write().map_err(|error| stuck(error.into()))?;
    let mut moved = Moved::default();
    carry_out(&mut transaction, number, batches, written, &mut moved).map_err(|error| Failed { error, is_stuck: false })?;
    transaction.commit().map_err(|error| stuck(error.into()))?;
    Ok(moved)
}

fn carry_out(
    transaction: &mut WriteTransaction,
    number: u64,
    batches: Vec<Batch>,
    written: &mut Vec<Written>,
    moved: &mut Moved,
) -> Result<(), redb::Error> {
    transaction.set_durability(Durability::Immediate)?;
    let mut tables = Tables::new(transaction);
    for batch in batches {
        written.push(apply_one(&mut tables, batch, moved)?);
    }
    tables.open(Table::System)?.insert(COMMIT_KEY, number.to_be_bytes().as_slice())?;
    Ok(())
}

fn apply_one(tables: &mut Tables, batch: Batch, moved: &mut Moved) -> Result<Written, redb::Error> {
    for (table, key, expect) in &batch.checks {
        let row = tables.open(*table)?.get(key.as_slice())?;
        let holds = match (&row, expect) {
            (None, Expect::Absent) => true,
            (Some(row), Expect::Bytes(at, bytes)) => row.value().get(*at..*at + bytes.len()) == Some(bytes.as_slice()),
            (Some(_), Expect::Absent) | (None, Expect::Bytes(..)) => false,
        };
        if !holds {
            return Ok(Written::Refused);
        }
    }
    let mut inserted = Vec::new();
    for op in batch.ops {
        match op {
            Op::Put(table, key, value) => put(tables.open(table)?, &key, &value, moved)?,
            Op::Insert(table, key, value) => {
                let rows = tables.open(table)?;
                let new = rows.get(key.as_slice())?.is_none();
                if new {
                    put(rows, &key, &value, moved)?;
                }
                inserted.push(new);
            }
            Op::Delete(table, key) => {
                let before = tables.open(table)?.remove(key.as_slice())?;
                moved.removed += before.map_or(0, |before| (key.len() + before.value().len()) as u64);
            }
        }
    }
    Ok(Written::Applied(inserted))
}

fn put(rows: &mut Rows<'_>, key: &[u8], value: &[u8], moved: &mut Moved) -> Result<(), redb::Error> {
    moved.stored += (key.len() + value.len()) as u64;
    let before = rows.insert(key, value)?;
    moved.removed += before.map_or(0, |before| (key.len() + before.value().len()) as u64);
    Ok(())
}

type Rows<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// The tables of one transaction, each opened when it is first needed.
struct Tables<'txn> {
    transaction: &'txn WriteTransaction,
    open: Vec<Option<Rows<'txn>>>,
}

impl<'txn> Tables<'txn> {
    fn new(transaction: &'txn WriteTransaction) -> Tables<'txn> {
        Tables { transaction, open: TABLES.iter().map(|_| None).collect() }
    }

    fn open(&mut self, table: Table) -> Result<&mut Rows<'txn>, redb::Error> {
        let slot = &mut self.open[table as usize];
        if slot.is_none() {
            *slot = Some(self.transaction.open_table(rows(table))?);
        }
        Ok(slot.as_mut().expect("it was just opened"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    #[test]
    fn a_commit_number_that_nobody_counted_up_to_is_damage() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).expect("a database");
        assert_eq!(last_commit(&database).expect("there is none"), 0);
        apply(&database, 7, vec![], &mut vec![]).map_err(|failed| failed.error).expect("a commit");
        assert_eq!(last_commit(&database).expect("it is read"), 7);
        for damaged in [&[0xFF; 8][..], &[0; 7], &[0; 9], &[]] {
            let put = Batch::control().put(Table::Fact, b"x".to_vec(), vec![]);
            apply(&database, 8, vec![put], &mut vec![]).map_err(|failed| failed.error).expect("a commit");
            let transaction = database.begin_write().expect("a transaction");
            transaction.open_table(rows(Table::System)).expect("a table").insert(COMMIT_KEY, damaged).expect("it is put");
            transaction.commit().expect("a commit");
            assert!(matches!(last_commit(&database), Err(redb::Error::Corrupted(_))), "{damaged:?}");
        }
    }
}
