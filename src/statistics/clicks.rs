//! Openings of short links, counted: per recipient, and per batch.
//!
//! What a request alone says was judged when it came; sweeps over many codes and bursts right after delivery are judged here,
//! where the other openings and the receipts are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::recount::pack_key;
use crate::model::batch::BatchRow;
use crate::model::click::{Click, ClickCounts, Kind, Sweep, count, link_of, openings_of, scope_of, sweeps_of};
use crate::model::id::{BatchId, LaneKey};
use crate::model::receipt::Rung;
use crate::model::time::Timestamp;
use crate::ports::journal::{Direction, Entry, Journal, Place, Stream};
use crate::ports::receipts::MatchedReport;
use crate::ports::{StoreError, Stores};
use crate::runtime::short_code::Permutation;

/// Openings read at once.
const PAGE: usize = 2_000;
/// Openings of one link that are looked at together; those behind are counted as they judged themselves.
const TOGETHER_MAX: usize = 10_000;
/// Sweeps of one batch that are looked at.
const SWEEPS_MAX: usize = 10_000;
/// Openings that are held until the receipts of their links were looked up, while a batch is counted.
const DOUBTFUL_MAX: usize = 200_000;
/// Openings by people closer than this may be a burst.
const NEAR: std::time::Duration = std::time::Duration::from_secs(2);

/// The openings of one batch's links.
pub struct ClickReader {
    batch: BatchId,
    journal: Arc<dyn Journal>,
    permutation: Permutation,
    sweeps: Vec<Sweep>,
}

impl ClickReader {
    /// Reads what the openings of a batch have in common.
    pub async fn open(stores: &Stores, batch: BatchId) -> Result<ClickReader, StoreError> {
        let permutation = Permutation::new(&stores.links.key().await?);
        let journal = stores.journal.clone();
        let found = journal.list(Stream::Click, &sweeps_of(batch), None, SWEEPS_MAX, Direction::Forward).await?;
        let sweeps = found.iter().filter_map(|entry| serde_json::from_str(&entry.body).ok()).collect();
        Ok(ClickReader { batch, journal, permutation, sweeps })
    }

    /// The openings of a code. `delivered` is when the receipt came that says DELIVRD.
    pub async fn of_code(&self, code: &str, delivered: Option<Timestamp>) -> Result<ClickCounts, StoreError> {
        let Some(link) = self.permutation.number_of(code) else { return Ok(ClickCounts::default()) };
        let scope = scope_of(self.batch, link);
        let mut one = OneLink::default();
        let mut behind: Option<Place> = None;
        loop {
            let page = self.journal.list(Stream::Click, &scope, behind.as_ref(), PAGE, Direction::Forward).await?;
            let last = page.len() < PAGE;
            behind = page.last().map(|entry| entry.place.clone());
            page.iter().for_each(|entry| one.take(entry));
            if last {
                return Ok(one.counts(delivered, &self.sweeps));
            }
        }
    }
}

/// One link's openings while they are read.
#[derive(Default)]
struct OneLink {
    together: Vec<(Timestamp, Click)>,
    behind: ClickCounts,
}

impl OneLink {
    /// Takes an opening in. A damaged one does not say whose it was, and counts as nobody's.
    fn take(&mut self, entry: &Entry) {
        let Ok(click) = serde_json::from_str::<Click>(&entry.body) else { return };
        if self.together.len() < TOGETHER_MAX {
            self.together.push((entry.place.at, click));
        } else if click.kind == Kind::Machine {
            self.behind.machine_clicks += 1;
        } else {
            self.behind.clicks += 1;
        }
    }

    fn counts(&self, delivered: Option<Timestamp>, sweeps: &[Sweep]) -> ClickCounts {
        let mut counts = count(&self.together, delivered, sweeps);
        counts.clicks += self.behind.clicks;
        counts.machine_clicks += self.behind.machine_clicks;
        counts
    }

    /// Whether a receipt could make machines of some of them.
    fn is_doubtful(&self) -> bool {
        let people: Vec<Timestamp> = self.together.iter().map(|(at, _)| *at).collect();
        people.windows(2).any(|pair| pair[1].since(pair[0]) <= NEAR)
    }
}

/// When the receipt came that says DELIVRD: the first, of whatever part.
pub fn delivered_at(reports: &[MatchedReport]) -> Option<Timestamp> {
    reports.iter().filter(|matched| matched.report.rung == Rung::Delivered).map(|matched| matched.report.received).min()
}

