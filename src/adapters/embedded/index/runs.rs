//! Runs on the disk: opening the index, writing a full table as a run, letting runs go.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::entry::{ENTRY_BYTES, Entry, entries};
use super::filter::Filter;
use super::state::{Run, State, block_of};
use super::{Index, IndexOptions};
use crate::adapters::embedded::engine::{Batch, Engine, Op, Order, Reader, Table};
use crate::adapters::rows::frame::{VERSION, corrupt, read_small, small};
use crate::adapters::rows::key::{KeyBuilder, KeyReader};
use crate::model::time::Timestamp;
use crate::ports::StoreError;

/// Entries in a block, about: a block then fills a page of the database.
const BLOCK_ENTRIES: u64 = 128;
/// Bounds of what rows may claim, all beyond what any store holds: a damaged row must not begin endless work. Blocks are numbered
/// in four bytes.
const BITS_MAX: u8 = 31;
const TIERS_MAX: u8 = 64;
const ENTRIES_MAX: u64 = 1 << 40;
const NUMBER_MAX: u64 = 1 << 62;
const BATCHES_MAX: u32 = 1 << 31;
/// Rows deleted in one commit.
pub(super) const DELETES_PER_COMMIT: usize = 2_048;

impl Index {
    /// Reads the list of runs and the log; takes away blocks of runs that were never finished.
    pub async fn open(engine: Arc<dyn Engine>, options: IndexOptions) -> Result<Index, StoreError> {
        let mut state = State::default();
        let mut runs = Vec::new();
        {
            let reader = engine.read()?;
            reader.scan(Table::BatchNumber, &[], None, Order::Up, &mut |key, row| {
                let mut row = KeyReader(row);
                let (version, batch, number) = (row.u8()?, KeyReader(key).batch()?, row.u32()?);
                if version < VERSION || version == VERSION && !row.0.is_empty() {
                    return Err(corrupt("batch number", "its length or version is wrong"));
                }
                if number >= BATCHES_MAX {
                    return Err(corrupt("batch number", "it is larger than any that was given"));
                }
                state.batches.stored(batch, number);
                Ok(true)
            })?;
            reader.scan(Table::IndexRun, &[], None, Order::Up, &mut |key, row| {
                let id = KeyReader(key).u64()?;
                next_behind("index run", id)?;
                let (tier, bits, entries, newest) = read_small("index run", row)?;
                if tier >= TIERS_MAX || bits > BITS_MAX || entries > ENTRIES_MAX {
                    return Err(corrupt("index run", "its sizes are larger than any that was written"));
                }
                runs.push(Run { id, tier, bits, entries, newest: Timestamp(newest), filter: None });
                Ok(true)
            })?;
            reader.scan(Table::IndexLog, &[], None, Order::Up, &mut |key, row| {
                state.next_log = next_behind("index log", KeyReader(key).u64()?)?;
                let at = log_time(row)?;
                for entry in entries(logged(row)?) {
                    state.memtable.insert(entry, at);
                }
                Ok(true)
            })?;
        }
        state.next_run = runs.iter().map(|run| run.id + 1).max().unwrap_or(0);
        let known: Vec<u64> = runs.iter().map(|run| run.id).collect();
        state.set_runs(runs);
        for id in unfinished(&*engine.read()?, &known)? {
            state.next_run = state.next_run.max(next_behind("index block", id)?);
            drop_blocks(&*engine, id).await?;
        }
        Ok(Index { engine, options, state: Mutex::new(state), maintaining: tokio::sync::Mutex::new(()), room: Notify::new() })
    }

    /// Does one piece of the index's own work: writes a full table as a run, or merges runs. `false` when there is none.
    pub async fn maintain(&self) -> Result<bool, StoreError> {
        let _only_one = self.maintaining.lock().await;
        Ok(self.write_full_table().await? || self.merge_some().await? || self.make_filter()?)
    }

