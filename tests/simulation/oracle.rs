//! The verdict: what the store says of every record, against what the provider saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, LaneKey, Msisdn};
use smsfleet::model::lane::{lane_of, partition_of};
use smsfleet::model::limits::{QUEUE_FULL_TRIES_MAX, SEND_BY, TRANSIENT_TRIES_MAX};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::receipt::{Delivery, Rung};
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::statistics::{RecipientFilter, RecipientLine, RecipientPages, recount};

use super::doubts;
use super::known::{Away, Known, Said};
use super::lanes::{Lane, story};
use super::process::{RECEIPTS_WAIT, Shared, accounts};
use super::run::Outcome;
use super::source::{VERSIONS, records};

/// How long a worker may take to let go of a partition.
const LET_GO: Duration = Duration::from_secs(1);

/// Waits until reports that wait for another look have had theirs.
pub async fn until_looked_over(shared: &Shared) -> Result<(), String> {
    let mut looked = 0;
    loop {
        let waiting = shared.stores.parked.due(Timestamp(i64::MAX), 1).await.map_err(|error| error.to_string())?;
        let Some(first) = waiting.first() else { return Ok(()) };
        if looked == 600 {
            return Err(format!("a report is parked for ever: {first:?}"));
        }
        looked += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Checks one batch that has ended. `canceled` is when its cancel was answered.
pub async fn check(
    shared: &Shared,
    row: &BatchRow,
    batch: &SmsBatch,
    canceled: Option<Duration>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let id = row.batch.batch_id;
    if row.current_step == CurrentStep::Preparation {
        // Canceled before the seal: nobody may have got anything, unless a restore took the seal away.
        let known = shared.network.known();
        let sent = known.restored.is_none() && known.got.keys().any(|key| key.starts_with(&id.to_string()));
        return if sent { Err(format!("batch {id} was never sealed, yet somebody got it")) } else { Ok(()) };
    }
    shared.network.known().nothing_wrong()?;
    let mut lanes = vec![];
    for lane in 0..row.lanes {
        lanes.push(Lane::read(shared, LaneKey { batch: id, lane: lane as u8 }).await?);
    }
    check_accounts(shared, id, &lanes)?;
    check_times(shared, &lanes, canceled)?;
    check_releases(shared, id, &lanes)?;
    let mut doubted = vec![];
    for lane in &lanes {
        match doubts::check_windows(shared, lane) {
            Ok(people) => doubted.push(people),
            Err((seq, wrong)) => {
                let number = lane.numbers.get(&seq).map(|number| format!("+{number}")).unwrap_or_default();
                return Err(format!("batch {id}: {number} {wrong}\n{}", story(shared, row, &number).await));
            }
        }
    }
    let version = row.fingerprint.as_ref().map_or(VERSIONS[0], |fingerprint| fingerprint.version.as_str());
    let all = records(&batch.table_name, version);
    // Counted afresh: a receipt may have settled an uncertain recipient since the batch was settled.
    let accounts = accounts();
    let settlement = recount(&shared.stores, row, &accounts, shared.clock.now()).await.map_err(|error| error.to_string())?;
    if settlement.records != all.len() as u64 || settlement.unaccounted() != 0 {
        return Err(format!("batch {id}: {} records, {:?}", all.len(), settlement));
    }
    let lines = lines(shared, row).await?;
    if lines.len() != all.len() {
        return Err(format!("batch {id}: {} records, {} lines", all.len(), lines.len()));
    }
    let mut by_outcome: BTreeMap<Ends, u64> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in &lines {
        let asked = all.get(line.record as usize).map(|(number, _)| number.as_str());
        if asked != Some(line.number.as_str()) {
            return Err(format!("batch {id}: record {} was {asked:?}, and is {:?}", line.record, line.number));
        }
        *by_outcome.entry(line.outcome).or_default() += 1;
        if !seen.insert(line.record) {
            return Err(format!("batch {id}: record {} is listed twice", line.record));
        }
        let number = digits(line);
        let place = number.map_or(0, |number| usize::from(lane_of(number, row.lanes)));
        let checked = check_line(shared, id, line, canceled)
            .and_then(|()| check_cause(shared, &lanes[place], line, &all, canceled.is_some()))
            .and_then(|()| check_receipts(shared, id, line))
            .and_then(|()| check_text(shared, id, line, &all))
            .and_then(|()| doubts::check_line(&lanes[place], &doubted[place], line));
        if let Err(wrong) = checked {
            return Err(format!("{wrong}\n{}", story(shared, row, &line.number).await));
        }
    }
    shared.network.known().operators.check_peace(id)?;
    check_strangers(shared, id, &all)?;
    super::limit::check(shared, row, batch, &lanes, &lines)?;
    let delivered = lines.iter().filter(|line| line.delivery == Some(Delivery::Delivered)).count() as u64;
    if settlement.delivery_num != delivered {
        // A receipt may have come between the two looks; what was counted wrong is counted wrong again.
        let again = recount(&shared.stores, row, &accounts, shared.clock.now()).await.map_err(|error| error.to_string())?;
        if again.delivery_num != delivered {
            return Err(format!("batch {id}: {delivered} were delivered, and the recount says {again:?}"));
        }
    }
    for (ends, count) in &by_outcome {
        if settlement.of(*ends) != *count {
            return Err(format!("batch {id}: the recount says {settlement:?}, the list says {by_outcome:?}"));
        }
    }
    let of = |ends| by_outcome.get(&ends).copied().unwrap_or(0);
    if canceled.is_none()
        && let Some(line) = lines.iter().find(|line| matches!(line.outcome, Ends::Canceled | Ends::Open))
    {
        let story = story(shared, row, &line.number).await;
        return Err(format!("batch {id} was not canceled: {by_outcome:?}, {line:?}\n{story}"));
    }
    outcome.accepted += of(Ends::Accepted);
    outcome.failed += of(Ends::Failed);
    outcome.uncertain += of(Ends::Uncertain);
    outcome.canceled += of(Ends::Canceled);
    outcome.expired += of(Ends::Expired);
    Ok(())
}

/// A record's number, where it is one.
pub fn digits(line: &RecipientLine) -> Option<Msisdn> {
    line.number.strip_prefix('+').and_then(|digits| digits.parse().ok()).map(Msisdn)
}

/// Under which name the network knows a record's number.
pub fn key_of(id: BatchId, line: &RecipientLine) -> String {
    format!("{id}/{}", line.number)
}

/// Whoever got something got their own text: the one of the list that was planned.
fn check_text(shared: &Shared, id: BatchId, line: &RecipientLine, all: &[(String, String)]) -> Result<(), String> {
    if matches!(line.outcome, Ends::Duplicate | Ends::Rejected) {
        return Ok(());
    }
    let known = shared.network.known();
    let (Some(got), Some((_, name))) = (known.got.get(&key_of(id, line)), all.get(line.record as usize)) else {
        return Ok(());
    };
    let own = format!("Hello {name}");
    if got.text.strip_suffix(own.as_str()).is_some_and(|before| before.is_empty() || before == "【Sim】") {
        return Ok(());
    }
    Err(format!("somebody got another text than {own:?}: {:?} {line:?}", got.text))
}

/// What a record came to has its cause: in the list, with the provider, or with an operator.
fn check_cause(
    shared: &Shared,
    lane: &Lane,
    line: &RecipientLine,
    all: &[(String, String)],
    is_canceled: bool,
) -> Result<(), String> {
    let (known, id) = (shared.network.known(), lane.key.batch);
    let first = all.iter().position(|(number, _)| *number == line.number).map(|at| at as u64);
    let number = digits(line);
    let is_suppressed = number.is_some_and(|number| known.ever_suppressed.contains(&number));
    let key = key_of(id, line);
    let refusals = known.refused.get(&key).copied().unwrap_or_default();
    // As often as the less patient of the two kinds of "not now" is tried.
    let too_often = refusals.not_now > u32::from(TRANSIENT_TRIES_MAX.min(QUEUE_FULL_TRIES_MAX));
    let got_some = known.got.get(&key).is_some_and(|got| !got.parts.is_empty());
    let got_none = !got_some || is_lost_again(&known, &key);
    let was_left =
        |code| number.and_then(|number| lane.place(number)).is_some_and(|seq| doubts::was_left(&known, lane, seq, code));
    let is_refused = match line.code {
        Some(Code::ProviderRefused) => refusals.for_good > 0,
        Some(code @ Code::ProviderTransient) => too_often || got_none && was_left(code),
        Some(code @ Code::BatchUnsent) => got_none && was_left(code),
        Some(code @ Code::PartiallySent) => {
            let is_left = is_canceled || is_suppressed || known.operators.changed(id) || known.limited.contains(&id);
            got_some && (refusals.for_good > 0 || too_often || is_left || was_left(code))
        }
        _ => false,
    };
    let has_cause = match line.outcome {
        Ends::Rejected => number.is_none(),
        _ if number.is_none() => false,
        Ends::Duplicate => first < Some(line.record),
        // Who was suppressed between two of its ranges was not the same to both.
        _ if first < Some(line.record) => is_suppressed,
        Ends::Suppressed => is_suppressed,
        Ends::Failed => is_refused,
        // When they were declared is looked at with their windows.
        Ends::Expired => known.limited.contains(&id),
        Ends::Accepted | Ends::Uncertain | Ends::Canceled | Ends::Open => true,
    };
    if has_cause { Ok(()) } else { Err(format!("it has no cause: {line:?} first {first:?} {refusals:?} {is_suppressed}")) }
}

/// Whether somebody was ordered to be sent again, and was, and that was lost with what came behind the backup.
fn is_lost_again(known: &Known, key: &str) -> bool {
    let Some(got) = known.got.get(key) else { return false };
    let is_lost = known.restored.is_some_and(|(taken, back)| (taken..=back).contains(&got.last_at));
    is_lost && known.operators.ordered_by(key, got.last_at)
}

/// Whoever got something of a batch is in its list.
fn check_strangers(shared: &Shared, id: BatchId, all: &[(String, String)]) -> Result<(), String> {
    let known = shared.network.known();
    let of_it = format!("{id}/");
    let mut got = known.got.keys().filter_map(|key| key.strip_prefix(of_it.as_str()));
    match got.find(|got| all.iter().all(|(number, _)| number != got)) {
        Some(stranger) => Err(format!("batch {id}: {stranger} got something, and is not in the list")),
        None => Ok(()),
    }
}

/// What the store says of receipts is what they said: those that were acknowledged are in it, and nothing that none said.
fn check_receipts(shared: &Shared, id: BatchId, line: &RecipientLine) -> Result<(), String> {
    let known = shared.network.known();
    let key = key_of(id, line);
    let Some(got) = known.got.get(&key) else { return Ok(()) };
    if known.again.is_asked(id) && (got.repeated() || got.accounts.len() > 1) {
        // Of whoever was sent again nobody knows which of the two a receipt is about.
        return Ok(());
    }
    if line.outcome == Ends::Uncertain {
        // Of a message in one part, whoever is in doubt is the only one whom its receipt fits, if it came while one was waited for.
        // One that was acknowledged just now may not have been looked for yet.
        let since = known.first_acknowledged.get(&key).copied().filter(|since| {
            *since <= got.last_at.plus(RECEIPTS_WAIT) && since.plus(Duration::from_secs(1)) <= shared.clock.now()
        });
        let is_settled = got.of == 1 && since.is_some() && known.restored.is_none() && !known.collided.contains(&key);
        return if is_settled {
            Err(format!("in doubt, though a receipt was acknowledged at {since:?}: {line:?}"))
        } else {
            Ok(())
        };
    }
    if line.outcome != Ends::Accepted {
        return Ok(());
    }
    let means = |said: &Said| {
        let rungs: Vec<Rung> = (0..got.of).filter_map(|part| said.get(&key)?.get(&part).copied()).collect();
        let is_bad = rungs.iter().any(|rung| matches!(rung, Rung::Ended(_)));
        match rungs.len() == usize::from(got.of) && rungs.iter().all(|rung| *rung == Rung::Delivered) {
            true => Some(Delivery::Delivered),
            false => is_bad.then_some(Delivery::Undelivered),
        }
    };
    let wrong = |what: &str| {
        Err(format!("{what}: {line:?} said {:?} acknowledged {:?}", known.said.get(&key), known.acknowledged.get(&key)))
    };
    let told = line.delivery.filter(|told| matches!(told, Delivery::Delivered | Delivery::Undelivered));
    if told.is_some() && told != means(&known.said) && !known.collided.contains(&key) {
        return wrong("no receipt said so");
    }
    // Of a message in parts that was not answered nobody knows which part a receipt is about.
    let is_known = got.of == 1 || !known.silent.contains(&key);
    let acknowledged = means(&known.acknowledged);
    if is_known && acknowledged.is_some() && told != acknowledged && !known.collided.contains(&key) {
        return wrong("an acknowledged receipt is lost");
    }
    Ok(())
}

/// A worker that was told to let go of a partition declares nothing in its lanes a second later, until it is given to it again.
fn check_releases(shared: &Shared, id: BatchId, lanes: &[Lane]) -> Result<(), String> {
    let known = shared.network.known();
    for lane in lanes {
        let mine: Vec<&Away> = known.away.iter().filter(|away| away.partition == partition_of(id, lane.key.lane)).collect();
        for window in lane.windows.iter().map(|held| &held.window) {
            let late = |away: &&&Away| {
                let behind = away.until.is_none_or(|until| window.declared_at < until);
                away.worker == window.declarer
                    && window.declared_at > away.from.plus(LET_GO)
                    && behind
                    // Who stood in between had no second.
                    && known.lost_between(away.worker, away.from, window.declared_at).is_none()
            };
            if let Some(away) = mine.iter().find(late) {
                return Err(format!("declared though the partition was taken away: {window:?} {away:?}"));
            }
        }
    }
    Ok(())
}

/// A window ends when rule 8 says; nothing is declared while its batch is paused or canceled; and after a change of provider was
/// answered, nothing is declared for the old one.
fn check_accounts(shared: &Shared, id: BatchId, lanes: &[Lane]) -> Result<(), String> {
    let known = shared.network.known();
    for held in lanes.iter().flat_map(|lane| &lane.windows) {
        let window = &held.window;
        let allowed = known.operators.types_at(id, window.declared_at);
        // What a recovery writes down is over when it is.
        let is_recovered = held.is_recovered() && known.restored.is_some();
        let lasts = if is_recovered { Duration::ZERO } else { SEND_BY };
        if window.send_by != window.declared_at.plus(lasts) || window.declared_at > shared.clock.now() {
            return Err(format!("it ends at another time than {lasts:?} behind its beginning: {window:?}"));
        }
        if !is_recovered && known.operators.stands_at(id, window.declared_at) {
            return Err(format!("declared behind the answer to a pause or a cancel: {window:?}"));
        }
        if !allowed.contains(&window.account) {
            return Err(format!("declared for {}, when {allowed:?} was in force: {window:?}", window.account));
        }
    }
    Ok(())
}

/// Nothing is declared after a cancel was answered, and nothing arrives but within a window that its recipient is in.
fn check_times(shared: &Shared, lanes: &[Lane], canceled: Option<Duration>) -> Result<(), String> {
    let ago = canceled.map(|canceled| shared.clock.boot().saturating_sub(canceled));
    let canceled = ago.map(|ago| Timestamp(shared.clock.now().0 - ago.as_millis() as i64));
    let known = shared.network.known();
    // Windows since the backup are gone with the store that was lost, and what was in them.
    let gone = |at: Timestamp| known.restored.is_some_and(|(taken, back)| (taken..=back).contains(&at));
    for lane in lanes {
        let mut windows = lane.windows.iter().map(|held| &held.window);
        if let Some(window) = windows.find(|window| canceled.is_some_and(|canceled| window.declared_at > canceled)) {
            return Err(format!("declared after the cancel was answered at {canceled:?}: {window:?}"));
        }
        for seq in lane.numbers.keys().filter(|seq| !lane.is_struck(**seq)) {
            let Some(recipient) = lane.recipient(*seq) else { continue };
            let spans: Vec<_> = lane.of(*seq).map(|held| held.window.declared_at..=held.window.send_by).collect();
            let arrived = known.arrived.get(&recipient).into_iter().flatten();
            let mut outside = arrived.filter(|at| !gone(**at) && !spans.iter().any(|span| span.contains(at)));
            if let Some(at) = outside.next() {
                return Err(format!("handed over outside of its windows: {recipient} at {at:?}, {spans:?}"));
            }
        }
    }
    Ok(())
}

pub async fn lines(shared: &Shared, row: &BatchRow) -> Result<Vec<RecipientLine>, String> {
    let accounts = accounts();
    let (stores, now) = (shared.stores.clone(), shared.clock.now());
    let pages = RecipientPages::new(stores, row.clone(), Arc::new(accounts), RecipientFilter::default(), now).await;
    let mut pages = pages.map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    while let Some(page) = pages.next().await.map_err(|error| error.to_string())? {
        lines.extend(page);
    }
    Ok(lines)
}

fn check_line(shared: &Shared, id: BatchId, line: &RecipientLine, canceled: Option<Duration>) -> Result<(), String> {
    let known = shared.network.known();
    // A duplicate's number got the message as somebody else.
    let key = (line.outcome != Ends::Duplicate).then(|| key_of(id, line));
    let got = key.as_ref().and_then(|key| known.got.get(key)).cloned().unwrap_or_default();
    let wrong = |what: &str| Err(format!("{what}: {line:?} got {got:?}"));
    let complete = got.complete();
    match line.outcome {
        Ends::Accepted if complete != 1 && !known.again.is_whole(&key_of(id, line)) => return wrong("accepted, and not there"),
        Ends::Failed | Ends::Expired if is_lost_again(&known, &key_of(id, line)) => {}
        Ends::Failed if complete != 0 => return wrong("failed, and there"),
        Ends::Rejected | Ends::Duplicate | Ends::Suppressed | Ends::Expired | Ends::Canceled if !got.parts.is_empty() => {
            return wrong("should not have been sent");
        }
        Ends::Open => return wrong("open in a settled batch"),
        _ => {}
    }
    if let Some(canceled) = canceled
        && got.last > canceled + SEND_BY
    {
        return wrong("sent long after the cancel");
    }
    Ok(())
}
