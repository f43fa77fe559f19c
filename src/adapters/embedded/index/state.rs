//! What the receipt index keeps in memory: the newest entries, the list of runs, and the short numbers of batches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::entry::{Entry, hash_id, hash_number};
use super::filter::Filter;
use crate::model::id::{BatchId, LaneKey, RecipientKey};
use crate::model::time::Timestamp;
use crate::ports::receipts::{IndexEntry, PartKey};

/// Entries that are in no run yet, found by hash, in the order they came in.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    entries: BTreeMap<(u64, u32), Entry>,
    next: u32,
    /// When the newest of them was declared.
    pub(super) newest: Timestamp,
    /// Log rows below this number hold nothing that is not in here or in a run. Set when it is frozen.
    pub(super) log_to: u64,
}

impl Memtable {
    pub(super) fn insert(&mut self, entry: Entry, at: Timestamp) {
        self.entries.insert((entry.hash, self.next), entry);
        self.next += 1;
        self.newest = self.newest.max(at);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// By hash, entries of one hash in the order they came in.
    pub(super) fn sorted(&self) -> impl Iterator<Item = Entry> {
        self.entries.values().copied()
    }

    /// Entries with this hash, the newest first.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = Entry> {
        self.entries.range((hash, 0)..=(hash, u32::MAX)).rev().map(|(_, entry)| *entry)
    }
}

/// A sorted run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Its name; larger is later within a tier.
    pub(super) id: u64,
    /// How often its entries were merged; runs of a higher tier are older than all of a lower one.
    pub(super) tier: u8,
    /// Its blocks are numbered by this many top bits of the hash.
    pub(super) bits: u8,
    /// Entries in it.
    pub(super) entries: u64,
    /// When the newest of them was declared.
    pub(super) newest: Timestamp,
    /// What tells most hashes apart without reading; `None` while it was not made or there is no memory for it.
    pub(super) filter: Option<Arc<Filter>>,
}

impl Run {
    /// `false`: certainly not in it.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_hold(hash))
    }

    /// The block that holds a hash.
    pub(super) fn block_of(&self, hash: u64) -> u32 {
        block_of(hash, self.bits)
    }
}

/// The number of the block that holds a hash, of blocks by `bits` top bits.
pub(super) fn block_of(hash: u64, bits: u8) -> u32 {
    if bits == 0 { 0 } else { (hash >> (64 - u32::from(bits))) as u32 }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) memtable: Memtable,
    /// Full memtables that wait to be written, the oldest first.
    pub(super) frozen: VecDeque<Arc<Memtable>>,
    /// Runs, the newest first.
    pub(super) runs: Vec<Run>,
    /// Grows whenever `runs` changes: a reader that saw another number reads again.
    pub(super) generation: u64,
    /// Runs that are in no list, and whose blocks may still be there.
    pub(super) orphans: Vec<u64>,
    pub(super) next_log: u64,
    pub(super) next_run: u64,
    pub(super) batches: Batches,
}

impl State {
    /// Puts entries into the memtable and freezes it when it is full. Gives back the log row's number.
    pub(super) fn remember(&mut self, entries: &[Entry], at: Timestamp, memtable_entries: usize) -> u64 {
        let log = self.next_log;
        self.next_log += 1;
        for entry in entries {
            self.memtable.insert(*entry, at);
        }
        if self.memtable.len() >= memtable_entries {
            self.freeze();
        }
        log
    }

    pub(super) fn freeze(&mut self) {
        let mut full = std::mem::take(&mut self.memtable);
        full.log_to = self.next_log;
        self.frozen.push_back(Arc::new(full));
    }

    pub(super) fn set_runs(&mut self, mut runs: Vec<Run>) {
        runs.sort_by_key(|run| (run.tier, std::cmp::Reverse(run.id)));
        self.runs = runs;
        self.generation += 1;
    }

    /// Entries in memory with this hash, the newest first.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = Entry> {
        let frozen = self.frozen.iter().rev().map(|memtable| &**memtable);
        std::iter::once(&self.memtable).chain(frozen).flat_map(move |memtable| memtable.with_hash(hash))
    }
}

/// Short numbers for batches: an entry has no room for sixteen bytes.
#[derive(Debug, Default)]
pub(super) struct Batches {
    numbers: BTreeMap<BatchId, (u32, bool)>,
    names: BTreeMap<u32, BatchId>,
    next: u32,
}

impl Batches {
    /// Takes in a number that is stored.
    pub(super) fn stored(&mut self, batch: BatchId, number: u32) {
        self.numbers.insert(batch, (number, true));
        self.names.insert(number, batch);
        self.next = self.next.max(number + 1);
    }

    /// The batch's number, a new one if it has none, and whether it is stored already.
    pub(super) fn number_of(&mut self, batch: BatchId) -> (u32, bool) {
        if let Some(known) = self.numbers.get(&batch) {
            return *known;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(batch, (number, false));
        self.names.insert(number, batch);
        (number, false)
    }

    /// The part an entry stands for; `None` when its batch was let go.
    pub(super) fn part_of(&self, entry: &Entry) -> Option<PartKey> {
        let batch = *self.names.get(&entry.batch)?;
        let lane = LaneKey { batch, lane: entry.lane };
        Some(PartKey { recipient: RecipientKey { lane, seq: entry.seq }, part: entry.part })
    }

    /// Lets a batch go: its entries are found no more.
    pub(super) fn forget(&mut self, batch: BatchId) {
        if let Some((number, _)) = self.numbers.remove(&batch) {
            self.names.remove(&number);
        }
    }

    /// The entry of a message id.
    pub(super) fn entry(number: u32, of: &IndexEntry) -> Entry {
        Entry {
            hash: hash_id(&of.account, &of.message_id),
            number: hash_number(of.number),
            batch: number,
            seq: of.part.recipient.seq,
            lane: of.part.recipient.lane.lane,
            part: of.part.part,
        }
    }
}
