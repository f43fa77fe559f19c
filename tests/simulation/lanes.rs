//! A lane as the store has it at the end: its windows, and whom each of them holds.

use std::collections::{BTreeMap, BTreeSet};

use smsfleet::model::answer::Answer;
use smsfleet::model::batch::BatchRow;
use smsfleet::model::id::{LaneKey, Msisdn, WindowKey, WorkerId};
use smsfleet::model::lane::lane_of;
use smsfleet::model::ledger::OpenWindow;
use smsfleet::model::pack::PackKey;
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Answered, Judgement, WindowRow, all_parts};
use smsfleet::ports::windows::StoredWindow;

use super::process::Shared;

/// A window as whoever ran or judged it wrote it down.
pub struct Held {
    pub key: WindowKey,
    pub window: OpenWindow,
    pub row: Option<WindowRow>,
    pub judgement: Option<Judgement>,
    /// Whom it holds, by their places, each with the parts that are asked for; 0 stands for all of them.
    pub people: BTreeMap<u32, u32>,
}

impl Held {
    /// Whether a recovery made it, for whoever may have been sent since the backup.
    pub fn is_recovered(&self) -> bool {
        self.window.declarer == WorkerId(0)
    }

    /// Its declarer's answers to somebody.
    pub fn answers(&self, seq: u32) -> impl Iterator<Item = &Answered> {
        self.row.iter().flat_map(|row| &row.answers).filter(move |answered| answered.seq == seq)
    }

    /// Which of somebody's parts have an answer, as bits.
    pub fn bits(&self, seq: u32) -> u32 {
        self.answers(seq).fold(0, |bits, answered| bits | 1 << answered.part)
    }

    /// Whether all that was asked for of somebody has an answer.
    pub fn is_whole(&self, seq: u32) -> bool {
        let parts = self.answers(seq).map(|answered| answered.parts).max().unwrap_or(0);
        let asked = self.people.get(&seq).copied().filter(|asked| *asked != 0).unwrap_or(all_parts(parts));
        parts > 0 && asked & !self.bits(seq) == 0
    }

    /// Whether an answer to somebody is of a kind.
    pub fn says(&self, seq: u32, is: impl Fn(&Answer) -> bool) -> bool {
        self.answers(seq).any(|answered| is(&answered.answer))
    }
}

/// A lane with its windows in the order of their names.
pub struct Lane {
    pub key: LaneKey,
    pub windows: Vec<Held>,
    /// The numbers by their places, those that were struck out too.
    pub numbers: BTreeMap<u32, u64>,
    struck: BTreeSet<u32>,
}

impl Lane {
    pub async fn read(shared: &Shared, key: LaneKey) -> Result<Lane, String> {
        let manifest = shared.stores.manifests.get(key).await.map_err(|error| error.to_string())?;
        let (mut numbers, mut windows) = (BTreeMap::new(), vec![]);
        for pack in manifest.iter().flat_map(|manifest| &manifest.packs) {
            let name = PackKey { lane: key, range: pack.range, attempt: pack.attempt, n: pack.n };
            let head = shared.stores.packs.head(name).await.map_err(|error| error.to_string())?;
            let of_pack = head.map(|head| head.numbers).unwrap_or_default();
            numbers.extend((pack.first_seq..).zip(of_pack));
        }
        let struck: BTreeSet<u32> = manifest.iter().flat_map(|manifest| manifest.strikes.iter().copied()).collect();
        for stored in shared.stores.windows.list(key, 0, 10_000).await.map_err(|error| error.to_string())? {
            windows.extend(held(shared, stored, &struck).await?);
        }
        Ok(Lane { key, windows, numbers, struck })
    }

    /// Under which name the network knows who has a place.
    pub fn recipient(&self, seq: u32) -> Option<String> {
        self.numbers.get(&seq).map(|number| format!("{}/+{number}", self.key.batch))
    }

    /// The place from which a number is sent to.
    pub fn place(&self, number: Msisdn) -> Option<u32> {
        let mine = self.numbers.iter().filter(|(seq, other)| **other == number.0 && !self.is_struck(**seq));
        mine.map(|(seq, _)| *seq).next()
    }

