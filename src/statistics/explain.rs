//! What happened to a number, and what limits a batch: from recorded facts, never from guesses.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::{RecipientFilter, RecipientLine};
use super::recipients::RecipientPages;
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::batch::BatchRow;
use crate::model::fleet::LiveAccount;
use crate::model::id::{LaneKey, Msisdn};
use crate::model::schedule::StartDecision;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::{StoreError, Stores};

/// Lanes whose latest windows are looked at.
const LANES_SAMPLED: u16 = 16;
/// Ledger versions looked back over: a window takes two, its declare and its close.
const VERSIONS_SAMPLED: u64 = 40;

/// What happened to a number: all lines of the batch that have it, duplicates and rejected records too, with the text.
pub async fn explain_number(
    stores: &Stores,
    row: &BatchRow,
    accounts: Arc<BTreeMap<String, Account>>,
    number: Msisdn,
    now: Timestamp,
) -> Result<Vec<RecipientLine>, StoreError> {
    let filter = RecipientFilter { number: Some(number), text: true, ..RecipientFilter::default() };
    let mut pages = RecipientPages::new(stores.clone(), row.clone(), accounts, filter, now).await?;
    let mut lines = vec![];
    while let Some(mut page) = pages.next().await? {
        lines.append(&mut page);
    }
    Ok(lines)
}

/// Facts about a batch that say what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchFacts {
    /// The current step and its state, as `DELIVERY RUNNING`.
    pub standing: String,
    /// Why the step is paused or failed.
    pub reason: Option<String>,
    /// When it may begin, if that lies ahead (RFC 3339).
    pub starts_at: Option<String>,
    /// Lanes of the batch, and how many of them are done.
    pub lanes: u16,
    /// Lanes with nothing left.
    pub lanes_done: u16,
    /// Open windows of all lanes.
    pub windows_open: u64,
    /// Recipients in them.
    pub in_flight: u64,
    /// Recipients not declared yet.
    pub undeclared: u64,
    /// Of those, recipients that wait for another try later.
    pub waiting: u64,
    /// When the earliest of them is due (RFC 3339).
    pub next_due: Option<String>,
    /// Answers of the latest windows, by account and then by kind: `accepted`, `throttled`, `SF-5001 0x0000000B` …
    pub latest: BTreeMap<String, BTreeMap<String, u64>>,
    /// How long ago the latest window was declared, in milliseconds; `None` when none was.
    pub latest_window_ms: Option<u64>,
    /// Accounts whose sending hours forbid sending now.
    pub outside_hours: Vec<String>,
    /// The batch's own hours, when it has some: `08:00 to 22:00 Asia/Shanghai`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
    /// Whether they forbid sending now.
    #[serde(default)]
    pub outside_own_hours: bool,
    /// Receipts that match nothing yet, and receipts that stayed unmatched, over all batches.
    pub receipts_parked: u64,
    /// See `receipts_parked`.
    pub receipts_unmatched: u64,
}

/// Gathers the facts of a batch. `outside_hours` is the caller's, who knows the clock, and so is
/// [`BatchFacts::outside_own_hours`], which is left false.
pub async fn explain_batch(
    stores: &Stores,
    row: &BatchRow,
    outside_hours: Vec<String>,
    now: Timestamp,
) -> Result<BatchFacts, StoreError> {
    let mut facts = BatchFacts { lanes: row.lanes, outside_hours, ..BatchFacts::default() };
    let (name, step) = match row.current_step {
        CurrentStep::Preparation => ("PREPARATION", &row.preparation),
        CurrentStep::Delivery => ("DELIVERY", &row.delivery),
    };
    facts.standing = format!("{name} {}", step.state.name());
    facts.hours = row.batch.hours.as_ref().map(ToString::to_string);
    facts.reason = step.reason.as_ref().map(|(code, text)| format!("{code} {text}"));
    if row.current_step == CurrentStep::Delivery
        && step.state == StepState::Ready
        && let StartDecision::Wait(at) = row.start_decision(now)
    {
        facts.starts_at = Some(at.to_string());
    }
    let (mut next_due, mut latest_declared) = (None::<Timestamp>, None::<Timestamp>);
    let ledgers = stores.ledgers.list(row.batch.batch_id).await?;
    let step = (ledgers.len() / usize::from(LANES_SAMPLED)).max(1);
    for (at, (key, stored)) in ledgers.iter().enumerate() {
        let ledger = &stored.row;
        facts.lanes_done += u16::from(ledger.is_done());
        facts.windows_open += ledger.open.len() as u64;
        facts.in_flight += ledger.in_flight();
        facts.undeclared += ledger.undeclared();
        for leg in ledger.legs.iter().filter(|leg| leg.due > now) {
            facts.waiting += u64::from(leg.len - leg.declared);
            next_due = Some(next_due.map_or(leg.due, |known| known.min(leg.due)));
        }
        if at % step == 0 {
            let from = stored.version.saturating_sub(VERSIONS_SAMPLED);
            latest_declared = latest_declared.max(sample_windows(stores, *key, from, &mut facts.latest).await?);
        }
    }
    facts.next_due = next_due.map(|at| at.to_string());
    facts.latest_window_ms = latest_declared.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
    (facts.receipts_parked, facts.receipts_unmatched) = stores.parked.counts().await?;
    Ok(facts)
}