/// The openings of a batch's links, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchClicks {
    /// Recipients whose link a person opened.
    pub people: u64,
    /// Openings by people.
    pub clicks: u64,
    /// Openings by machines.
    pub machine_clicks: u64,
}

impl BatchClicks {
    fn add(&mut self, counts: &ClickCounts) {
        self.people += u64::from(counts.clicks > 0);
        self.clicks += counts.clicks;
        self.machine_clicks += counts.machine_clicks;
    }
}

/// Counts the openings of a batch's links. Reads the openings in bounded memory; the packs only when some openings are close
/// enough together for their receipts to matter.
pub async fn batch_clicks(stores: &Stores, row: &BatchRow) -> Result<BatchClicks, StoreError> {
    let mut total = BatchClicks::default();
    if !row.batch.contains_url() {
        return Ok(total);
    }
    let reader = ClickReader::open(stores, row.batch.batch_id).await?;
    let mut doubtful: BTreeMap<u64, OneLink> = BTreeMap::new();
    let (mut current, mut one): (Option<u64>, OneLink) = (None, OneLink::default());
    let within = openings_of(row.batch.batch_id);
    let mut behind: Option<Place> = None;
    loop {
        let page = stores.journal.list(Stream::Click, &within, behind.as_ref(), PAGE, Direction::Forward).await?;
        let last = page.len() < PAGE;
        behind = page.last().map(|entry| entry.place.clone());
        for entry in &page {
            let link = link_of(&entry.place.scope);
            if link != current {
                end_link(current, std::mem::take(&mut one), &reader, &mut doubtful, &mut total);
                current = link;
            }
            one.take(entry);
        }
        if last {
            end_link(current, one, &reader, &mut doubtful, &mut total);
            break;
        }
        if doubtful.values().map(|one| one.together.len()).sum::<usize>() >= DOUBTFUL_MAX {
            settle_doubtful(stores, row, &reader, std::mem::take(&mut doubtful), &mut total).await?;
        }
    }
    settle_doubtful(stores, row, &reader, doubtful, &mut total).await?;
    Ok(total)
}

fn end_link(
    link: Option<u64>,
    one: OneLink,
    reader: &ClickReader,
    doubtful: &mut BTreeMap<u64, OneLink>,
    total: &mut BatchClicks,
) {
    match link {
        Some(link) if one.is_doubtful() => _ = doubtful.insert(link, one),
        Some(_) => total.add(&one.counts(None, &reader.sweeps)),
        None => {}
    }
}

/// Counts links whose receipts matter: finds their recipients in the packs, and the receipts of those.
async fn settle_doubtful(
    stores: &Stores,
    row: &BatchRow,
    reader: &ClickReader,
    doubtful: BTreeMap<u64, OneLink>,
    total: &mut BatchClicks,
) -> Result<(), StoreError> {
    let mut open: BTreeSet<u64> = doubtful.keys().copied().collect();
    for lane in 0..row.lanes {
        if open.is_empty() {
            break;
        }
        let lane = LaneKey { batch: row.batch.batch_id, lane: lane as u8 };
        let Some(manifest) = stores.manifests.get(lane).await? else { continue };
        for pack in &manifest.packs {
            let content = match stores.packs.get(pack_key(lane, pack)).await {
                Ok(Some(content)) => content,
                Ok(None) | Err(StoreError::Corrupt(_)) => continue,
                Err(error) => return Err(error),
            };
            for (place, message) in content.messages.iter().enumerate() {
                let link = message.link.as_ref().and_then(|spot| reader.permutation.number_of(&spot.code));
                let Some(link) = link.filter(|link| open.remove(link)) else { continue };
                let seq = pack.first_seq + place as u32;
                let mut reports = stores.receipts.list(lane, seq, 1).await?;
                reports.retain(|report| report.part.recipient.seq == seq);
                if let Some(one) = doubtful.get(&link) {
                    total.add(&one.counts(delivered_at(&reports), &reader.sweeps));
                }
            }
        }
    }
    // Links whose recipient is not there any more: nobody knows when it arrived.
    for link in open {
        if let Some(one) = doubtful.get(&link) {
            total.add(&one.counts(None, &reader.sweeps));
        }
    }
    Ok(())
}
