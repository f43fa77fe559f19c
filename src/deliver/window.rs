//! One window: hands its recipients over at the account's pace, gathers the answers and makes them durable.
//!
//! Runs only after the declare was applied, and writes its row whoever owns the lane by then: a replaced owner's answers,
//! however late, still count.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::context::Delivery;
use super::counts::{self, Chunks};
use super::followed::Followed;
use crate::model::answer::{Answer, NotNow};
use crate::model::id::{Msisdn, RecipientKey, WindowKey};
use crate::model::idform::canonical;
use crate::model::ledger::OpenWindow;
use crate::model::limits::ANSWER_FLUSH;
use crate::model::schedule::SendingHours;
use crate::model::state::StepState;
use crate::model::time::Timestamp;
use crate::model::window::{Answered, Next, RetryEntry, WindowRow, all_parts, gave_up, next_try};
use crate::ports::StoreError;
use crate::ports::provider::{Chunk, Route, Submit};
use crate::ports::rates::Grant;
use crate::ports::receipts::{IndexEntry, PartKey, UncertainEntry};
use crate::runtime::handed;
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::{Schedule, store};

/// A declared window, ready to run.
pub struct Job {
    /// Its name.
    pub key: WindowKey,
    /// Its spans.
    pub followed: Followed,
    /// As it was declared.
    pub window: OpenWindow,
    /// Its recipients, ascending.
    pub entries: Vec<RetryEntry>,
    /// What is handed over, ascending by recipient, each with its segments.
    pub submits: Vec<(Submit, u32)>,
    /// Answers that need no account: suppressed, expired, damaged.
    pub local: Vec<Answered>,
    /// On the boot clock.
    pub declared: Duration,
    /// On the boot clock: nothing is handed over later.
    pub send_by: Duration,
    /// The batch's own hours, looked at once more at each hand-over: what breaks them is counted, and must be nothing.
    pub hours: Option<SendingHours>,
    /// Cancelled when what was not handed over must go back.
    pub stop: CancellationToken,
}

/// A window whose every recipient has an answer, durably.
pub struct Ended {
    /// As it was declared.
    pub window: OpenWindow,
    /// Its recipients.
    pub entries: Vec<RetryEntry>,
    /// Their answers.
    pub answers: Vec<Answered>,
    /// When the last of it was handed over; `None` when nothing was.
    pub handed: Option<Timestamp>,
}

/// What the answers of a window need to know of each recipient.
struct Recipients {
    /// Ascending by place: number and segments.
    rows: Vec<(u32, Msisdn, u32)>,
}

impl Recipients {
    fn get(&self, seq: u32) -> Option<(Msisdn, u32)> {
        self.rows.binary_search_by_key(&seq, |row| row.0).ok().map(|at| (self.rows[at].1, self.rows[at].2))
    }
}

