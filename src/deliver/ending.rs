//! Closing windows that have ended: what counts, who is tried again, and how far `declared` may be lowered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::Delivery;
use super::loader::Loader;
use super::window::{Ended, forever};
use crate::model::answer::Answer;
use crate::model::id::{LaneKey, WorkerId};
use crate::model::ledger::{Closing, Ledger, LedgerRefusal, Leg};
use crate::model::limits::LEGS_MAX;
use crate::model::schedule::groups;
use crate::model::time::Timestamp;
use crate::model::window::{RetryEntry, RetryPack, sort_out};
use crate::ports::StoreError;
use crate::runtime::mutation::{self, Bug};
use crate::runtime::retry::store;

/// How some ended windows close, in this order.
pub type Plan = Vec<(u64, Closing)>;

/// Works out how windows close, and makes the retry packs durable that the ledger will name. `ledger` is the row as the
/// owner holds it; `resend` is the batch's wish for unanswered recipients.
pub async fn plan(
    ctx: &Delivery,
    lane: LaneKey,
    ledger: &Ledger,
    loader: &mut Loader,
    mut ended: Vec<Ended>,
    resend: bool,
) -> Result<Plan, StoreError> {
    // The last of a leg first: once it is lowered, the one before may be the last.
    ended.sort_by_key(|end| std::cmp::Reverse((end.window.leg, end.window.from)));
    let mut after = ledger.clone();
    let mut plan = Plan::new();
    let mut again: BTreeMap<(Duration, Option<String>), Vec<RetryEntry>> = BTreeMap::new();
    for end in ended {
        if !after.open.iter().any(|open| open.window == end.window.window) {
            continue;
        }
        let sorted = sort_out(&end.entries, &end.answers, resend);
        let mut closing = Closing { totals: sorted.totals, handed: end.handed, ..Closing::default() };
        let mut rest = sorted.again;
        if end.window.window <= ledger.foreign_until {
            // The rest of what another provider took a part of: a handset could not put the two together.
            rest.retain(|(entry, _)| entry.parts == 0);
        }
        if after.is_last_of_leg(end.window.window)
            && let Some((place, first)) = untouched_tail(&end)
        {
            rest.retain(|(entry, _)| entry.seq < first);
            closing.lower_to = Some(place);
        }
        if mutation::is_on(Bug::ForgetNotNow) {
            rest.clear();
        }
        for (entry, delay) in rest {
            // The account that took some parts gets the rest, and no other does.
            let account = (entry.parts != 0).then(|| end.window.account.clone());
            again.entry((delay, account)).or_default().push(entry);
        }
        after = close(&after, ctx.worker, end.window.window, &closing);
        plan.push((end.window.window, closing));
    }
    if again.is_empty() || plan.is_empty() {
        return Ok(plan);
    }
    let now = ctx.world.clock.now();
    let mut legs: Vec<People> =
        again.into_iter().map(|((delay, account), entries)| People { due: now.plus(delay), account, entries }).collect();
    let mut merged = Vec::new();
    if after.legs.len() + legs.len() > LEGS_MAX || mutation::is_on(Bug::DropMergedLeg) {
        legs = merge(&after, loader, legs, now, &mut merged).await?;
    }
    let mut retries = Vec::new();
    for People { due, account, mut entries } in legs {
        entries.sort_by_key(|entry| entry.seq);
        let (name, pack) = (ctx.world.chance.next().max(1), RetryPack { entries });
        store(forever(ctx), || ctx.stores.windows.put_retry(lane, name, &pack)).await?;
        retries.push(Leg { account, ..Leg::new(name, pack.entries.len() as u32, due) });
    }
    if let Some((_, closing)) = plan.last_mut() {
        closing.retries = retries;
        closing.foreign_until = ledger.foreign_until;
        closing.merged = merged;
    }
    Ok(plan)
}

/// The row after a plan.
pub fn apply(ledger: &Ledger, worker: WorkerId, plan: &Plan) -> Result<Ledger, LedgerRefusal> {
    plan.iter().try_fold(ledger.clone(), |row, (window, closing)| row.close(worker, *window, closing))
}

