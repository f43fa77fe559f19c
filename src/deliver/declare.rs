//! Declaring a window: loads its recipients, checks what the law and the operator ask for, and begins the
//! declare, behind which the window runs (`declaring`).

use std::time::Duration;

use super::declaring::Declaring;
use super::followed::Followed;
use super::lane::{Changed, Lane};
use super::readings::Reading;
use super::turns::Turn;
use super::window::Job;
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::batch::SmsBatch;
use crate::model::code::Code;
use crate::model::id::WindowKey;
use crate::model::lane::mix;
use crate::model::ledger::{Leg, OpenWindow};
use crate::model::limits::SEND_BY;
use crate::model::outgoing::outgoing;
use crate::model::pack::Message;
use crate::model::schedule::LateStart;
use crate::model::time::Timestamp;
use crate::model::window::{Answered, RetryEntry};
use crate::ports::StoreError;
use crate::ports::clock::Clock;
use crate::ports::provider::Submit;
use crate::runtime::mutation::{self, Bug};

/// How long a lane is left alone whose recipients could not be read just now.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What came of a turn.
pub(super) enum Declared {
    /// A window with this name, which runs.
    Window(u64),
    /// Nothing could be declared now.
    Nothing,
    /// The ledger refused.
    Refused,
    /// The lane is somebody else's, or nobody can tell.
    Lost,
}

/// Declares the next recipients of a lane for the account of a turn. The window runs as soon as that is stored.
pub(super) async fn declare(lane: &mut Lane, reading: Reading, turn: Turn) -> Result<Declared, StoreError> {
    let ctx = lane.ctx.clone();
    let (declared, declared_at) = (ctx.world.clock.boot(), ctx.world.clock.now());
    let Some(route) = ctx.routes.get(&turn.account).cloned() else {
        return Err(StoreError::Corrupt(format!("account {} is not configured", turn.account)));
    };
    let batch = &reading.row.batch;
    let late = is_too_late(batch, declared_at);
    // A turn that was taken to say that it is too late hands nobody over, should the clock have been set back since.
    if !late && (turn.is_to_expire || !within_hours(&*ctx.world.clock, batch, declared_at)) {
        return Ok(Declared::Nothing);
    }
    let goes_here = |leg: &Leg| late || ctx.turns.only(&batch.provider_type, leg).is_none_or(|only| only == turn.account);
    let Ok(leg) = lane.held.row.next_leg_of(declared_at, goes_here).cloned() else { return Ok(Declared::Nothing) };
    let (from, to) = (leg.declared, leg.len.min(leg.declared.saturating_add(turn.size)));
    let loading = async {
        let entries = lane.loader.entries(leg.id, from, to).await?;
        let prepared = match late {
            true => Prepared::expired(&entries),
            false => prepare(lane, &reading.row.batch, &route.account, &entries, &leg).await?,
        };
        Ok((entries, prepared))
    };
    let (entries, mut prepared) = match loading.await {
        Ok(loaded) => loaded,
        // Nothing was declared. Others declare meanwhile, and this lane in a moment: nothing is wrong with it.
        Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
            drop(turn);
            tokio::time::sleep(LOOK_AGAIN).await;
            return Ok(Declared::Nothing);
        }
        Err(error) => return Err(error),
    };
    let window = OpenWindow {
        window: 0,
        leg: leg.id,
        from,
        to,
        account: route.account.name.clone(),
        declarer: ctx.worker,
        declared_at,
        send_by: declared_at.plus(if mutation::is_on(Bug::StretchWindows) { Duration::from_secs(3_600) } else { SEND_BY }),
    };
    let send_by = if mutation::is_on(Bug::NoSendBy) { Duration::MAX } else { declared + SEND_BY };
    if mutation::is_on(Bug::SendBeforeDeclare) {
        send_before(lane, &window, &entries, &mut prepared, declared).await?;
    }
    let under_way = Declaring {
        ctx,
        route,
        lane: lane.key,
        number: lane.task.number,
        reading,
        turn,
        window,
        // Only a batch that is followed has a trace.
        packs: lane.trace.map(|_| lane.loader.packs_of(&entries)).unwrap_or_default(),
        entries,
        prepared,
        declared,
        send_by,
        trace: lane.trace,
        halt: lane.halt.clone(),
        ended: lane.ended.clone(),
    };
    let heard = under_way.begin(lane.held.clone());
    // Its task ends without a word only when the process does.
    let Ok(told) = heard.await else { return Ok(Declared::Lost) };
    match lane.took(told.changing)? {
        Changed::Done => Ok(Declared::Window(lane.held.version)),
        _ if told.stale => Ok(Declared::Nothing),
        Changed::Refused => Ok(Declared::Refused),
        Changed::Lost => Ok(Declared::Lost),
    }
}

/// What [`Bug::SendBeforeDeclare`] does: the window runs now, and its answers are there when it is declared.
async fn send_before(
    lane: &Lane,
    window: &OpenWindow,
    entries: &[RetryEntry],
    prepared: &mut Prepared,
    declared: Duration,
) -> Result<(), StoreError> {
    let Some(route) = lane.ctx.routes.get(&window.account).cloned() else { return Ok(()) };
    let window = OpenWindow { window: lane.held.version + 1, ..window.clone() };
    let key = WindowKey { lane: lane.key, window: window.window };
    let job = Job {
        key,
        followed: Followed::begin(key, &window, entries, Default::default(), None, Duration::ZERO),
        window,
        entries: entries.to_vec(),
        submits: std::mem::take(&mut prepared.submits),
        local: std::mem::take(&mut prepared.local),
        declared,
        send_by: declared + SEND_BY,
        hours: None,
        stop: lane.halt.clone(),
    };
    prepared.local = super::window::run(lane.ctx.clone(), route, job).await?.answers;
    Ok(())
}