    /// Makes the filter of a run that has none since the start, the newest first. `false` when there is none to make.
    fn make_filter(&self) -> Result<bool, StoreError> {
        let bare = self.lock().runs.iter().find(|run| run.filter.is_none()).cloned();
        let Some(run) = bare else { return Ok(false) };
        let Some(mut filter) = self.room_for_filter(run.entries) else { return Ok(false) };
        self.engine.read()?.scan_prefix(Table::IndexBlock, &run.id.to_be_bytes(), &mut |_, block| {
            entries(body(block)?).for_each(|entry| filter.insert(entry.hash));
            Ok(true)
        })?;
        let mut state = self.lock();
        let filter = Arc::new(filter);
        state.runs.iter_mut().filter(|known| known.id == run.id).for_each(|known| known.filter = Some(filter.clone()));
        Ok(true)
    }

    /// An empty filter, if the memory for filters is not used up.
    pub(super) fn room_for_filter(&self, entries: u64) -> Option<Filter> {
        let used: u64 =
            self.lock().runs.iter().filter(|run| run.filter.is_some()).map(|run| Filter::bytes_for(run.entries)).sum();
        (used + Filter::bytes_for(entries) <= self.options.filter_bytes).then(|| Filter::for_entries(entries))
    }

    /// Writes the oldest full table as a run. `false` when none is full.
    pub(super) async fn write_full_table(&self) -> Result<bool, StoreError> {
        let oldest = self.lock().frozen.front().cloned();
        let Some(full) = oldest else { return Ok(false) };
        let (id, tier) = (self.next_run(), 0);
        let entries = full.len() as u64;
        let mut filter = self.room_for_filter(entries);
        let mut run = Run { id, tier, bits: bits_for(entries), entries, newest: full.newest, filter: None };
        let mut batch = Batch::data();
        put_blocks(&mut batch, &run, full.sorted().inspect(|entry| note_in(&mut filter, entry)));
        run.filter = filter.map(Arc::new);
        put_run(&mut batch, &run);
        self.engine.read()?.scan(
            Table::IndexLog,
            &[],
            Some(&KeyBuilder::new().u64(full.log_to).done()),
            Order::Up,
            &mut |key, _| {
                batch.ops.push(Op::Delete(Table::IndexLog, key.to_vec()));
                Ok(true)
            },
        )?;
        self.engine.write(batch).await?;
        let mut state = self.lock();
        state.frozen.pop_front();
        let mut runs = state.runs.clone();
        runs.push(run);
        state.set_runs(runs);
        self.room.notify_waiters();
        Ok(true)
    }

    /// Lets go of runs whose newest entry was sent before `before`, and of the entries in memory when all of them were.
    pub async fn drop_before(&self, before: Timestamp) -> Result<(), StoreError> {
        {
            let mut state = self.lock();
            if state.memtable.len() > 0 && state.memtable.newest < before {
                state.freeze();
            }
        }
        while !self.lock().frozen.is_empty() {
            self.maintain().await?;
        }
        let _only_one = self.maintaining.lock().await;
        let (old, kept): (Vec<Run>, Vec<Run>) = self.lock().runs.iter().cloned().partition(|run| run.newest < before);
        let mut batch = Batch::control();
        for run in &old {
            batch = batch.delete(Table::IndexRun, KeyBuilder::new().u64(run.id).done());
        }
        // A table may become a run before its last log row is stored: that row then waits for the next table, and a start
        // would read its entries again.
        self.engine.read()?.scan(Table::IndexLog, &[], None, Order::Up, &mut |key, row| {
            if log_time(row)? < before {
                batch.ops.push(Op::Delete(Table::IndexLog, key.to_vec()));
            }
            Ok(true)
        })?;
        if batch.ops.is_empty() {
            return Ok(());
        }
        self.engine.write(batch).await?;
        {
            let mut state = self.lock();
            state.set_runs(kept);
            state.orphans.extend(old.iter().map(|run| run.id));
        }
        self.drop_orphans().await
    }

