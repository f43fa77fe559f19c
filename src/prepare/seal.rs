//! The seal: what each lane will send, written once.
//!
//! A lane is sealed from the numbers of the winning packs alone. Packs never change, so whoever seals a lane twice makes the
//! same manifest, and only the first is kept.

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::Xxh3;

use super::tools::{End, Tools, is_wanted};
use crate::model::code::Fault;
use crate::model::id::{LaneKey, RangeKey, TaskCode};
use crate::model::ledger::Ledger;
use crate::model::limits::PACK_RECIPIENTS_MAX;
use crate::model::pack::{Manifest, ManifestPack, PackHead, PackKey, SealEntry, SealTotals, strikes};
use crate::model::record::{RangeRow, RangeState};
use crate::model::state::{Refusal, StepEvent};
use crate::ports::StoreError;
use crate::ports::control::{Cas, Versioned};
use crate::runtime::control::{change, create, load_row};
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};

/// Heads of packs read at once.
const HEADS_AT_ONCE: usize = 8;

/// Seals the lanes `from..=to` of a batch whose ranges are all done, one after the other.
///
/// # Errors
/// [`StoreError::Corrupt`] when a row cannot be read, or a pack is missing.
pub async fn seal_lanes(
    tools: &Tools,
    task_code: TaskCode,
    from: u8,
    to: u8,
    stop: &CancellationToken,
) -> Result<End, StoreError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(End::Stopped),
        end = seal_all(tools, task_code, from, to) => end,
    }
}

async fn seal_all(tools: &Tools, task_code: TaskCode, from: u8, to: u8) -> Result<End, StoreError> {
    let mut ranges: Option<Vec<Winner>> = None;
    for lane in from..=to {
        let batch = match load_row(&*tools.batches, task_code.batch, &*tools.world.chance).await? {
            Some(batch) if is_wanted(&batch.row, task_code) => batch.row,
            _ => return Ok(End::OutOfDate),
        };
        if u16::from(lane) >= batch.lanes {
            return Ok(End::OutOfDate);
        }
        let winners = match &mut ranges {
            Some(winners) => winners,
            None => {
                let rows = tools.patiently("reading ranges", || tools.ranges.list(task_code.batch)).await?;
                match winners_of(&rows).filter(|winners| winners.len() == batch.ranges as usize) {
                    Some(winners) => ranges.insert(winners),
                    None => {
                        tracing::warn!(batch = %task_code.batch, "a seal was asked for before all ranges are done");
                        return Ok(End::OutOfDate);
                    }
                }
            }
        };
        seal_lane(tools, LaneKey { batch: task_code.batch, lane }, winners).await?;
    }
    Ok(End::Done)
}

/// Ends the preparation of a batch of which a lane cannot be sealed, unless it is another dispatch's by now: the same seal would
/// otherwise be asked for again and again.
///
/// # Errors
/// [`StoreError::Corrupt`] when the batch itself cannot be read.
pub async fn fail_seal(tools: &Tools, task_code: TaskCode, fault: &Fault) -> Result<End, StoreError> {
    let now = tools.world.clock.now();
    let failed = change(&*tools.batches, task_code.batch, &*tools.world.chance, |row| {
        if !is_wanted(&row.row, task_code) {
            return Err(Refusal::Already);
        }
        row.row.after_preparing(StepEvent::Fail, Some((fault.code, fault.context.clone())), now)
    });
    if failed.await?.is_err() {
        return Ok(End::OutOfDate);
    }
    tracing::error!(code = %fault.code, batch = %task_code.batch, context = %fault.context, "a batch cannot be sealed");
    Ok(End::Failed)
}

/// The attempt that won a range, and its packs in each lane.
struct Winner {
    range: u32,
    attempt: u32,
    packs: Vec<u32>,
}

/// The winners in the order of the ranges; `None` while a range is not done.
fn winners_of(rows: &[(RangeKey, Versioned<RangeRow>)]) -> Option<Vec<Winner>> {
    let mut winners = vec![];
    for (key, row) in rows {
        match &row.row.state {
            RangeState::Done(totals) => {
                winners.push(Winner { range: key.range, attempt: row.row.attempt, packs: totals.packs.clone() });
            }
            RangeState::Waiting | RangeState::Claimed | RangeState::Failed(_) => return None,
        }
    }
    winners.sort_unstable_by_key(|winner| winner.range);
    Some(winners)
}

