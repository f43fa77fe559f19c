//! What the provider remembers of a run: whom the oracle asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use smsfleet::model::answer::Answer;
use smsfleet::model::id::{BatchId, Msisdn, WorkerId};
use smsfleet::model::lane::mix;
use smsfleet::model::receipt::Rung;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::provider::ReportSink;

use super::again::Again;
use super::books::{Books, Place, Span, outside};
use super::operators::Operators;

/// What one number got of one batch.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// How often each part was taken.
    pub parts: BTreeMap<u8, u32>,
    /// Parts of the message.
    pub of: u8,
    /// When it was last taken, on the boot clock and by the calendar.
    pub last: Duration,
    pub last_at: Timestamp,
    pub number: Msisdn,
    /// Accounts that took parts of it.
    pub accounts: BTreeSet<String>,
    /// What it said.
    pub text: String,
}

impl Got {
    /// Complete messages that reached the handset.
    pub fn complete(&self) -> u32 {
        if self.parts.len() < usize::from(self.of) { 0 } else { self.parts.values().min().copied().unwrap_or(0) }
    }

    /// Parts that came more than once.
    pub fn repeated(&self) -> bool {
        self.parts.values().any(|times| *times > 1)
    }
}

/// What a worker was told of a part that it handed over, or wanted to.
#[derive(Clone, Debug)]
pub struct Told {
    pub worker: WorkerId,
    pub at: Timestamp,
    pub part: u8,
    pub answer: Answer,
}

/// Everything the provider knows.
#[derive(Default)]
pub struct Known {
    pub got: BTreeMap<String, Got>,
    /// When parts arrived, those that were refused too, by recipient.
    pub arrived: BTreeMap<String, Vec<Timestamp>>,
    /// What workers were told, by recipient, in the order of time.
    pub told: BTreeMap<String, Vec<Told>>,
    /// Workers whose grace period was over before all was answered, and when they were told to stop.
    pub cut: BTreeMap<WorkerId, Timestamp>,
    /// What kept the workers waiting.
    pub books: BTreeMap<WorkerId, Arc<Books>>,
    /// What receipts said: all of them, and those that were acknowledged.
    pub said: Said,
    pub acknowledged: Said,
    /// When the first receipt about somebody was acknowledged.
    pub first_acknowledged: BTreeMap<String, Timestamp>,
    /// Who was refused, and how.
    pub refused: BTreeMap<String, Refusals>,
    /// Recipients with a message whose id another message has too, or reads like another of theirs in another form: which of them
    /// a receipt is about, nobody can tell.
    pub collided: BTreeSet<String>,
    /// The ids that each recipient's messages have.
    pub(super) ids: BTreeMap<String, BTreeSet<u64>>,
    /// A hash of all that happened, in its order.
    pub trace: u64,
    /// What the operators did, to hold what arrives against.
    pub operators: Operators,
    /// Batches that ask to be sent again where an answer is missing.
    pub again: Again,
    /// Batches that may be sent until some time only.
    pub limited: BTreeSet<BatchId>,
    /// What should never have arrived.
    pub wrong: Vec<String>,
    /// Parts of messages that were taken or refused.
    pub arrivals: u64,
    /// Who was sent to last.
    pub last: String,
    /// Recipients of whom some part was taken without an answer.
    pub silent: BTreeSet<String>,
    /// Workers that crashed, or were not through when they had to be, and those that were frozen, until they woke: what they were
    /// told may never have been written down.
    pub lost: BTreeMap<WorkerId, Vec<(Timestamp, Option<Timestamp>)>>,
    /// Numbers that were suppressed during the run, and when; and those that ever were, whatever a restore made of it.
    pub suppressed: BTreeMap<Msisdn, Duration>,
    pub ever_suppressed: BTreeSet<Msisdn>,
    /// When the backup was taken that the store was restored from, and when that was, if it was.
    pub restored: Option<(Timestamp, Timestamp)>,
    /// Partitions that were taken away from workers: since when, and until when they had none of it.
    pub away: Vec<Away>,
    pub(super) next_id: u64,
    /// Whose message has that id.
    pub(super) last_taken: String,
    pub(super) sinks: Vec<ReportSink>,
}