/// Runs a window to its end.
pub async fn run(ctx: Arc<Delivery>, route: Route, job: Job) -> Result<Ended, StoreError> {
    let Job { key, followed, window, entries, submits, local, declared, send_by, hours, stop } = job;
    let recipients =
        Recipients { rows: submits.iter().map(|(submit, segments)| (submit.seq, submit.number, *segments)).collect() };
    let (sender, mut answers_in) = mpsc::unbounded_channel();
    let chunks = Chunks::default();
    let limits = HandOver { send_by, hours, stop, followed: &followed, chunks: &chunks };
    let feeding = feed(&ctx, &route, submits, limits, sender);
    counts::answers(&window.account, &local);
    if window.leg == 0 {
        handed::note(key.lane, window.from, window.to, window.declared_at);
    }
    let mut row = WindowRow { window: window.clone(), answers: local, complete: false };
    let gathering = gather(&ctx, &route, key, &mut row, (&recipients, &entries), (&followed, &chunks), &mut answers_in);
    let (handed, indexed) = tokio::join!(feeding, gathering);

    let took = ctx.world.clock.boot().saturating_sub(declared);
    ctx.turns.closed(&window.account, window.len());
    metrics::observe(&metrics::DELIVER_WINDOW_LATENCY, &[&window.account], took);
    metrics::count(&metrics::DELIVER_WINDOWS, &["closed"], 1);
    metrics::count(&metrics::DELIVER_RECIPIENTS, &[&window.account], u64::from(window.len()));

    let given = row.answers.len();
    fill_silence(&entries, &recipients, &mut row.answers);
    drop_answers(&ctx, key, &mut row.answers).await?;
    counts::answers(&window.account, &row.answers[given..]);
    row.complete = true;
    let index = index_entries(&window.account, key, &recipients, &row.answers[indexed.min(row.answers.len())..]);
    let uncertain = uncertain_entries(&window, key, &recipients, &row.answers);
    if !uncertain.is_empty() && !mutation::is_on(Bug::ForgetDoubted) {
        store(forever(&ctx), || ctx.stores.receipt_index.put_uncertain(uncertain.clone())).await?;
    }
    if !(mutation::is_on(Bug::ConditionalAnswers) && was_replaced(&ctx, &window, key).await?) {
        store(forever(&ctx), || ctx.stores.windows.put(key, &row, index.clone())).await?;
    }
    count(&ctx, key, &row.answers);
    followed.end(&row.answers);
    let handed = handed.filter(|_| is_touched(&row.answers));
    Ok(Ended { window, entries, answers: row.answers, handed })
}

/// What [`Bug::DropAnswersWhenPaused`] does.
async fn drop_answers(ctx: &Delivery, key: WindowKey, answers: &mut [Answered]) -> Result<(), StoreError> {
    if !mutation::is_on(Bug::DropAnswersWhenPaused) {
        return Ok(());
    }
    let row = ctx.stores.batches.load(key.lane.batch).await?;
    if row.is_some_and(|row| row.row.step().state == StepState::Paused) {
        let taken = answers.iter_mut().filter(|answered| matches!(answered.answer, Answer::Accepted { .. }));
        taken.for_each(|answered| answered.answer = Answer::NoAnswer);
    }
    Ok(())
}

/// What [`Bug::ConditionalAnswers`] asks for.
async fn was_replaced(ctx: &Delivery, window: &OpenWindow, key: WindowKey) -> Result<bool, StoreError> {
    let ledger = ctx.stores.ledgers.load(key.lane).await?;
    Ok(ledger.is_none_or(|ledger| ledger.row.owner != window.declarer))
}

/// Waits for as long as it takes: a window's answers are the only place where its truth is.
pub(super) fn forever(ctx: &Delivery) -> Schedule {
    Schedule::new(Duration::from_millis(20), Duration::from_secs(2), ctx.world.chance.next())
}

/// Whether anything of a window was handed over, by what its answers say.
pub(super) fn is_touched(answers: &[Answered]) -> bool {
    let here = |answer: &Answer| matches!(answer, Answer::NotSent | Answer::Suppressed | Answer::Expired);
    answers.iter().any(|answered| !here(&answered.answer))
}

/// What a window's hand-over keeps to, and who hears of it.
struct HandOver<'a> {
    send_by: Duration,
    hours: Option<SendingHours>,
    stop: CancellationToken,
    followed: &'a Followed,
    chunks: &'a Chunks,
}