    /// Whether a place was struck out: its number has an earlier one.
    pub fn is_struck(&self, seq: u32) -> bool {
        self.struck.contains(&seq)
    }

    /// Windows that hold somebody.
    pub fn of(&self, seq: u32) -> impl Iterator<Item = &Held> {
        self.windows.iter().filter(move |held| held.people.contains_key(&seq))
    }

    /// Until when what its declarer is told of somebody is of this window: it declares the next one then.
    pub fn until(&self, held: &Held, seq: u32) -> Timestamp {
        let same = self.of(seq).filter(|other| other.window.declarer == held.window.declarer);
        let later = same.map(|other| other.window.declared_at).filter(|at| *at > held.window.declared_at);
        later.min().unwrap_or(Timestamp(i64::MAX))
    }
}

async fn held(shared: &Shared, stored: StoredWindow, struck: &BTreeSet<u32>) -> Result<Option<Held>, String> {
    let StoredWindow { key, row, judgement } = stored;
    let of_row = row.as_ref().map(|row| row.window.clone());
    let Some(window) = of_row.or(judgement.as_ref().map(|judged| judged.window.clone())) else { return Ok(None) };
    let people = if window.declarer == WorkerId(0) {
        judgement.iter().flat_map(|judged| &judged.unanswered).map(|seq| (*seq, 0)).collect()
    } else if window.leg == 0 {
        (window.from..window.to).filter(|seq| !struck.contains(seq)).map(|seq| (seq, 0)).collect()
    } else {
        let pack = shared.stores.windows.retry(key.lane, window.leg).await.map_err(|error| error.to_string())?;
        let pack = pack.ok_or_else(|| format!("a retry pack is gone that a window is of: {window:?}"))?;
        let mine = pack.entries.iter().skip(window.from as usize).take(window.len() as usize);
        mine.map(|entry| (entry.seq, entry.parts)).collect()
    };
    Ok(Some(Held { key, window, row, judgement, people }))
}

/// What the store holds of a number's lane.
pub async fn story(shared: &Shared, row: &BatchRow, number: &str) -> String {
    let Some(number) = number.strip_prefix('+').and_then(|digits| digits.parse().ok()) else { return String::new() };
    let key = LaneKey { batch: row.batch.batch_id, lane: lane_of(Msisdn(number), row.lanes) };
    let ledger = shared.stores.ledgers.load(key).await;
    let lane = match Lane::read(shared, key).await {
        Ok(lane) => lane,
        Err(error) => return format!("lane {key} cannot be read: {error}"),
    };
    let seq = lane.place(Msisdn(number));
    let mut story = format!("lane {key}, place {seq:?}, ledger {ledger:?}");
    for held in &lane.windows {
        let answers: Vec<_> = seq.iter().flat_map(|seq| held.answers(*seq)).map(|answered| &answered.answer).collect();
        let is_complete = held.row.as_ref().map(|row| row.complete);
        let is_in = seq.is_some_and(|seq| held.people.contains_key(&seq));
        let judged = held.judgement.as_ref().map(|judged| (judged.judged_at, &judged.unanswered));
        let lost = shared.network.known().lost.get(&held.window.declarer).cloned();
        story.push_str(&format!(
            "\n  {:?} complete {is_complete:?} is in it {is_in} {answers:?} judged {judged:?} its declarer was lost {lost:?}",
            held.window
        ));
    }
    let recipient = format!("{}/+{number}", key.batch);
    story.push_str(&format!("\n  told {:?}", shared.network.known().told.get(&recipient)));
    if let Some(seq) = seq {
        let reports = shared.stores.receipts.list(key, seq, 10).await.unwrap_or_default();
        let reports: Vec<_> = reports.into_iter().filter(|report| report.part.recipient.seq == seq).collect();
        story.push_str(&format!("\n  receipts {reports:?}"));
    }
    let unmatched = shared.stores.parked.unmatched(None, 1_000).await.unwrap_or_default();
    let waiting = shared.stores.parked.due(Timestamp(i64::MAX), 1_000).await.unwrap_or_default();
    let parked: Vec<_> =
        unmatched.into_iter().chain(waiting).filter(|parked| parked.report.number == Some(Msisdn(number))).collect();
    story.push_str(&format!("\n  parked {parked:?}"));
    story
}