async fn seal_lane(tools: &Tools, lane: LaneKey, winners: &[Winner]) -> Result<(), StoreError> {
    // The ledger is made last: with it the lane is sealed.
    if load_row(&*tools.ledgers, lane, &*tools.world.chance).await?.is_some() {
        return Ok(());
    }
    let mine = |winner: &Winner| (winner.range, winner.attempt, winner.packs.get(usize::from(lane.lane)).copied().unwrap_or(0));
    let packs: Vec<(u32, u32, u32)> = winners.iter().map(mine).collect();
    // Named as they are read: how many there should be is only what a row says.
    let named = |(range, attempt, packs)| (0..packs).map(move |n| PackKey { lane, range, attempt, n });
    let heads = stream::iter(packs.into_iter().flat_map(named).map(|key| async move {
        let head = tools.patiently("reading packs", || tools.packs.head(key)).await?;
        let missing = || StoreError::Corrupt(format!("pack {} of range {} in lane {lane} is missing", key.n, key.range));
        Ok::<_, StoreError>((key, head.ok_or_else(missing)?))
    }));
    let mut sealing = Sealing::default();
    let mut heads = heads.buffered(HEADS_AT_ONCE);
    while let Some((key, head)) = heads.try_next().await? {
        sealing.add(key, &head)?;
    }
    let manifest = sealing.manifest();
    let len = match tools.patiently("writing manifests", || tools.manifests.put(lane, &manifest)).await? {
        Cas::Applied => {
            metrics::count(&metrics::PREPARE_LANES_SEALED, &[], 1);
            manifest.len()
        }
        Cas::Refused => stored_len(tools, lane, &manifest).await?,
    };
    create(&*tools.ledgers, lane, &*tools.world.chance, &Ledger::sealed(len)).await?;
    Ok(())
}

/// The length of the manifest that is there already: the one that counts.
async fn stored_len(tools: &Tools, lane: LaneKey, mine: &Manifest) -> Result<u32, StoreError> {
    let stored = tools.patiently("reading manifests", || tools.manifests.get(lane)).await?;
    let stored = stored.ok_or_else(|| StoreError::Corrupt(format!("the manifest of lane {lane} is refused and missing")))?;
    if stored.hash != mine.hash {
        // Cannot happen while packs and winners never change; what was written first is what people were shown.
        tracing::error!(%lane, "a lane was sealed differently before");
    }
    Ok(stored.len())
}

/// A lane on its way to its manifest.
#[derive(Default)]
struct Sealing {
    packs: Vec<ManifestPack>,
    entries: Vec<SealEntry>,
    segments: Vec<u8>,
    ucs2: Vec<bool>,
    hash: Xxh3,
}

impl Sealing {
    /// # Errors
    /// [`StoreError::Corrupt`] for a pack that no preparer wrote: nobody would believe a manifest that names it.
    fn add(&mut self, key: PackKey, head: &PackHead) -> Result<(), StoreError> {
        let damaged =
            |how| Err(StoreError::Corrupt(format!("pack {} of range {} in lane {}: {how}", key.n, key.range, key.lane)));
        if !(1..=PACK_RECIPIENTS_MAX).contains(&head.numbers.len()) {
            return damaged("it holds nobody, or more than any does");
        }
        if u32::try_from(self.segments.len() + head.numbers.len()).is_err() {
            return damaged("the lane holds more people than can be numbered");
        }
        let first_seq = self.segments.len() as u32;
        let count = head.numbers.len() as u32;
        self.packs.push(ManifestPack { range: key.range, attempt: key.attempt, n: key.n, first_seq, count });
        for (place, (&number, &record)) in head.numbers.iter().zip(&head.records).enumerate() {
            self.entries.push(SealEntry { number, record, seq: first_seq + place as u32 });
            self.hash.update(&number.to_le_bytes());
            self.hash.update(&record.to_le_bytes());
        }
        self.segments.extend_from_slice(&head.segments);
        self.ucs2.extend_from_slice(&head.ucs2);
        Ok(())
    }