    /// Takes away the blocks of runs that are in no list; what fails is tried again with the next piece of work.
    pub(super) async fn drop_orphans(&self) -> Result<(), StoreError> {
        loop {
            let last = self.lock().orphans.last().copied();
            let Some(run) = last else { return Ok(()) };
            drop_blocks(&*self.engine, run).await?;
            self.lock().orphans.pop();
        }
    }

    pub(super) fn next_run(&self) -> u64 {
        let mut state = self.lock();
        state.next_run += 1;
        state.next_run - 1
    }
}

/// The number behind that of a run or a log row.
fn next_behind(what: &str, number: u64) -> Result<u64, StoreError> {
    if number < NUMBER_MAX { Ok(number + 1) } else { Err(corrupt(what, "its number is larger than any that was given")) }
}

/// Version, then when it was sent.
const LOG_HEAD: usize = 1 + 8;

/// The log row of some entries.
pub(super) fn log_row(entries: &[Entry], at: Timestamp) -> Vec<u8> {
    let mut row = Vec::with_capacity(LOG_HEAD + entries.len() * ENTRY_BYTES);
    row.extend_from_slice(&KeyBuilder::new().u8(VERSION).time(at).done());
    entries.iter().for_each(|entry| entry.write(&mut row));
    row
}

/// When the entries of a log row were sent.
fn log_time(row: &[u8]) -> Result<Timestamp, StoreError> {
    KeyReader(row.get(1..).unwrap_or_default()).time()
}

/// The entries of a log row. One that was cut short has lost a message id, and its receipt would never find anybody: it is damage,
/// not a shorter row. What a later version adds stands behind them.
fn logged(row: &[u8]) -> Result<&[u8], StoreError> {
    let damaged = || corrupt("index log", "its length or version is wrong");
    let (head, entries) = row.split_at_checked(LOG_HEAD).ok_or_else(damaged)?;
    let is_whole = entries.len() % ENTRY_BYTES == 0;
    if head[0] > VERSION || head[0] == VERSION && is_whole { Ok(entries) } else { Err(damaged()) }
}

/// The key of a block.
pub(super) fn block_key(run: u64, block: u32) -> Vec<u8> {
    KeyBuilder::new().u64(run).u32(block).done()
}

/// The entries of a block, behind its version.
pub(super) fn body(block: &[u8]) -> Result<&[u8], StoreError> {
    match block.split_first() {
        None => Ok(&[]),
        Some((&version, body)) if version >= VERSION && body.len() % ENTRY_BYTES == 0 => Ok(body),
        Some(_) => Err(corrupt("index block", "its length or version is wrong")),
    }
}

/// How many top bits number the blocks of a run of this size.
pub(super) fn bits_for(entries: u64) -> u8 {
    (entries / BLOCK_ENTRIES).max(1).ilog2() as u8
}

/// Adds the blocks of sorted entries; empty ones are left out.
pub(super) fn put_blocks(batch: &mut Batch, run: &Run, sorted: impl Iterator<Item = Entry>) {
    let mut block: Option<(u32, Vec<u8>)> = None;
    for entry in sorted {
        let number = block_of(entry.hash, run.bits);
        match &mut block {
            Some((open, bytes)) if *open == number => entry.write(bytes),
            _ => {
                if let Some((number, bytes)) = block.take() {
                    batch.ops.push(Op::Put(Table::IndexBlock, block_key(run.id, number), bytes));
                }
                let mut bytes = Vec::with_capacity(1 + ENTRY_BYTES * BLOCK_ENTRIES as usize * 3 / 2);
                bytes.push(VERSION);
                entry.write(&mut bytes);
                block = Some((number, bytes));
            }
        }
    }
    if let Some((number, bytes)) = block {
        batch.ops.push(Op::Put(Table::IndexBlock, block_key(run.id, number), bytes));
    }
}

/// Takes an entry into the filter of its run, if it has one.
pub(super) fn note_in(filter: &mut Option<Filter>, entry: &Entry) {
    if let Some(filter) = filter {
        filter.insert(entry.hash);
    }
}

