//! Declaring a window: loads its recipients, checks what the law and the operator ask for, stores the declare, and only then
//! makes the window ready to run.

use super::lane::Lane;
use super::readings::Reading;
use super::turns::Turn;
use super::window::Job;
use crate::model::account::{Account, LongMessage};
use crate::model::answer::Answer;
use crate::model::batch::SmsBatch;
use crate::model::code::Code;
use crate::model::id::WindowKey;
use crate::model::lane::mix;
use crate::model::ledger::{LedgerRefusal, OpenWindow};
use crate::model::limits::SEND_BY;
use crate::model::pack::Message;
use crate::model::schedule::LateStart;
use crate::model::text::{compose, split};
use crate::model::window::{Answered, RetryEntry};
use crate::ports::StoreError;
use crate::ports::provider::Submit;
use crate::runtime::{erased, metrics};

/// What came of a turn.
pub(super) enum Declared {
    /// A window, declared, ready to run.
    Window(Box<Job>),
    /// Nothing could be declared now.
    Nothing,
    /// The lane is somebody else's.
    Lost,
}

/// Declares the next recipients of a lane for the account of a turn.
pub(super) async fn declare(lane: &mut Lane, reading: &Reading, turn: &Turn) -> Result<Declared, StoreError> {
    let ctx = lane.ctx.clone();
    let (declared, declared_at) = (ctx.world.clock.boot(), ctx.world.clock.now());
    let Some(account) = ctx.routes.get(&turn.account).map(|route| route.account.clone()) else { return Ok(Declared::Nothing) };
    let Ok(leg) = lane.held.row.next_leg(declared_at).cloned() else { return Ok(Declared::Nothing) };
    let (from, to) = (leg.declared, leg.len.min(leg.declared.saturating_add(turn.size)));
    let entries = lane.loader.entries(leg.id, from, to).await?;
    let prepared = prepare(lane, &reading.row.batch, &account, &entries).await?;
    let mut window = OpenWindow {
        window: 0,
        leg: leg.id,
        from,
        to,
        account: account.name.clone(),
        declarer: ctx.worker,
        declared_at,
        send_by: declared_at.plus(SEND_BY),
    };
    // Loading may have taken long: the promise of a pause rests on the reading's age at the moment of the declare.
    let (clock, number, mut stale) = (ctx.world.clock.clone(), lane.task.number, false);
    let applied = lane
        .change(|current| {
            stale = !reading.is_fresh(&*clock);
            if stale {
                return Err(LedgerRefusal::OutOfDate);
            }
            window.window = current.version + 1;
            current.row.declare(window.clone(), number, clock.now())
        })
        .await?;
    if !applied {
        return Ok(if stale { Declared::Nothing } else { Declared::Lost });
    }
    window.window = lane.held.version;
    metrics::count(&metrics::DELIVER_WINDOWS, &["declared"], 1);
    Ok(Declared::Window(Box::new(Job {
        key: WindowKey { lane: lane.key, window: window.window },
        window,
        entries,
        submits: prepared.submits,
        local: prepared.local,
        declared,
        send_by: declared + SEND_BY,
        stop: lane.halt.clone(),
    })))
}

#[derive(Default)]
struct Prepared {
    submits: Vec<(Submit, u32)>,
    local: Vec<Answered>,
}

async fn prepare(lane: &mut Lane, batch: &SmsBatch, account: &Account, entries: &[RetryEntry]) -> Result<Prepared, StoreError> {
    let mut prepared = Prepared { submits: Vec::with_capacity(entries.len()), local: Vec::new() };
    let local = |seq, answer| Answered { seq, part: 0, parts: 1, answer };
    let too_late = batch.late_start != LateStart::Send && batch.not_after.is_some_and(|limit| lane.ctx.world.clock.now() > limit);
    if too_late {
        prepared.local = entries.iter().map(|entry| local(entry.seq, Answer::Expired)).collect();
        return Ok(prepared);
    }
    let mut messages = Vec::with_capacity(entries.len());
    // Read after the batch was: whatever is declared more than a reading's age after an erasure knows of it.
    lane.loader.believe(erased::mark(&lane.ctx.stores).await?);
    for entry in entries {
        match lane.loader.message(entry.seq).await? {
            // The person is not to be known any more, so nothing can be sent.
            Ok(message) if message.number.is_erased() => prepared.local.push(local(entry.seq, Answer::Suppressed)),
            Ok(message) => messages.push((*entry, message)),
            Err(code) => prepared.local.push(local(entry.seq, Answer::Failed { code, detail: "".into() })),
        }
    }
    let numbers: Vec<_> = messages.iter().map(|(_, message)| message.number).collect();
    let suppressed = lane.ctx.stores.suppressions.check(&numbers).await?;
    for ((entry, message), suppressed) in messages.into_iter().zip(suppressed) {
        if suppressed {
            prepared.local.push(local(entry.seq, Answer::Suppressed));
            continue;
        }
        match submit(lane, batch, account, entry, message) {
            Ok(submit) => prepared.submits.push(submit),
            Err((code, detail)) => prepared.local.push(local(entry.seq, Answer::Failed { code, detail: detail.into() })),
        }
    }
    Ok(prepared)
}

/// The message as this account sends it, and the segments it will bill.
fn submit(
    lane: &Lane,
    batch: &SmsBatch,
    account: &Account,
    entry: RetryEntry,
    message: Message,
) -> Result<(Submit, u32), (Code, &'static str)> {
    let can = &account.capabilities;
    if message.link.is_some() && !can.links {
        return Err((Code::RowLinkForbidden, "no link per recipient"));
    }
    if batch.ext_code.len() > usize::from(can.ext_code_max) {
        return Err((Code::NotEncodable, "ext_code too long"));
    }
    let link = message.link.as_ref().map(|spot| (spot, batch.link_base.as_str()));
    let text = compose(&message.body, link, &batch.content_signature, can.add_signature);
    let split = split(&text, can.long_message);
    if split.parts > can.parts_max {
        return Err((Code::NotEncodable, "too many parts"));
    }
    let segments = if entry.parts == 0 || can.long_message == LongMessage::Payload {
        u32::from(split.parts)
    } else {
        entry.parts.count_ones()
    };
    let place = (u64::from(lane.key.lane) << 32) | u64::from(entry.seq);
    let submit = Submit {
        seq: entry.seq,
        number: message.number,
        ext_code: batch.ext_code.clone(),
        text,
        parts: if can.long_message == LongMessage::Payload { 0 } else { entry.parts },
        reference: mix(place ^ lane.key.batch.0 as u64) as u16,
        key: format!("{}-{}-{}-{}", lane.key.batch, lane.key.lane, entry.seq, entry.round),
    };
    Ok((submit, segments.max(1)))
}