/// An answer that needs no account, to the first part that was asked for: it must not look as if the message had only this one.
fn local(entry: &RetryEntry, answer: Answer) -> Answered {
    let (part, parts) = match entry.parts {
        0 => (0, 1),
        asked => (asked.trailing_zeros() as u8, 32 - asked.leading_zeros() as u8),
    };
    Answered { seq: entry.seq, part, parts, answer }
}

/// What a window hands over, and what it need not.
#[derive(Default)]
pub(super) struct Prepared {
    /// Ascending by recipient, each with its segments.
    pub(super) submits: Vec<(Submit, u32)>,
    /// Answers that need no account.
    pub(super) local: Vec<Answered>,
}

impl Prepared {
    /// Of a window whose time is over: its batch's validity has ended.
    fn expired(entries: &[RetryEntry]) -> Prepared {
        let local = entries.iter().map(|entry| local(entry, Answer::Expired)).collect();
        Prepared { local, ..Prepared::default() }
    }
}

async fn prepare(
    lane: &mut Lane,
    batch: &SmsBatch,
    account: &Account,
    entries: &[RetryEntry],
    leg: &Leg,
) -> Result<Prepared, StoreError> {
    let mut prepared = Prepared { submits: Vec::with_capacity(entries.len()), local: Vec::new() };
    let mut messages = Vec::with_capacity(entries.len());
    // Asked for after the batch was read: whatever is declared later after an erasure than both readings may be old knows of it.
    let erasures = lane.ctx.erasures.get(&lane.ctx.stores).await?;
    lane.loader.believe(erasures);
    let is_elsewhere = leg.foreign || leg.account.as_ref().is_some_and(|taker| *taker != account.name);
    for entry in entries {
        if is_elsewhere && entry.parts != 0 {
            // Another account splits the text otherwise, and a handset could not put the parts of two together.
            let code = Code::PartiallySent;
            let detail = "the other parts went through another account".into();
            prepared.local.push(local(entry, Answer::Failed { code, detail }));
            continue;
        }
        match lane.loader.message(entry.seq).await? {
            // The person is not to be known any more, so nothing can be sent.
            Ok(message) if message.number.is_erased() => prepared.local.push(local(entry, Answer::Suppressed)),
            Ok(message) => messages.push((*entry, message)),
            Err(code) => prepared.local.push(local(entry, Answer::Failed { code, detail: "".into() })),
        }
    }
    let numbers: Vec<_> = messages.iter().map(|(_, message)| message.number).collect();
    let mut suppressed = lane.ctx.stores.suppressions.check(&numbers).await?;
    if mutation::is_on(Bug::NoSuppression) {
        suppressed.fill(false);
    }
    for ((entry, message), suppressed) in messages.into_iter().zip(suppressed) {
        if suppressed {
            prepared.local.push(local(&entry, Answer::Suppressed));
            continue;
        }
        match submit(lane, batch, account, entry, message) {
            Ok(submit) => prepared.submits.push(submit),
            Err((code, detail)) => prepared.local.push(local(&entry, Answer::Failed { code, detail: detail.into() })),
        }
    }
    Ok(prepared)
}

/// Whether whoever is declared at `at` has expired.
pub(super) fn is_too_late(batch: &SmsBatch, at: Timestamp) -> bool {
    batch.late_start != LateStart::Send && batch.not_after.is_some_and(|limit| at > limit)
}

/// Whether the batch's own hours allow sending at `at`. A zone that nobody knows allows nothing.
pub(super) fn within_hours(clock: &dyn Clock, batch: &SmsBatch, at: Timestamp) -> bool {
    batch.hours.as_ref().is_none_or(|hours| clock.minute_of_day(&hours.zone, at).is_some_and(|minute| hours.allow(minute)))
}

/// The message as this account sends it, and the segments it will bill.
fn submit(
    lane: &Lane,
    batch: &SmsBatch,
    account: &Account,
    entry: RetryEntry,
    message: Message,
) -> Result<(Submit, u32), (Code, &'static str)> {
    let made = outgoing(batch, &account.capabilities, &message, entry.parts)?;
    let place = (u64::from(lane.key.lane) << 32) | u64::from(entry.seq);
    let submit = Submit {
        seq: entry.seq,
        number: message.number,
        ext_code: batch.ext_code.clone(),
        text: made.text,
        parts: made.parts,
        reference: mix(place ^ lane.key.batch.0 as u64) as u16,
        key: format!("{}-{}-{}-{}", lane.key.batch, lane.key.lane, entry.seq, entry.round),
    };
    Ok((submit, made.segments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::{Fold, Outcome};

    #[test]
    fn whoever_got_a_part_and_no_more_did_not_get_the_message() {
        for answer in [Answer::Suppressed, Answer::Expired, Answer::Failed { code: Code::PartiallySent, detail: "".into() }] {
            let mut fold = Fold::default();
            fold.answer(&Answered { seq: 0, part: 0, parts: 3, answer: Answer::Accepted { id: "1".into() } });
            fold.answer(&local(&RetryEntry { seq: 0, tries: 0, parts: 0b110, round: 0 }, answer));
            assert_eq!(fold.outcome(false), (Outcome::Failed, Some(Code::PartiallySent)));
        }
    }
}