    fn manifest(mut self) -> Manifest {
        let mut strikes = strikes(&mut self.entries);
        if mutation::is_on(Bug::NoDeduplication) {
            strikes.clear();
        }
        if mutation::is_on(Bug::StrikeAll) {
            let twice = self.entries.windows(2).filter(|pair| pair[0].number == pair[1].number);
            strikes.extend(twice.map(|pair| pair[0].seq));
            strikes.sort_unstable();
            strikes.dedup();
        }
        let mut totals = SealTotals { duplicates: strikes.len() as u64, ..SealTotals::default() };
        let mut struck = strikes.iter().copied().peekable();
        for (seq, (&segments, &ucs2)) in self.segments.iter().zip(&self.ucs2).enumerate() {
            if struck.next_if_eq(&(seq as u32)).is_some() {
                self.hash.update(&(seq as u32).to_le_bytes());
                continue;
            }
            totals.recipients += 1;
            totals.segments += u64::from(segments);
            if ucs2 {
                totals.ucs2 += 1;
            } else {
                totals.gsm7 += 1;
            }
        }
        Manifest { packs: self.packs, strikes, totals, hash: self.hash.digest() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::BatchId;

    /// A lane of a batch of 100 million people.
    const LARGE: u64 = 781_250;
    /// A number that is repeated came so many records before.
    const BEFORE: u64 = 2_010;

    #[test]
    fn a_lane_of_a_very_large_batch_is_sealed_exactly_and_in_little_memory() {
        let mut sealing = Sealing::default();
        let (mut range, mut first) = (0, 0);
        while first < LARGE {
            let records: Vec<u64> = (first..LARGE.min(first + PACK_RECIPIENTS_MAX as u64)).collect();
            // Every hundredth number came before, in a pack of another range; each pack has its numbers in order.
            let repeats = |record: u64| record % 100 == 99 && record > BEFORE;
            let numbers = records.iter().map(|&record| if repeats(record) { record - BEFORE } else { record });
            let mut of_pack: Vec<(u64, u64)> = numbers.zip(records.iter().copied()).collect();
            of_pack.sort_unstable();
            let (numbers, records): (Vec<u64>, Vec<u64>) = of_pack.into_iter().unzip();
            let people = numbers.len();
            let head = PackHead { numbers, records, segments: vec![1; people], ucs2: vec![false; people] };
            let key = PackKey { lane: LaneKey { batch: BatchId(1), lane: 0 }, range, attempt: 1, n: 0 };
            sealing.add(key, &head).expect("it is sealed");
            (range, first) = (range + 1, first + people as u64);
        }
        let of_people =
            sealing.entries.capacity() * size_of::<SealEntry>() + sealing.segments.capacity() + sealing.ucs2.capacity();
        let held = of_people + sealing.packs.capacity() * size_of::<ManifestPack>();
        assert!(held < 32 << 20, "{held} bytes for {LARGE} people");
        let manifest = sealing.manifest();
        let (twice, all) = ((LARGE - BEFORE) / 100, u64::from(manifest.len()));
        assert_eq!((all, manifest.totals.recipients, manifest.totals.duplicates), (LARGE, LARGE - twice, twice));
    }

    #[test]
    fn a_pack_that_no_preparer_wrote_is_sealed_by_nobody() {
        let add = |people: usize| {
            let key = PackKey { lane: LaneKey { batch: BatchId(1), lane: 0 }, range: 0, attempt: 1, n: 0 };
            let numbers: Vec<u64> = (0..people as u64).collect();
            let head = PackHead { records: numbers.clone(), numbers, segments: vec![1; people], ucs2: vec![false; people] };
            let mut sealing = Sealing::default();
            sealing.add(key, &head).map(|()| sealing.manifest().len() as usize)
        };
        for people in [1, PACK_RECIPIENTS_MAX] {
            assert_eq!(add(people), Ok(people));
        }
        // Whoever read a manifest with it would refuse it, and the lane could never be sent.
        for people in [0, PACK_RECIPIENTS_MAX + 1] {
            assert!(matches!(add(people), Err(StoreError::Corrupt(_))), "{people}");
        }
    }
}