/// Hands messages over in chunks as the governor grants them, until all are, or the time is up, or somebody says stop.
/// Returns when the account took the last of them.
async fn feed(
    ctx: &Delivery,
    route: &Route,
    submits: Vec<(Submit, u32)>,
    limits: HandOver<'_>,
    answers: mpsc::UnboundedSender<Vec<Answered>>,
) -> Option<Timestamp> {
    let HandOver { send_by, hours, stop, followed, chunks } = limits;
    let mut handed = None;
    let account = &route.account.name;
    let clock = &ctx.world.clock;
    let mut left: VecDeque<(Submit, u32)> = submits.into();
    let mut credit = 0u32;
    while !left.is_empty() && !stop.is_cancelled() && clock.boot() <= send_by {
        let want: u64 = left.iter().map(|(_, segments)| u64::from(*segments)).sum();
        match ctx.rates.take(account, want.min(u64::from(u32::MAX)) as u32, clock.boot()) {
            Grant::Wait(wait) => {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                continue;
            }
            Grant::Take(granted) => credit += granted,
        }
        let (mut messages, mut taken) = (Vec::new(), 0);
        while left.front().is_some_and(|(_, segments)| *segments <= credit) {
            if let Some((submit, segments)) = left.pop_front() {
                credit -= segments;
                taken += u64::from(segments);
                messages.push(submit);
            }
        }
        if messages.is_empty() {
            continue;
        }
        // Its span ends when the account has taken it.
        let _span = followed.chunk(&messages);
        chunks.begins(messages[0].seq, clock.boot());
        let count = messages.len() as u64;
        let chunk = Chunk { messages, send_by, stop: stop.clone(), answers: answers.clone() };
        match route.provider.submit(chunk).await {
            Ok(()) => {
                handed = Some(clock.now());
                metrics::count(&metrics::DELIVER_SEGMENTS, &[account], taken);
                if counts::is_outside(&**clock, [route.account.hours.as_ref(), hours.as_ref()]) {
                    tracing::error!(account, messages = count, "messages were handed over outside the hours");
                    metrics::count(&metrics::DELIVER_OUTSIDE_HOURS, &[account], count);
                }
            }
            Err(chunk) => {
                let _ = answers.send(chunk.messages.iter().flat_map(not_sent).collect());
            }
        }
    }
    if credit > 0 {
        ctx.rates.give_back(account, credit);
    }
    if !left.is_empty() {
        let _ = answers.send(left.iter().flat_map(|(submit, _)| not_sent(submit)).collect());
    }
    handed
}

/// "It was never handed over", for each part that was asked for.
fn not_sent(submit: &Submit) -> Vec<Answered> {
    let (parts, asked) = if submit.parts == 0 { (1, 1) } else { (32 - submit.parts.leading_zeros() as u8, submit.parts) };
    (0..parts)
        .filter(|part| asked & (1 << part) != 0)
        .map(|part| Answered { seq: submit.seq, part, parts, answer: Answer::NotSent })
        .collect()
}

/// Takes in answers until the last chunk has given all of its own; makes them durable at short intervals. Returns how many
/// of the row's answers are durable and in the index.
async fn gather(
    ctx: &Delivery,
    route: &Route,
    key: WindowKey,
    row: &mut WindowRow,
    (recipients, entries): (&Recipients, &[RetryEntry]),
    (followed, chunks): (&Followed, &Chunks),
    answers_in: &mut mpsc::UnboundedReceiver<Vec<Answered>>,
) -> usize {
    let account = &route.account.name;
    let mut durable = 0;
    let mut flush = tokio::time::interval(ANSWER_FLUSH);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    flush.tick().await;
    loop {
        tokio::select! {
            biased;
            batch = answers_in.recv() => {
                let Some(mut batch) = batch else { return durable };
                let (mut others, mut throttled) = (0, 0);
                for answered in &batch {
                    let segments = recipients.get(answered.seq).map_or(1, |(_, segments)| segments / u32::from(answered.parts.max(1))).max(1);
                    match &answered.answer {
                        Answer::NotNow { kind: NotNow::Throttled, .. } => throttled += segments,
                        _ => others += segments,
                    }
                }
                counts::answers(account, &batch);
                chunks.answered(account, &batch, ctx.world.clock.boot());
                ctx.rates.answered(account, others, throttled, ctx.world.clock.boot());
                followed.answered(&batch);
                // Before it is stored: should this process die now, nobody follows the last "not now" with another try.
                end_tries(entries, &mut batch);
                row.answers.extend(batch);
            }
            _ = flush.tick() => {
                if row.answers.len() > durable {
                    let index = index_entries(account, key, recipients, &row.answers[durable..]);
                    // A failure is no loss: the answers are still here, and the last write waits for as long as it takes.
                    match ctx.stores.windows.put(key, row, index).await {
                        Ok(()) => durable = row.answers.len(),
                        Err(error) => tracing::warn!(code = %error.code(), lane = %key.lane, "answers of an open window are not durable yet"),
                    }
                }
            }
        }
    }
}

