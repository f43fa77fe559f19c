//! Windows that another life left open: read their answers, wait until nobody can hand anything over any more, then judge
//! who was never answered.

use std::collections::BTreeSet;
use std::time::Duration;

use super::context::Delivery;
use super::loader::Loader;
use super::window::{Ended, forever, is_touched};
use crate::model::answer::Answer;
use crate::model::id::{LaneKey, Msisdn, RecipientKey, WindowKey};
use crate::model::ledger::OpenWindow;
use crate::model::limits::SEND_BY;
use crate::model::window::{Answered, Judgement, RetryEntry, all_parts};
use crate::ports::StoreError;
use crate::ports::receipts::{ParkedReport, PartKey, UncertainEntry};
use crate::runtime::metrics;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::store;

/// Reports that stayed unmatched, read at once and in all when a window is judged.
const UNMATCHED_PAGE: usize = 1_000;
const UNMATCHED_MOST: usize = 20_000;

/// How long after it was first seen a foreign window may be judged: its declarer may hand over until its send-by limit, and
/// an answer may take the account's time. Counted on the judge's own clock.
pub fn ripe_after(ctx: &Delivery, window: &OpenWindow) -> Duration {
    if mutation::is_on(Bug::JudgeEarly) {
        return Duration::from_secs(1);
    }
    let answer = ctx.routes.get(&window.account).map_or(Duration::from_secs(60), |route| route.account.answer_timeout);
    SEND_BY + answer + Duration::from_millis(500)
}

/// A foreign window as ended, if its declarer completed it, or if it is ripe. Who has no answer then is written down.
pub async fn judge(
    ctx: &Delivery,
    lane: LaneKey,
    window: &OpenWindow,
    loader: &mut Loader,
    ripe: bool,
) -> Result<Option<Ended>, StoreError> {
    let key = WindowKey { lane, window: window.window };
    let stored = store(forever(ctx), || ctx.stores.windows.get(key)).await?;
    let row = stored.and_then(|stored| stored.row).filter(|row| row.window.declarer == window.declarer);
    let complete = row.as_ref().is_some_and(|row| row.complete) || mutation::is_on(Bug::CloseUnjudged);
    if !complete && !ripe {
        return Ok(None);
    }
    let entries = loader.entries(window.leg, window.from, window.to).await?;
    let answers = row.map(|row| row.answers).unwrap_or_default();
    if !complete {
        let (unanswered, doubted) = unanswered(&entries, &answers);
        tracing::warn!(%lane, window = window.window, recipients = unanswered.len(), "a window was left without answers");
        metrics::count(&metrics::DELIVER_WINDOWS, &["judged"], 1);
        let mut uncertain = Vec::new();
        for seq in &doubted {
            if let Ok(message) = loader.message(*seq).await?
                && !message.number.is_erased()
            {
                let part = PartKey { recipient: RecipientKey { lane, seq: *seq }, part: 0 };
                let (account, declared_at) = (window.account.clone(), window.declared_at);
                uncertain.push(UncertainEntry { account, number: message.number, part, declared_at });
            }
        }
        if !mutation::is_on(Bug::ForgetDoubted) {
            store(forever(ctx), || ctx.stores.receipt_index.put_uncertain(uncertain.clone())).await?;
        }
        revive(ctx, &uncertain).await?;
        let judgement = Judgement { window: window.clone(), judged_at: ctx.world.clock.now(), unanswered };
        store(forever(ctx), || ctx.stores.windows.put_judgement(key, &judgement)).await?;
    }
    // Only its declarer knew when: it was before the limit, and is past.
    let handed = (!complete || is_touched(&answers)).then(|| window.send_by.min(ctx.world.clock.now()));
    Ok(Some(Ended { window: window.clone(), entries, answers, handed }))
}

/// Has reports looked at once more that were given up on and may be about people who are in doubt from now on: a paused batch may be
/// judged later than receipts are waited for.
async fn revive(ctx: &Delivery, uncertain: &[UncertainEntry]) -> Result<(), StoreError> {
    let numbers: BTreeSet<Msisdn> = uncertain.iter().map(|entry| entry.number).collect();
    let (mut behind, mut seen) = (None, 0);
    while !numbers.is_empty() && seen < UNMATCHED_MOST {
        let page = store(forever(ctx), || ctx.stores.parked.unmatched(behind, UNMATCHED_PAGE)).await?;
        let Some(last) = page.last() else { break };
        (behind, seen) = (Some(last.id), seen + page.len());
        let now = Some(ctx.world.clock.now());
        let theirs = page.into_iter().filter(|parked| parked.report.number.is_some_and(|number| numbers.contains(&number)));
        let again: Vec<ParkedReport> = theirs.map(|parked| ParkedReport { due: now, ..parked }).collect();
        if !again.is_empty() {
            store(forever(ctx), || ctx.stores.parked.park(again.clone())).await?;
        }
    }
    Ok(())
}

/// Recipients of whom some part that was asked for has no answer; and all of whom some part may have been sent, which a receipt may
/// prove: also whom the account was silent of, or refused a part and left another without an answer. Their declarer would have
/// made them findable when its window ended.
fn unanswered(entries: &[RetryEntry], answers: &[Answered]) -> (Vec<u32>, Vec<u32>) {
    let mut sorted: Vec<&Answered> = answers.iter().collect();
    sorted.sort_by_key(|answered| answered.seq);
    let (mut unanswered, mut doubted) = (Vec::new(), Vec::new());
    for entry in entries {
        let start = sorted.partition_point(|answered| answered.seq < entry.seq);
        let mine = sorted[start..].iter().take_while(|answered| answered.seq == entry.seq);
        let (mut parts, mut seen, mut silent, mut failed, mut kept_back) = (0, 0u32, false, false, false);
        for answered in mine {
            parts = answered.parts;
            seen |= 1 << answered.part;
            silent |= answered.answer == Answer::NoAnswer;
            failed |= matches!(answered.answer, Answer::Failed { .. });
            kept_back |= matches!(answered.answer, Answer::Suppressed | Answer::Expired);
        }
        let asked = if entry.parts == 0 { all_parts(parts) } else { entry.parts };
        let open = parts == 0 || asked & !seen != 0 && !kept_back;
        if open && !failed {
            unanswered.push(entry.seq);
        }
        if open || silent {
            doubted.push(entry.seq);
        }
    }
    (unanswered, doubted)
}