async fn sample_windows(
    stores: &Stores,
    lane: LaneKey,
    from: u64,
    latest: &mut BTreeMap<String, BTreeMap<String, u64>>,
) -> Result<Option<Timestamp>, StoreError> {
    let mut declared = None;
    for window in stores.windows.list(lane, from, VERSIONS_SAMPLED as usize).await? {
        let Some(row) = window.row else { continue };
        declared = declared.max(Some(row.window.declared_at));
        let kinds = latest.entry(row.window.account).or_default();
        for answered in row.answers {
            *kinds.entry(kind_of(&answered.answer)).or_default() += 1;
        }
    }
    Ok(declared)
}

fn kind_of(answer: &Answer) -> String {
    match answer {
        Answer::Accepted { .. } => "accepted".into(),
        Answer::Failed { code, detail } => format!("{code} {detail}").trim().to_owned(),
        Answer::NotNow { kind, .. } => kind.name().into(),
        Answer::NoAnswer => "no_answer".into(),
        Answer::NotSent => "not_sent".into(),
        Answer::Suppressed => "suppressed".into(),
        Answer::Expired => "expired".into(),
    }
}

/// What limits a batch, the strongest reason first, as sentences. `live` is empty when no process sends. `store_latency_ms`
/// is the store's latest commit latency, when a process knows it.
pub fn verdict(facts: &BatchFacts, live: &[LiveAccount], store_latency_ms: Option<f64>) -> Vec<String> {
    let mut said = vec![];
    if let Some(reason) = &facts.reason {
        said.push(format!("it is {}: {reason}", facts.standing));
    }
    if let Some(at) = &facts.starts_at {
        said.push(format!("it waits for its start at {at}"));
    }
    if facts.outside_own_hours {
        said.push(format!("it is outside its sending hours, {}", facts.hours.as_deref().unwrap_or_default()));
    }
    for account in &facts.outside_hours {
        said.push(format!("account {account} is outside its sending hours"));
    }
    for account in live.iter().filter(|account| !account.up) {
        let error = account.last_error.as_deref().unwrap_or("no session");
        said.push(format!("provider errors: account {} is down: {error}", account.account));
    }
    for (account, kinds) in &facts.latest {
        let total: u64 = kinds.values().sum();
        for (kind, n) in kinds.iter().filter(|(kind, n)| *kind != "accepted" && **n * 20 > total) {
            let share = *n as f64 * 100.0 / total as f64;
            said.push(format!("provider errors: {share:.0} % of the latest {total} answers of account {account} say {kind}"));
        }
    }
    let sends = facts.undeclared > 0 && facts.standing == "DELIVERY RUNNING";
    if sends {
        for account in live.iter().filter(|account| account.up) {
            if account.outstanding * 10 >= u64::from(account.window) * 9 && account.window > 0 {
                said.push(format!(
                    "window: account {} has {} of {} messages unanswered: more binds or a larger window would help",
                    account.account, account.outstanding, account.window
                ));
            } else if account.ceiling.is_some_and(|ceiling| account.rate >= f64::from(ceiling) * 0.9) {
                said.push(format!(
                    "provider rate: account {} sends at its ceiling, {:.0} a second",
                    account.account, account.rate
                ));
            } else if account.throttled > 0 {
                let (name, times) = (&account.account, account.throttled);
                said.push(format!(
                    "provider rate: account {name} was told to slow down {times} times, now {:.0} a second",
                    account.rate
                ));
            }
        }
        if let Some(latency) = store_latency_ms.filter(|latency| *latency > 50.0) {
            said.push(format!("store: a commit takes {latency:.0} ms"));
        }
        if live.is_empty() {
            said.push("no process is sending: start `smsfleet deliver`, or on one machine run the `send` command again".into());
        }
    }
    if facts.waiting > 0 {
        let due = facts.next_due.as_deref().unwrap_or("soon");
        said.push(format!("{} recipients wait for another try, the first at {due}", facts.waiting));
    }
    if said.is_empty() {
        said.push(if sends { "nothing limits it but this machine".into() } else { format!("it is {}", facts.standing) });
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_what_limits() {
        let running = BatchFacts { standing: "DELIVERY RUNNING".into(), undeclared: 10, ..BatchFacts::default() };
        let up = LiveAccount { account: "a".into(), up: true, window: 100, rate: 1_000.0, ..LiveAccount::default() };
        let cases = [
            (BatchFacts { outside_hours: vec!["a".into()], ..running.clone() }, up.clone(), None, "sending hours"),
            (BatchFacts { outside_own_hours: true, ..running.clone() }, up.clone(), None, "its sending hours"),
            (running.clone(), LiveAccount { up: false, ..up.clone() }, None, "is down"),
            (running.clone(), LiveAccount { outstanding: 95, ..up.clone() }, None, "window:"),
            (running.clone(), LiveAccount { ceiling: Some(1_000), ..up.clone() }, None, "provider rate:"),
            (running.clone(), up.clone(), Some(200.0), "store:"),
            (running.clone(), up.clone(), None, "nothing limits it"),
        ];
        for (facts, live, latency, expected) in cases {
            let said = verdict(&facts, &[live], latency).join("; ");
            assert!(said.contains(expected), "{said} should name {expected}");
        }
        assert!(verdict(&running, &[], None).join("; ").contains("no process is sending"));
        let mut refused = running;
        refused.latest.insert("a".into(), BTreeMap::from([("throttled".into(), 20), ("accepted".into(), 80)]));
        assert!(verdict(&refused, &[up], None)[0].contains("20 % of the latest 100 answers"));
    }
}
