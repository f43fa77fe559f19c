//! The receipt index: from an account's message id to a part of a recipient, as sorted runs.
//!
//! New entries go into a table in memory, where they are found at once, and into a log row of the same commit as the
//! answers they belong to. A full table becomes a sorted run, which takes the place of its log rows; eight runs of a size
//! become one. Looking up an id asks a filter in memory for each run and reads one small block of each that may hold it, so
//! the cost of an entry and of a lookup hardly grows with the number of messages, and writing is nearly all sequential,
//! which a tree of ids could not offer.

mod asked;
pub mod entry;
mod filter;
mod merge;
mod runs;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use self::asked::{Asked, Question};
use self::entry::{hash_id, hash_number, with_hash};
use self::state::{Batches, State};
use super::engine::{Batch, Engine, Table};
use crate::adapters::rows::frame::VERSION;
use crate::adapters::rows::key::KeyBuilder;
use crate::model::id::{BatchId, Msisdn};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{IndexEntry, PartKey};

/// Full tables that may wait to be written: bounds the memory when the disk cannot follow.
const FROZEN_MAX: usize = 4;
/// How long a write waits for one of them to be written.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Sizes of the index.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// Entries in memory before they become a run.
    pub memtable_entries: usize,
    /// Runs of a tier before they are merged.
    pub merge_runs: usize,
    /// Bytes of filters in memory at most; the oldest runs go without.
    pub filter_bytes: u64,
}

impl Default for IndexOptions {
    fn default() -> IndexOptions {
        IndexOptions { memtable_entries: 1 << 17, merge_runs: 8, filter_bytes: 32 << 20 }
    }
}

/// See the folder's first sentence.
pub struct Index {
    engine: Arc<dyn Engine>,
    options: IndexOptions,
    state: Mutex<State>,
    /// Held by whoever changes the runs.
    maintaining: tokio::sync::Mutex<()>,
    /// Told when a full table was written.
    room: Notify,
}

/// Entries that were remembered and are on their way to the disk.
pub struct Noted {
    batches: Vec<BatchId>,
    /// Whether there is something for [`Index::maintain`] to do.
    pub is_full: bool,
}

impl Index {
    /// Remembers entries, to be found at once, and adds to `batch` what makes them durable. `at` is when they were sent.
    pub async fn note(&self, entries: &[IndexEntry], at: Timestamp, batch: &mut Batch) -> Result<Noted, StoreError> {
        let mut noted = Noted { batches: vec![], is_full: false };
        if entries.is_empty() {
            return Ok(noted);
        }
        self.wait_for_room().await?;
        let mut state = self.lock();
        let mut short = Vec::with_capacity(entries.len());
        let mut last: Option<(BatchId, u32)> = None;
        for entry in entries {
            let id = entry.part.recipient.lane.batch;
            let number = match last {
                Some((known, number)) if known == id => number,
                _ => {
                    let (number, is_stored) = state.batches.number_of(id);
                    if !is_stored && !noted.batches.contains(&id) {
                        let row = KeyBuilder::new().u8(VERSION).u32(number).done();
                        *batch = std::mem::take(batch).put(Table::BatchNumber, KeyBuilder::new().batch(id).done(), row);
                        noted.batches.push(id);
                    }
                    last = Some((id, number));
                    number
                }
            };
            short.push(Batches::entry(number, entry));
        }
        let log = state.remember(&short, at, self.options.memtable_entries);
        noted.is_full = !state.frozen.is_empty();
        drop(state);
        *batch = std::mem::take(batch).put(Table::IndexLog, KeyBuilder::new().u64(log).done(), runs::log_row(&short, at));
        Ok(noted)
    }

    /// Waits, not for ever, while too many full tables have not been written.
    async fn wait_for_room(&self) -> Result<(), StoreError> {
        let mut waiting = std::pin::pin!(self.room.notified());
        while self.lock().frozen.len() >= FROZEN_MAX {
            if tokio::time::timeout(BEHIND_MAX, waiting.as_mut()).await.is_err() {
                return Err(StoreError::Unavailable("the receipt index is behind".into()));
            }
            waiting.set(self.room.notified());
        }
        Ok(())
    }

    /// Takes in that what [`note`](Index::note) added is durable.
    pub fn stored(&self, noted: Noted) {
        let mut state = self.lock();
        for batch in noted.batches {
            let (number, _) = state.batches.number_of(batch);
            state.batches.stored(batch, number);
        }
    }

    /// See [`crate::ports::receipts::ReceiptIndex::find`].
    pub fn find(&self, account: &str, ids: &[(String, Option<Msisdn>)]) -> Result<Vec<Vec<PartKey>>, StoreError> {
        let questions: Vec<Question> = ids.iter().map(|(id, number)| (hash_id(account, id), number.map(hash_number))).collect();
        loop {
            let mut asked = Asked::new(&questions);
            let (runs, generation) = {
                let state = self.lock();
                for (hash, answers) in asked.hashes() {
                    answers.take(&state.batches, state.with_hash(hash));
                }
                (state.runs.clone(), state.generation)
            };
            let reader = self.engine.read()?;
            for run in &runs {
                let mut block: (Option<u32>, Vec<u8>) = (None, vec![]);
                // In the order of the blocks, so that ids in one block share its reading.
                for (hash, answers) in asked.hashes().filter(|(hash, answers)| !answers.are_full() && run.may_hold(*hash)) {
                    let number = run.block_of(hash);
                    if block.0 != Some(number) {
                        let bytes = reader.get(Table::IndexBlock, &runs::block_key(run.id, number))?.unwrap_or_default();
                        block = (Some(number), bytes);
                    }
                    answers.take(&self.lock().batches, with_hash(runs::body(&block.1)?, hash));
                }
            }
            // A merge that ended meanwhile may have taken blocks away under this reading.
            if self.lock().generation == generation {
                return Ok(questions.iter().map(|question| asked.answer(question)).collect());
            }
        }
    }

    /// Lets a batch's entries be found no more.
    pub fn forget(&self, batch: BatchId) {
        self.lock().batches.forget(batch);
    }

    /// Runs, and the entries in all of them; for tests and for people who watch.
    pub fn runs(&self) -> (usize, u64) {
        let state = self.lock();
        (state.runs.len(), state.runs.iter().map(|run| run.entries).sum())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
