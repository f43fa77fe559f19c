//! Merging runs: eight of one tier become one of the next, a slice of the hashes at a time, so that memory stays bounded.

use std::sync::Arc;

use super::Index;
use super::entry::{Entry, entries};
use super::runs::{bits_for, block_key, body, note_in, put_blocks, put_run};
use super::state::Run;
use crate::adapters::embedded::engine::{Batch, Op, Order, Table};
use crate::adapters::rows::key::KeyBuilder;
use crate::ports::StoreError;

/// Entries merged in one commit, about: 1.4 MB of blocks.
const SLICE_ENTRIES: u64 = 1 << 16;

impl Index {
    /// Merges the oldest runs of the lowest tier that has enough of them. `false` when none has.
    pub(super) async fn merge_some(&self) -> Result<bool, StoreError> {
        self.drop_orphans().await?;
        let Some(sources) = self.mergeable() else { return Ok(false) };
        let id = self.next_run();
        let merged = self.merge(&sources, id).await;
        let orphans = match &merged {
            Ok(()) => sources.iter().map(|run| run.id).collect(),
            // The list may have the run by now, and then its blocks count: the next start can tell.
            Err(StoreError::Unknown(_)) => vec![],
            // The next attempt has a name of its own.
            Err(_) => vec![id],
        };
        self.lock().orphans.extend(orphans);
        let dropped = self.drop_orphans().await;
        merged.and(dropped).map(|()| true)
    }

    /// Makes the run `id` of these and puts it in their place in the list.
    async fn merge(&self, sources: &[Run], id: u64) -> Result<(), StoreError> {
        let entries: u64 = sources.iter().map(|run| run.entries).sum();
        let mut filter = self.room_for_filter(entries);
        let mut merged = Run {
            id,
            tier: sources[0].tier + 1,
            bits: bits_for(entries),
            entries,
            newest: sources.iter().map(|run| run.newest).max().unwrap_or_default(),
            filter: None,
        };
        let least_bits = sources.iter().map(|run| run.bits).min().unwrap_or(0).min(merged.bits);
        let slice_bits = ((entries / SLICE_ENTRIES).max(1).ilog2() as u8).min(least_bits);
        for slice in 0..1u64 << slice_bits {
            let mut sorted = Vec::with_capacity(2 * SLICE_ENTRIES as usize);
            for source in sources {
                self.read_slice(source, slice, slice_bits, &mut sorted)?;
            }
            // Stable: of one hash, the entries of older runs stay before those of newer ones.
            sorted.sort_by_key(|entry: &Entry| entry.hash);
            let mut batch = Batch::data();
            put_blocks(&mut batch, &merged, sorted.into_iter().inspect(|entry| note_in(&mut filter, entry)));
            self.engine.write(batch).await?;
            // A long merge does not keep full tables waiting.
            self.write_full_table().await?;
        }
        merged.filter = filter.map(Arc::new);
        let mut batch = Batch::data();
        put_run(&mut batch, &merged);
        for source in sources {
            batch.ops.push(Op::Delete(Table::IndexRun, KeyBuilder::new().u64(source.id).done()));
        }
        self.engine.write(batch).await?;
        let mut state = self.lock();
        let mut runs = state.runs.clone();
        runs.retain(|run| sources.iter().all(|source| source.id != run.id));
        runs.push(merged);
        state.set_runs(runs);
        Ok(())
    }

    /// The oldest runs of a tier that has enough, the oldest first.
    fn mergeable(&self) -> Option<Vec<Run>> {
        let state = self.lock();
        let tier_of = |tier| state.runs.iter().filter(move |run| run.tier == tier);
        let tier = state.runs.iter().map(|run| run.tier).find(|tier| tier_of(*tier).count() >= self.options.merge_runs)?;
        let newest_first: Vec<&Run> = tier_of(tier).collect();
        Some(newest_first.into_iter().rev().take(self.options.merge_runs).cloned().collect())
    }

    fn read_slice(&self, run: &Run, slice: u64, slice_bits: u8, into: &mut Vec<Entry>) -> Result<(), StoreError> {
        let blocks_per_slice = run.bits - slice_bits;
        let from = block_key(run.id, (slice << blocks_per_slice) as u32);
        let behind = (slice + 1) << blocks_per_slice;
        let to = if behind == 1 << run.bits { (run.id + 1).to_be_bytes().to_vec() } else { block_key(run.id, behind as u32) };
        self.engine.read()?.scan(Table::IndexBlock, &from, Some(&to), Order::Up, &mut |_, block| {
            into.extend(entries(body(block)?));
            Ok(true)
        })
    }
}
