//! The writer thread: takes all batches that wait, applies them in one transaction, syncs it, answers all.

use std::cell::Cell;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::disk::{Disks, Failure};
use super::redb::{Slot, open, rows};
use super::{Batch, Expect, Op, TABLES, Table, Written};
use crate::model::growing::Grows;
use crate::ports::StoreError;
use crate::runtime::pulse;

/// A commit holds about this many bytes and changes at most, so that nobody waits long behind others.
const COMMIT_BYTES_MAX: usize = 4 << 20;
const COMMIT_OPS_MAX: usize = 8_192;

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
    cache_bytes: usize,
    failed: CancellationToken,
    number: Cell<u64>,
}

impl Writer {
    /// `number` is that of the last commit.
    pub(super) fn new(
        slot: Arc<Slot>,
        disks: Arc<dyn Disks>,
        cache_bytes: usize,
        failed: CancellationToken,
        number: u64,
    ) -> Writer {
        Writer { slot, disks, cache_bytes, failed, number: Cell::new(number) }
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
        let database = {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref().map(|opened| opened.database.clone())
        };
        let Some(database) = database else {
            answer_all(group, &StoreError::Unavailable("the store is closed".into()));
            return true;
        };
        let (batches, answers): (Vec<Batch>, Vec<_>) = group.into_iter().map(|job| (job.batch, job.answer)).unzip();
        let mut written = Vec::with_capacity(batches.len());
        let number = self.number.get() + 1;
        let applied = apply(&database, number, batches, &mut written);
        drop(database);
        let (outcome, goes_on) = match applied {
            Ok(()) => (Ok(()), true),
            Err(error) => self.recover(&error, number),
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

    /// What a failed commit is to those who wait (`Ok` when it was applied all the same), and whether the engine goes on.
    fn recover(&self, error: &redb::Error, number: u64) -> (Result<(), StoreError>, bool) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        let failure = slot.as_ref().and_then(|opened| *opened.failure.lock().unwrap_or_else(PoisonError::into_inner));
        match failure {
            Some(Failure::NoRoom) => {
                drop(slot.take());
                let opened = open(&*self.disks, self.cache_bytes).map_err(redb::Error::from);
                match opened.and_then(|opened| Ok((last_commit(&opened.database)?, opened))) {
                    Ok((last, opened)) => {
                        *slot = Some(opened);
                        tracing::warn!(applied = last == number, "the disk is full");
                        if last == number { (Ok(()), true) } else { (Err(StoreError::Full(error.to_string())), true) }
                    }
                    Err(again) => (Err(StoreError::Unknown(again.to_string())), false),
                }
            }
            Some(Failure::Lost) => (Err(StoreError::Unknown(error.to_string())), false),
            // Not the disk: the transaction was dropped, so nothing of it was applied.
            None => (Err(StoreError::Unavailable(error.to_string())), true),
        }
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
fn apply(database: &Database, number: u64, batches: Vec<Batch>, written: &mut Vec<Written>) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut tables = Tables::new(&transaction);
        for batch in batches {
            written.push(apply_one(&mut tables, batch)?);
        }
        tables.open(Table::System)?.insert(COMMIT_KEY, number.to_be_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn apply_one(tables: &mut Tables, batch: Batch) -> Result<Written, redb::Error> {
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
            Op::Put(table, key, value) => {
                tables.open(table)?.insert(key.as_slice(), value.as_slice())?;
            }
            Op::Insert(table, key, value) => {
                let rows = tables.open(table)?;
                let new = rows.get(key.as_slice())?.is_none();
                if new {
                    rows.insert(key.as_slice(), value.as_slice())?;
                }
                inserted.push(new);
            }
            Op::Delete(table, key) => {
                tables.open(table)?.remove(key.as_slice())?;
            }
        }
    }
    Ok(Written::Applied(inserted))
}

/// The tables of one transaction, each opened when it is first needed.
struct Tables<'txn> {
    transaction: &'txn WriteTransaction,
    open: Vec<Option<redb::Table<'txn, &'static [u8], &'static [u8]>>>,
}

impl<'txn> Tables<'txn> {
    fn new(transaction: &'txn WriteTransaction) -> Tables<'txn> {
        Tables { transaction, open: TABLES.iter().map(|_| None).collect() }
    }

    fn open(&mut self, table: Table) -> Result<&mut redb::Table<'txn, &'static [u8], &'static [u8]>, redb::Error> {
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
        apply(&database, 7, vec![], &mut vec![]).expect("a commit");
        assert_eq!(last_commit(&database).expect("it is read"), 7);
        for damaged in [&[0xFF; 8][..], &[0; 7], &[0; 9], &[]] {
            let put = Batch::control().put(Table::Fact, b"x".to_vec(), vec![]);
            apply(&database, 8, vec![put], &mut vec![]).expect("a commit");
            let transaction = database.begin_write().expect("a transaction");
            transaction.open_table(rows(Table::System)).expect("a table").insert(COMMIT_KEY, damaged).expect("it is put");
            transaction.commit().expect("a commit");
            assert!(matches!(last_commit(&database), Err(redb::Error::Corrupted(_))), "{damaged:?}");
        }
    }
}
