//! Batches that ask for it are sent again where an answer is missing: whether it was missing, as a witness knows it who saw what was
//! handed over, by whom, and when each answer could be read in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smsfleet::model::answer::Answer;
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, LaneKey, RecipientKey, WindowKey};
use smsfleet::model::time::Timestamp;
use smsfleet::model::window::{Answered, Judgement, RetryPack, WindowRow, all_parts};
use smsfleet::ports::StoreError;
use smsfleet::ports::receipts::{IndexEntry, PartKey};
use smsfleet::ports::windows::{StoredWindow, Windows};

use super::known::Handed;
use super::network::Network;

/// What is known of batches that say that whoever has no answer is sent again.
#[derive(Default)]
pub struct Again {
    batches: BTreeSet<BatchId>,
    /// Under which name the network knows their people.
    names: BTreeMap<String, RecipientKey>,
    /// What was taken, or refused for good, of each part.
    handed: BTreeMap<PartKey, Vec<Handed>>,
    /// Since when each answer can be read in the store, by the windows that it is in: the id, or `None` for a refusal.
    written: BTreeMap<(PartKey, Option<String>), BTreeMap<u64, Timestamp>>,
}

/// Whether a part may come once more, for all that is known of what was answered.
pub struct Excuses {
    /// Though it was refused for good.
    pub refused: bool,
    /// Though it was taken, or others of the message were by another account.
    pub taken: bool,
}

impl Again {
    /// A batch asks for it.
    pub fn asks(&mut self, batch: BatchId) {
        self.batches.insert(batch);
    }

    pub fn is_asked(&self, batch: BatchId) -> bool {
        self.batches.contains(&batch)
    }

    /// A part arrives at an account. What excuses that, if its batch asks to be sent again.
    pub fn comes(&self, place: PartKey, account: &str, now: Timestamp) -> Option<Excuses> {
        if !self.is_asked(place.recipient.lane.batch) {
            return None;
        }
        let whole = PartKey { part: 0, ..place }..=PartKey { part: u8::MAX, ..place };
        let mut excuses = Excuses { refused: true, taken: true };
        for (part, all) in self.handed.range(whole) {
            for handed in all.iter().filter(|handed| *part == place || handed.id.is_some() && handed.account != account) {
                let is_missing = self.is_missing(*part, handed, now);
                match handed.id {
                    Some(_) => excuses.taken &= is_missing,
                    None => excuses.refused &= is_missing,
                }
            }
        }
        Some(excuses)
    }

    /// Whether an answer was never given, or was not there when it had to be. That it is not there had a reason, or `doubts` says so.
    fn is_missing(&self, part: PartKey, handed: &Handed, now: Timestamp) -> bool {
        handed.silent || now > handed.due && self.written_at(part, handed).is_none_or(|at| at > handed.due)
    }

    fn written_at(&self, part: PartKey, handed: &Handed) -> Option<Timestamp> {
        let times = self.written.get(&(part, handed.id.clone()))?;
        times.values().copied().filter(|at| *at >= handed.at).min()
    }

    /// A part was taken, or refused for good.
    pub fn handed(&mut self, name: &str, place: PartKey, handed: Handed) {
        if self.is_asked(place.recipient.lane.batch) {
            self.names.insert(name.to_owned(), place.recipient);
            self.handed.entry(place).or_default().push(handed);
        }
    }

    /// The session that a part was handed to is lost before it was answered.
    pub fn unanswered(&mut self, place: PartKey) {
        if let Some(last) = self.handed.get_mut(&place).and_then(|all| all.last_mut()) {
            last.silent = true;
        }
    }

    /// A window's answers are in the store from now on.
    pub fn written(&mut self, key: WindowKey, answers: &[Answered], now: Timestamp) {
        if !self.is_asked(key.lane.batch) {
            return;
        }
        for answered in answers {
            let id = match &answered.answer {
                Answer::Accepted { id } => Some(id.to_string()),
                Answer::Failed { code: Code::ProviderRefused, .. } => None,
                _ => continue,
            };
            let part = PartKey { recipient: RecipientKey { lane: key.lane, seq: answered.seq }, part: answered.part };
            self.written.entry((part, id)).or_default().entry(key.window).or_insert(now);
        }
    }

    /// The store is as it was at a backup: what was answered since is not there any more.
    pub fn forget(&mut self, taken: Timestamp) {
        self.written.values_mut().for_each(|times| times.retain(|_, at| *at <= taken));
    }

    /// Whether some account took all parts of a message.
    pub fn is_whole(&self, name: &str) -> bool {
        let Some(who) = self.names.get(name) else { return false };
        let whole = PartKey { recipient: *who, part: 0 }..=PartKey { recipient: *who, part: u8::MAX };
        let mut taken: BTreeMap<(&str, u8), u32> = BTreeMap::new();
        for (part, all) in self.handed.range(whole) {
            for handed in all.iter().filter(|handed| handed.id.is_some()) {
                *taken.entry((&handed.account, handed.of)).or_default() |= 1 << part.part;
            }
        }
        taken.iter().any(|((_, of), parts)| *parts == all_parts(*of))
    }
}

/// The windows of a store, and a witness of what can be read in them.
pub struct WitnessedWindows {
    pub inner: Arc<dyn Windows>,
    pub network: Arc<Network>,
}

#[async_trait::async_trait]
impl Windows for WitnessedWindows {
    async fn put(&self, key: WindowKey, row: &WindowRow, index: Vec<IndexEntry>) -> Result<(), StoreError> {
        self.inner.put(key, row, index).await?;
        self.network.written(key, &row.answers);
        Ok(())
    }

    async fn put_judgement(&self, key: WindowKey, judgement: &Judgement) -> Result<(), StoreError> {
        self.inner.put_judgement(key, judgement).await
    }

    async fn get(&self, key: WindowKey) -> Result<Option<StoredWindow>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, lane: LaneKey, from: u64, limit: usize) -> Result<Vec<StoredWindow>, StoreError> {
        self.inner.list(lane, from, limit).await
    }

    async fn put_retry(&self, lane: LaneKey, name: u64, pack: &RetryPack) -> Result<(), StoreError> {
        self.inner.put_retry(lane, name, pack).await
    }

    async fn retry(&self, lane: LaneKey, name: u64) -> Result<Option<RetryPack>, StoreError> {
        self.inner.retry(lane, name).await
    }
}
