//! Whoever is in doubt, or was left unsent, was so by something that befell the worker who had declared them, when it counted.
//!
//! The network knows what each worker was told of each part, and when; `books` knows what kept the worker waiting. So it is known of
//! each answer whether it can have been written down: a worker that is not lost, not frozen and waits for nobody does it within
//! [`AT_ONCE`]. What befell it before or later is no excuse.

use std::collections::BTreeSet;
use std::time::Duration;

use smsfleet::model::answer::Answer;
use smsfleet::model::code::Code;
use smsfleet::model::limits::SEND_BY;
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::time::Timestamp;
use smsfleet::statistics::RecipientLine;

use super::books::Place;
use super::known::{Known, Told};
use super::lanes::{Held, Lane};
use super::oracle::digits;
use super::process::{ANSWER_TIMEOUT, Shared};

/// How long a worker takes for what it does at once: answers are written down every fifth of a second.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How long after its declare began a window may be judged, at the earliest.
fn ripe_at(held: &Held) -> Timestamp {
    held.window.declared_at.plus(SEND_BY + ANSWER_TIMEOUT + Duration::from_millis(500))
}

/// Whom the windows of a lane put in doubt, each with its cause: the account kept silent, or the declarer was hindered from writing
/// down what it was told, or from handing over.
pub fn check_windows(shared: &Shared, lane: &Lane) -> Result<BTreeSet<u32>, (u32, String)> {
    let (known, now) = (shared.network.known(), shared.clock.now());
    let mut doubted = BTreeSet::new();
    for held in &lane.windows {
        let checked = if held.is_recovered() {
            check_recovered(&known, lane, held, &mut doubted)
        } else {
            check_silence(&known, lane, held, &mut doubted).and_then(|()| check_judged(&known, lane, held, now, &mut doubted))
        };
        checked.map_err(|(seq, wrong)| (seq, format!("{wrong}: {:?}", held.window)))?;
    }
    Ok(doubted)
}

/// Whoever the list says is in doubt is so by one of the lane's windows.
pub fn check_line(lane: &Lane, doubted: &BTreeSet<u32>, line: &RecipientLine) -> Result<(), String> {
    let place = || digits(line).and_then(|number| lane.place(number));
    if line.outcome != Ends::Uncertain || place().is_some_and(|seq| doubted.contains(&seq)) {
        return Ok(());
    }
    Err(format!("in doubt, though no window says so: {line:?}"))
}

/// What a window's declarer was told of somebody in it.
fn told<'a>(known: &'a Known, lane: &Lane, held: &Held, seq: u32) -> impl Iterator<Item = &'a Told> + use<'a> {
    let all = lane.recipient(seq).and_then(|recipient| known.told.get(&recipient));
    let (from, until) = (held.window.declared_at, lane.until(held, seq));
    let declarer = held.window.declarer;
    all.into_iter().flatten().filter(move |told| told.worker == declarer && told.at >= from && told.at < until)
}

/// Whether a store that was restored is as it was before something happened in a window.
fn is_before_backup(known: &Known, held: &Held) -> Option<Timestamp> {
    known.restored.map(|(taken, _)| taken).filter(|taken| held.window.declared_at <= *taken)
}

/// "No answer" is what the account said, or what a recovery made of "not sent".
fn check_silence(known: &Known, lane: &Lane, held: &Held, doubted: &mut BTreeSet<u32>) -> Result<(), (u32, String)> {
    for answered in held.row.iter().flat_map(|row| &row.answers).filter(|answered| answered.answer == Answer::NoAnswer) {
        let seq = answered.seq;
        doubted.insert(seq);
        let mut mine = told(known, lane, held, seq).filter(|told| told.part == answered.part);
        let is_silent = mine.any(|told| told.answer == Answer::NoAnswer);
        let is_settled = |told: &Told, taken: Timestamp| {
            told.part == answered.part
                && told.at <= taken
                && matches!(told.answer, Answer::Accepted { .. } | Answer::Failed { .. })
        };
        // Whoever was not sent by the time of the backup may have been sent since.
        let may_be_since =
            is_before_backup(known, held).is_some_and(|taken| !told(known, lane, held, seq).any(|told| is_settled(told, taken)));
        // Whoever is told to stop waits no longer than its grace period: what it waited for then, and has not been told, was not
        // answered.
        let waits_until = held.window.send_by.plus(ANSWER_TIMEOUT);
        let is_cut = known.cut.get(&held.window.declarer).is_some_and(|told_at| *told_at <= waits_until)
            && !told(known, lane, held, seq).any(|told| told.part == answered.part);
        if !is_silent && !may_be_since && !is_cut {
            return Err((seq, format!("in doubt, though the account was not silent of part {}", answered.part)));
        }
    }
    Ok(())
}

