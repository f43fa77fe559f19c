//! The recipients and messages behind the places of a lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::code::Code;
use crate::model::id::LaneKey;
use crate::model::pack::{Manifest, Message, PackKey, SmsDeliveryPack};
use crate::model::window::{RetryEntry, RetryPack};
use crate::ports::packs::Packs;
use crate::ports::windows::Windows;
use crate::ports::{StoreError, Stores};

/// Reads one lane. Keeps the pack it read last, and the retry packs it works on.
pub struct Loader {
    lane: LaneKey,
    manifest: Arc<Manifest>,
    packs: Arc<dyn Packs>,
    windows: Arc<dyn Windows>,
    pack: Option<(usize, Option<Arc<SmsDeliveryPack>>)>,
    retries: BTreeMap<u64, Arc<RetryPack>>,
    erasures: Option<String>,
}

impl Loader {
    /// A loader of a sealed lane.
    pub fn new(lane: LaneKey, manifest: Arc<Manifest>, stores: &Stores) -> Loader {
        Loader {
            lane,
            manifest,
            packs: stores.packs.clone(),
            windows: stores.windows.clone(),
            pack: None,
            retries: BTreeMap::new(),
            erasures: None,
        }
    }

    /// Forgets what it read before numbers were erased. `erasures` is the mark that the last erasure left.
    pub fn believe(&mut self, erasures: Option<String>) {
        if self.erasures != erasures {
            self.pack = None;
            self.erasures = erasures;
        }
    }

    /// The recipients at the places `from..to` of a leg, struck-out ones left out. A ledger that goes beyond what there is was
    /// damaged: nobody could say who is meant.
    pub async fn entries(&mut self, leg: u64, from: u32, to: u32) -> Result<Vec<RetryEntry>, StoreError> {
        if leg == 0 {
            within(to, self.manifest.len() as usize)?;
            let first = self.manifest.strikes.partition_point(|struck| *struck < from);
            let mut strikes = self.manifest.strikes[first..].iter().copied().peekable();
            let mut entries = Vec::with_capacity(to.saturating_sub(from) as usize);
            for seq in from..to {
                if strikes.peek() == Some(&seq) {
                    strikes.next();
                } else {
                    entries.push(RetryEntry { seq, tries: 0, parts: 0, round: 0 });
                }
            }
            return Ok(entries);
        }
        let pack = self.retry(leg).await?;
        within(to, pack.entries.len())?;
        Ok(pack.entries.iter().skip(from as usize).take(to.saturating_sub(from) as usize).copied().collect())
    }

    /// The packs that hold some recipients, each once.
    pub fn packs_of(&self, entries: &[RetryEntry]) -> BTreeMap<u32, PackKey> {
        let places = entries.iter().filter_map(|entry| self.manifest.pack_of(entry.seq));
        let indexes: BTreeSet<usize> = places.collect();
        let packs = indexes.into_iter().map(|index| &self.manifest.packs[index]);
        packs.map(|at| (at.first_seq, PackKey { lane: self.lane, range: at.range, attempt: at.attempt, n: at.n })).collect()
    }

    /// A retry pack of the lane.
    pub async fn retry(&mut self, leg: u64) -> Result<Arc<RetryPack>, StoreError> {
        if let Some(pack) = self.retries.get(&leg) {
            return Ok(pack.clone());
        }
        let pack = self.windows.retry(self.lane, leg).await?;
        let pack = Arc::new(pack.ok_or_else(|| StoreError::Corrupt(format!("retry pack {leg:x} of a lane is missing")))?);
        if self.retries.len() >= 16 {
            self.retries.pop_first();
        }
        self.retries.insert(leg, pack.clone());
        Ok(pack)
    }

    /// The message at a place; the code when its pack is missing or damaged: its people fail with it, the lane goes on.
    pub async fn message(&mut self, seq: u32) -> Result<Result<Message, Code>, StoreError> {
        let Some(index) = self.manifest.pack_of(seq) else { return Ok(Err(Code::StoreCorrupt)) };
        if self.pack.as_ref().is_none_or(|(held, _)| *held != index) {
            let at = &self.manifest.packs[index];
            let key = PackKey { lane: self.lane, range: at.range, attempt: at.attempt, n: at.n };
            let pack = match self.packs.get(key).await {
                Ok(pack) => pack.filter(|pack| pack.messages.len() == at.count as usize),
                Err(StoreError::Corrupt(what)) => {
                    tracing::error!(lane = %self.lane, range = at.range, n = at.n, what, "a pack cannot be read: its recipients fail");
                    None
                }
                Err(error) => return Err(error),
            };
            self.pack = Some((index, pack));
        }
        let first = self.manifest.packs[index].first_seq;
        let message =
            self.pack.as_ref().and_then(|(_, pack)| pack.as_ref()).and_then(|pack| pack.messages.get((seq - first) as usize));
        Ok(message.cloned().ok_or(Code::StoreCorrupt))
    }
}

fn within(to: u32, len: usize) -> Result<(), StoreError> {
    if to as usize <= len {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("ledger: it goes up to place {to} of a leg that has {len}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::store::MemoryStore;
    use crate::adapters::system::SeededChance;
    use crate::model::id::BatchId;
    use crate::model::pack::ManifestPack;

    #[tokio::test]
    async fn a_leg_is_not_believed_to_be_longer_than_what_it_is_of() {
        let stores = MemoryStore::new(Arc::new(SeededChance::from_seed(1))).stores();
        let lane = LaneKey { batch: BatchId(1), lane: 0 };
        let packs = vec![ManifestPack { range: 0, attempt: 1, n: 0, first_seq: 0, count: 3 }];
        let manifest = Arc::new(Manifest { packs, strikes: vec![1], ..Manifest::default() });
        let entries = (0..2).map(|seq| RetryEntry { seq, tries: 0, parts: 0, round: 0 }).collect();
        stores.windows.put_retry(lane, 7, &RetryPack { entries }).await.expect("it is stored");
        let mut loader = Loader::new(lane, manifest, &stores);
        for (leg, to, people) in [(0, 3, Some(2)), (0, 4, None), (0, u32::MAX, None), (7, 2, Some(2)), (7, 3, None)] {
            let found = loader.entries(leg, 0, to).await;
            assert!(found.is_ok() || matches!(found, Err(StoreError::Corrupt(_))), "{found:?}");
            assert_eq!(found.ok().map(|entries| entries.len()), people, "leg {leg} up to {to}");
        }
    }
}