/// The best that receipts said of each part, by recipient.
pub type Said = BTreeMap<String, BTreeMap<u8, Rung>>;

/// Takes in what one receipt said.
pub fn note(said: &mut Said, recipient: &str, part: u8, rung: Rung) {
    let best = said.entry(recipient.to_owned()).or_default().entry(part).or_insert(rung);
    *best = rung.max(*best);
}

/// How often somebody was refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals {
    pub for_good: u32,
    /// "Not now", of the kinds that are given up some time.
    pub not_now: u32,
}

/// A part that an account took, or refused for good.
#[derive(Clone, Debug)]
pub struct Handed {
    pub at: Timestamp,
    /// The window that it was of is judged later than this.
    pub due: Timestamp,
    pub account: String,
    /// Parts of the message.
    pub of: u8,
    /// The id under which it was taken; `None` when it was refused.
    pub id: Option<String>,
    /// It is not answered, or nobody can know the answer any more.
    pub silent: bool,
}

/// A partition that a worker was told to let go of.
#[derive(Clone, Debug)]
pub struct Away {
    pub worker: WorkerId,
    pub partition: u8,
    pub from: Timestamp,
    /// When it was given to the worker again.
    pub until: Option<Timestamp>,
}

impl Known {
    /// A worker was told that these partitions are not its own any more.
    pub fn taken_away(&mut self, worker: WorkerId, partitions: &[u8], from: Timestamp) {
        self.away.extend(partitions.iter().map(|partition| Away { worker, partition: *partition, from, until: None }));
    }

    /// A worker was told that these partitions are its own.
    pub fn given(&mut self, worker: WorkerId, partitions: &[u8], now: Timestamp) {
        let open = self.away.iter_mut().filter(|away| away.worker == worker && away.until.is_none());
        open.filter(|away| partitions.contains(&away.partition)).for_each(|away| away.until = Some(now));
    }

    /// A worker is lost, or frozen, from here on.
    pub fn lose(&mut self, worker: WorkerId, now: Timestamp) {
        let times = self.lost.entry(worker).or_default();
        if times.last().is_none_or(|(_, until)| until.is_some()) {
            times.push((now, None));
        }
    }

    /// A frozen worker goes on.
    pub fn woken(&mut self, worker: WorkerId, now: Timestamp) {
        if let Some((_, until)) = self.lost.get_mut(&worker).and_then(|times| times.last_mut()) {
            *until = Some(now);
        }
    }

    /// Since when a worker was lost that it was some time between two instants.
    pub fn lost_between(&self, worker: WorkerId, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let mut times = self.lost.get(&worker).into_iter().flatten();
        times.find(|(since, until)| *since <= to && until.is_none_or(|until| until >= from)).map(|(since, _)| *since)
    }

    /// How long between two instants a worker could do what was to be done: it was not lost, did not stand, and waited for none of
    /// these.
    pub fn free(&self, worker: WorkerId, places: &[Place], from: Timestamp, to: Timestamp) -> Duration {
        let lost = self.lost.get(&worker).into_iter().flatten();
        let mut spans: Vec<Span> = lost.map(|(since, until)| (*since, until.unwrap_or(Timestamp(i64::MAX)))).collect();
        if let Some(books) = self.books.get(&worker) {
            spans.extend(places.iter().flat_map(|place| books.spans(*place)));
        }
        outside(spans, from, to)
    }

    /// Takes something that happened into the trace.
    pub fn follow(&mut self, what: u64) {
        self.trace = mix(self.trace ^ what);
    }

    /// The first thing that should never have arrived, as an error.
    pub fn nothing_wrong(&self) -> Result<(), String> {
        self.wrong.first().map_or(Ok(()), |wrong| Err(wrong.clone()))
    }
}