/// A window is judged when it is ripe; who has no answer in it had none that its declarer could write down.
fn check_judged(
    known: &Known,
    lane: &Lane,
    held: &Held,
    now: Timestamp,
    doubted: &mut BTreeSet<u32>,
) -> Result<(), (u32, String)> {
    let Some(judgement) = &held.judgement else { return Ok(()) };
    if judgement.judged_at < ripe_at(held) {
        return Err((first_of(held), format!("judged too early, at {:?}", judgement.judged_at)));
    }
    // What the declarer wrote behind the backup was lost with the store.
    let until = is_before_backup(known, held).unwrap_or(now);
    let declarer = held.window.declarer;
    for &seq in held.people.keys() {
        let missing: Vec<&Told> = told(known, lane, held, seq).filter(|told| held.bits(seq) & (1 << told.part) == 0).collect();
        let writes = [Place::Answers(held.key), Place::Doubts(lane.key)];
        if let Some(told) = missing.iter().find(|told| known.free(declarer, &writes, told.at, until) > AT_ONCE) {
            return Err((seq, format!("what its worker was told was never written down: {told:?}")));
        }
        let is_judged = judgement.unanswered.contains(&seq) && !held.is_whole(seq);
        let is_partly = held.bits(seq) != 0 && !held.is_whole(seq);
        if is_judged || is_partly {
            doubted.insert(seq);
        }
        // Whoever is not lost runs its windows, and says of everybody in them what became of them.
        let free = known.free(declarer, &all_of(held), held.window.send_by, until);
        // Unless others had judged it before its worker could know that it was declared.
        let (from, ledger) = (held.window.declared_at, Place::Ledger(lane.key));
        let was_known = known.free(declarer, &[ledger], from, judgement.judged_at) > AT_ONCE;
        if is_judged && missing.is_empty() && was_known && free > ANSWER_TIMEOUT + AT_ONCE {
            return Err((seq, format!("in doubt, though its worker was free for {free:?} behind the window's limit")));
        }
    }
    Ok(())
}

/// A recovery puts nobody in doubt whose answers were there.
fn check_recovered(known: &Known, lane: &Lane, held: &Held, doubted: &mut BTreeSet<u32>) -> Result<(), (u32, String)> {
    if known.restored.is_none() {
        return Err((first_of(held), "nobody restored anything".into()));
    }
    doubted.extend(held.people.keys());
    let is_taken = |before: &&Held, seq| {
        let all = before.answers(seq).all(|answered| matches!(answered.answer, Answer::Accepted { .. }));
        all && before.is_whole(seq) && before.window.window < held.window.window
    };
    match held.people.keys().find(|seq| lane.of(**seq).any(|before| is_taken(&before, **seq))) {
        Some(seq) => Err((*seq, "put in doubt by the recovery, though its answers were there".into())),
        None => Ok(()),
    }
}

fn first_of(held: &Held) -> u32 {
    held.people.keys().next().copied().unwrap_or_default()
}

/// All that may keep a worker from running a window.
fn all_of(held: &Held) -> [Place; 4] {
    let lane = held.key.lane;
    [Place::Answers(held.key), Place::Doubts(lane), Place::HandOver(lane), Place::Ledger(lane)]
}

/// Whether somebody was left unsent in a window: it was judged, and its declarer, who could not do so before, said later that they
/// were not handed over (`BatchUnsent`), or were told "not now" (`ProviderTransient`). Nobody tries again behind it.
pub fn was_left(known: &Known, lane: &Lane, seq: u32, code: Code) -> bool {
    let is_meant = |answer: &Answer| match code {
        Code::BatchUnsent => *answer == Answer::NotSent,
        Code::ProviderTransient => matches!(answer, Answer::NotNow { .. }),
        _ => matches!(answer, Answer::NotSent | Answer::NotNow { .. }),
    };
    let is_left = |held: &&Held| {
        let Some(judgement) = &held.judgement else { return false };
        if held.is_recovered() || !judgement.unanswered.contains(&seq) || !held.says(seq, is_meant) {
            return false;
        }
        // Whom the account was never given is known at the window's limit.
        let last = told(known, lane, held, seq).map(|told| told.at).max();
        let all = all_of(held);
        let places = if last.is_some() { &all[..2] } else { &all[..] };
        known.free(held.window.declarer, places, last.unwrap_or(held.window.send_by), ripe_at(held)) <= AT_ONCE
    };
    lane.of(seq).any(|held| is_left(&held))
}