/// Turns the last "not now" of a recipient that was tried often enough into its failure.
fn end_tries(entries: &[RetryEntry], answers: &mut [Answered]) {
    for answered in answers.iter_mut() {
        if !matches!(answered.answer, Answer::NotNow { .. }) {
            continue;
        }
        let tries = entries.binary_search_by_key(&answered.seq, |entry| entry.seq).map_or(0, |at| entries[at].tries);
        if next_try(&answered.answer, tries) == Next::GiveUp || mutation::is_on(Bug::FailNotNow) {
            answered.answer = gave_up(&answered.answer);
        }
    }
}

/// Writes down which parts have no answer although the account gave all it had: one that kept silent leaves its recipients
/// uncertain, never unmentioned. A row that says it is complete has an answer for everything that was handed over.
fn fill_silence(entries: &[RetryEntry], recipients: &Recipients, answers: &mut Vec<Answered>) {
    let mut given: BTreeMap<u32, (u8, u32)> = BTreeMap::new();
    for answered in answers.iter() {
        let (parts, seen) = given.entry(answered.seq).or_insert((answered.parts, 0));
        *parts = (*parts).max(answered.parts);
        *seen |= 1 << answered.part;
    }
    for entry in entries.iter().filter(|entry| recipients.get(entry.seq).is_some()) {
        let (parts, seen) = given.get(&entry.seq).copied().unwrap_or((1, 0));
        let asked = if entry.parts == 0 { all_parts(parts) } else { entry.parts };
        for part in (0..32u8).filter(|part| asked & !seen & (1 << part) != 0) {
            answers.push(Answered { seq: entry.seq, part, parts: parts.max(part + 1), answer: Answer::NoAnswer });
        }
    }
}

fn part_of(key: WindowKey, answered: &Answered) -> PartKey {
    PartKey { recipient: RecipientKey { lane: key.lane, seq: answered.seq }, part: answered.part }
}

fn index_entries(account: &str, key: WindowKey, recipients: &Recipients, answers: &[Answered]) -> Vec<IndexEntry> {
    let mut entries = Vec::with_capacity(answers.len());
    if mutation::is_on(Bug::NoIndex) {
        return entries;
    }
    for answered in answers {
        if let Answer::Accepted { id } = &answered.answer
            && !id.is_empty()
            && let Some((number, _)) = recipients.get(answered.seq)
        {
            entries.push(IndexEntry {
                account: account.to_owned(),
                message_id: canonical(id),
                number,
                part: part_of(key, answered),
            });
        }
    }
    entries
}

fn uncertain_entries(window: &OpenWindow, key: WindowKey, recipients: &Recipients, answers: &[Answered]) -> Vec<UncertainEntry> {
    let unanswered = answers.iter().filter(|answered| answered.answer == Answer::NoAnswer);
    unanswered
        .filter_map(|answered| {
            let (number, _) = recipients.get(answered.seq)?;
            let (account, declared_at) = (window.account.clone(), window.declared_at);
            Some(UncertainEntry { account, number, part: part_of(key, answered), declared_at })
        })
        .collect()
}

fn count(ctx: &Delivery, key: WindowKey, answers: &[Answered]) {
    let last_part = |answered: &&Answered| answered.part + 1 == answered.parts;
    let accepted = answers.iter().filter(last_part).filter(|a| matches!(a.answer, Answer::Accepted { .. })).count();
    let failed = answers.iter().filter(last_part).filter(|a| matches!(a.answer, Answer::Failed { .. })).count();
    ctx.tallies.increase_delivery_batch_num(key.lane.batch, accepted as u64, failed as u64);
}