/// Adds the row that makes a run's blocks count.
pub(super) fn put_run(batch: &mut Batch, run: &Run) {
    let row = small(&(run.tier, run.bits, run.entries, run.newest.0));
    batch.ops.push(Op::Put(Table::IndexRun, KeyBuilder::new().u64(run.id).done(), row));
}

/// Deletes the blocks of a run that is in no list any more.
async fn drop_blocks(engine: &dyn Engine, run: u64) -> Result<(), StoreError> {
    loop {
        let mut batch = Batch::control();
        engine.read()?.scan_prefix(Table::IndexBlock, &run.to_be_bytes(), &mut |key, _| {
            batch.ops.push(Op::Delete(Table::IndexBlock, key.to_vec()));
            Ok(batch.ops.len() < DELETES_PER_COMMIT)
        })?;
        let is_last = batch.ops.len() < DELETES_PER_COMMIT;
        if !batch.ops.is_empty() {
            engine.write(batch).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Runs that have blocks and are not in the list: one look for each run, whatever its size.
fn unfinished(reader: &dyn Reader, known: &[u64]) -> Result<Vec<u64>, StoreError> {
    let (mut found, mut from) = (Vec::new(), Some(0u64));
    while let Some(at) = from {
        from = None;
        reader.scan(Table::IndexBlock, &at.to_be_bytes(), None, Order::Up, &mut |key, _| {
            let run = KeyReader(key).u64()?;
            from = run.checked_add(1);
            if !known.contains(&run) {
                found.push(run);
            }
            Ok(false)
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::embedded::engine::memory::MemoryEngine;
    use crate::model::id::BatchId;

    async fn opens(table: Table, key: Vec<u8>, row: Vec<u8>) -> Result<usize, StoreError> {
        let engine = Arc::new(MemoryEngine::default());
        engine.write(Batch::control().put(table, key, row)).await.expect("it is put");
        let index = Index::open(engine, IndexOptions::default()).await?;
        let state = index.lock();
        Ok(state.memtable.len() + usize::from(state.batches.part_of(&entry()).is_some()))
    }

    fn entry() -> Entry {
        Entry { hash: 5, number: 6, batch: 7, seq: 8, lane: 9, part: 0 }
    }

    #[tokio::test]
    async fn a_log_row_that_was_cut_or_is_of_no_known_version_is_damage() {
        let log = |row: Vec<u8>| opens(Table::IndexLog, KeyBuilder::new().u64(1).done(), row);
        let whole = log_row(&[entry(), entry()], Timestamp(1));
        assert_eq!(log(whole.clone()).await, Ok(2));
        for cut in [0, LOG_HEAD - 1, LOG_HEAD + 1, whole.len() - 1] {
            let read = log(whole[..cut].to_vec()).await;
            assert!(matches!(read, Err(StoreError::Corrupt(_))), "cut at {cut}: {read:?}");
        }
        let of_version = |version: u8| [&[version], &whole[1..], &[1, 2]].concat();
        assert!(matches!(log([&[0], &whole[1..]].concat()).await, Err(StoreError::Corrupt(_))));
        assert!(matches!(log(of_version(VERSION)).await, Err(StoreError::Corrupt(_))));
        assert_eq!(log(of_version(VERSION + 1)).await, Ok(2), "what a later version adds is passed over");
    }

    #[tokio::test]
    async fn the_number_of_a_batch_is_read_whole_and_of_a_known_version() {
        let number = |row: &[u8]| opens(Table::BatchNumber, KeyBuilder::new().batch(BatchId(1)).done(), row.to_vec());
        assert_eq!(number(&[VERSION, 0, 0, 0, 7]).await, Ok(1));
        assert_eq!(number(&[VERSION + 1, 0, 0, 0, 7, 1]).await, Ok(1));
        for damaged in [&[0, 0, 0, 0, 7][..], &[VERSION, 0, 0, 7], &[VERSION, 0, 0, 0, 7, 0]] {
            assert!(matches!(number(damaged).await, Err(StoreError::Corrupt(_))), "{damaged:?}");
        }
    }
}