fn close(ledger: &Ledger, worker: WorkerId, window: u64, closing: &Closing) -> Ledger {
    // A refusal comes again, and is dealt with, when the plan is applied to the stored row.
    ledger.close(worker, window, closing).unwrap_or_else(|_| ledger.clone())
}

/// From which place on nothing of a window was handed over, and the first recipient behind it: everybody from there on has
/// no other answer than "not sent". `None` when the last recipient was handed over.
fn untouched_tail(end: &Ended) -> Option<(u32, u32)> {
    let mut touched: Vec<u32> = end.answers.iter().filter(|a| a.answer != Answer::NotSent).map(|a| a.seq).collect();
    let answered: std::collections::BTreeSet<u32> = end.answers.iter().map(|a| a.seq).collect();
    touched.extend(end.entries.iter().map(|entry| entry.seq).filter(|seq| !answered.contains(seq)));
    let last_touched = touched.into_iter().max().filter(|_| !mutation::is_on(Bug::LowerTooFar));
    let index = end.entries.iter().position(|entry| last_touched.is_none_or(|last| entry.seq > last))?;
    let first = end.entries[index].seq;
    // In the manifest a place is the recipient itself; in a retry pack the places are its entries.
    let place = if end.window.leg == 0 { first } else { end.window.from + index as u32 };
    Some((place, first))
}

/// People who are tried again together.
struct People {
    due: Timestamp,
    /// Where alone they may be sent: see [`Leg::account`].
    account: Option<String>,
    entries: Vec<RetryEntry>,
}

/// What waits for its time: a leg that the ledger has, or people who just got there.
enum Waits {
    Leg(u64, bool),
    New(Vec<RetryEntry>),
}

/// Puts waiting retry packs and new ones together until the ledger has few enough legs. Each is due when the last of those
/// in it is; what lies far from the others stays as it is. Rests of messages stay with those of the same account.
async fn merge(
    ledger: &Ledger,
    loader: &mut Loader,
    new: Vec<People>,
    now: Timestamp,
    merged: &mut Vec<u64>,
) -> Result<Vec<People>, StoreError> {
    let mut places: BTreeMap<Option<String>, Vec<(Timestamp, Waits)>> = BTreeMap::new();
    for People { due, account, entries } in new {
        places.entry(account).or_default().push((due, Waits::New(entries)));
    }
    let waiting: Vec<&Leg> = ledger.legs.iter().filter(|leg| leg.id != 0 && leg.declared == 0).collect();
    for leg in &waiting {
        // Of those made for another provider type only whole messages go on.
        let account = leg.account.clone().filter(|_| !leg.foreign);
        places.entry(account).or_default().push((leg.due, Waits::Leg(leg.id, leg.foreign)));
    }
    let most = (LEGS_MAX + waiting.len()).saturating_sub(ledger.legs.len()) / places.len().max(1);
    let mut legs = Vec::new();
    for (account, mut waits) in places {
        waits.sort_by_key(|(due, _)| *due);
        let dues: Vec<Timestamp> = waits.iter().map(|(due, _)| *due).collect();
        let mut waits = waits.into_iter().map(|(_, waits)| waits);
        for group in groups(&dues, now, most) {
            let mut entries = Vec::new();
            let alone = group.len() == 1;
            for one in waits.by_ref().take(group.len()) {
                match one {
                    Waits::New(people) => entries.extend(people),
                    Waits::Leg(leg, _) if mutation::is_on(Bug::DropMergedLeg) => merged.push(leg),
                    Waits::Leg(..) if alone => {}
                    Waits::Leg(leg, foreign) => {
                        let pack = loader.retry(leg).await?;
                        entries.extend(pack.entries.iter().filter(|entry| !foreign || entry.parts == 0).copied());
                        merged.push(leg);
                    }
                }
            }
            if !entries.is_empty() {
                legs.push(People { due: dues[group.end - 1], account: account.clone(), entries });
            }
        }
    }
    Ok(legs)
}
