//! The verdict: what the store says of every record, against what the provider saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::{BatchId, LaneKey, Msisdn};
use smsfleet::model::lane::{lane_of, partition_of};
use smsfleet::model::ledger::OpenWindow;
use smsfleet::model::limits::SEND_BY;
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::pack::PackKey;
use smsfleet::model::receipt::Rung;
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::statistics::{RecipientFilter, RecipientLine, RecipientPages, recount};

use super::network::Away;
use super::process::{Shared, accounts};
use super::run::Outcome;
use super::source::{VERSIONS, records};

/// How long a worker may take to let go of a partition.
const LET_GO: Duration = Duration::from_secs(1);

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
        let sent = !known.restored && known.got.keys().any(|key| key.starts_with(&id.to_string()));
        return if sent { Err(format!("batch {id} was never sealed, yet somebody got it")) } else { Ok(()) };
    }
    shared.network.known().nothing_wrong()?;
    check_accounts(shared, row).await?;
    check_times(shared, row, canceled).await?;
    check_releases(shared, row).await?;
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
        if line.outcome != Ends::Rejected && asked != Some(line.number.as_str()) {
            return Err(format!("batch {id}: record {} was {asked:?}, and is {:?}", line.record, line.number));
        }
        *by_outcome.entry(line.outcome).or_default() += 1;
        if !seen.insert(line.record) {
            return Err(format!("batch {id}: record {} is listed twice", line.record));
        }
        let checked = check_line(shared, id, line, canceled).and_then(|()| check_text(shared, id, line, &all));
        if let Err(wrong) = checked {
            return Err(format!("{wrong}\n{}", lane_story(shared, row, &line.number).await));
        }
    }
    check_doubts(shared, row, &lines).await?;
    for (ends, count) in &by_outcome {
        if settlement.of(*ends) != *count {
            return Err(format!("batch {id}: the recount says {settlement:?}, the list says {by_outcome:?}"));
        }
    }
    let of = |ends| by_outcome.get(&ends).copied().unwrap_or(0);
    if canceled.is_none()
        && let Some(line) = lines.iter().find(|line| matches!(line.outcome, Ends::Canceled | Ends::Open))
    {
        let story = lane_story(shared, row, &line.number).await;
        return Err(format!("batch {id} was not canceled: {by_outcome:?}, {line:?}\n{story}"));
    }
    outcome.accepted += of(Ends::Accepted);
    outcome.failed += of(Ends::Failed);
    outcome.uncertain += of(Ends::Uncertain);
    outcome.canceled += of(Ends::Canceled);
    Ok(())
}

/// Whoever got something got their own text: the one of the list that was planned.
fn check_text(shared: &Shared, id: BatchId, line: &RecipientLine, all: &[(String, String)]) -> Result<(), String> {
    if matches!(line.outcome, Ends::Duplicate | Ends::Rejected) {
        return Ok(());
    }
    let known = shared.network.known();
    let (Some(got), Some((_, name))) = (known.got.get(&format!("{id}/{}", line.number)), all.get(line.record as usize)) else {
        return Ok(());
    };
    let own = format!("Hello {name}");
    if got.text.strip_suffix(own.as_str()).is_some_and(|before| before.is_empty() || before == "【Sim】") {
        return Ok(());
    }
    Err(format!("somebody got another text than {own:?}: {:?} {line:?}", got.text))
}

/// A worker that was told to let go of a partition declares nothing in its lanes a second later, until it is given to it again.
async fn check_releases(shared: &Shared, row: &BatchRow) -> Result<(), String> {
    let (away, lost) = {
        let known = shared.network.known();
        (known.away.clone(), known.lost.clone())
    };
    let id = row.batch.batch_id;
    for lane in 0..row.lanes {
        let key = LaneKey { batch: id, lane: lane as u8 };
        let mine: Vec<&Away> = away.iter().filter(|away| away.partition == partition_of(id, key.lane)).collect();
        if mine.is_empty() {
            continue;
        }
        for stored in shared.stores.windows.list(key, 0, 10_000).await.map_err(|error| error.to_string())? {
            let window = stored.row.map(|row| row.window).or(stored.judgement.map(|judgement| judgement.window));
            let Some(window) = window.filter(|window| !lost.contains_key(&window.declarer)) else { continue };
            let late = |away: &&&Away| {
                let behind = away.until.is_none_or(|until| window.declared_at < until);
                away.worker == window.declarer && window.declared_at > away.from.plus(LET_GO) && behind
            };
            if let Some(away) = mine.iter().find(late) {
                return Err(format!("declared though the partition was taken away: {window:?} {away:?}"));
            }
        }
    }
    Ok(())
}

/// Whoever is in doubt was taken without an answer, or was declared by a worker that did not live to write the answer down.
async fn check_doubts(shared: &Shared, row: &BatchRow, lines: &[RecipientLine]) -> Result<(), String> {
    let id = row.batch.batch_id;
    let (silent, lost, restored) = {
        let known = shared.network.known();
        (known.silent.clone(), known.lost.clone(), known.restored)
    };
    if restored {
        // A recovery puts more people in doubt than it knows of.
        return Ok(());
    }
    let unexplained =
        |line: &&RecipientLine| line.outcome == Ends::Uncertain && !silent.contains(&format!("{id}/{}", line.number));
    for line in lines.iter().filter(unexplained) {
        let Some(number) = line.number.strip_prefix('+').and_then(|digits| digits.parse().ok()) else { continue };
        let lane = LaneKey { batch: id, lane: lane_of(Msisdn(number), row.lanes) };
        let windows = shared.stores.windows.list(lane, 0, 10_000).await.map_err(|error| error.to_string())?;
        let place = places(shared, lane).await?.into_iter().find(|(_, of): &(u32, u64)| *of == number).map(|(seq, _)| seq);
        // Who is in a retry pack is not looked up: any of the lane's may hold them.
        let holds = |window: &OpenWindow| window.leg != 0 || place.is_none_or(|seq| (window.from..window.to).contains(&seq));
        let mut mine = windows.iter().filter_map(|stored| {
            let window = stored.row.as_ref().map(|row| &row.window).or(stored.judgement.as_ref().map(|judged| &judged.window))?;
            holds(window).then_some((window, stored.row.is_some()))
        });
        let is_there = shared.network.known().got.contains_key(&format!("{id}/{}", line.number));
        // Whoever lived beyond a window's limit has run it.
        let by_lost = mine.any(|(window, ran)| {
            let since = lost.get(&window.declarer);
            since.is_some_and(|since| ran || is_there || *since <= window.send_by.plus(Duration::from_secs(2)))
        });
        if !by_lost {
            let story = lane_story(shared, row, &line.number).await;
            return Err(format!("in doubt, though it was answered and nobody died: {line:?}\n{story}"));
        }
    }
    Ok(())
}

/// After a change of provider was answered, nothing is declared for the old one.
async fn check_accounts(shared: &Shared, row: &BatchRow) -> Result<(), String> {
    let id = row.batch.batch_id;
    for lane in 0..row.lanes {
        let key = LaneKey { batch: id, lane: lane as u8 };
        for stored in shared.stores.windows.list(key, 0, 10_000).await.map_err(|error| error.to_string())? {
            let window = stored.row.map(|row| row.window).or(stored.judgement.map(|judgement| judgement.window));
            let Some(window) = window else { continue };
            let allowed = shared.network.known().operators.types_at(id, window.declared_at);
            if !allowed.contains(&window.account) {
                return Err(format!("declared for {}, when {allowed:?} was in force: {window:?}", window.account));
            }
        }
    }
    Ok(())
}

/// Nothing is declared after a cancel was answered, and nothing arrives after the send-by limit of the last window that its
/// recipient was in.
async fn check_times(shared: &Shared, row: &BatchRow, canceled: Option<Duration>) -> Result<(), String> {
    let ago = canceled.map(|canceled| shared.clock.boot().saturating_sub(canceled));
    let canceled = ago.map(|ago| Timestamp(shared.clock.now().0 - ago.as_millis() as i64));
    for lane in 0..row.lanes {
        let lane = LaneKey { batch: row.batch.batch_id, lane: lane as u8 };
        let stored = shared.stores.windows.list(lane, 0, 10_000).await.map_err(|error| error.to_string())?;
        let windows: Vec<_> = stored
            .into_iter()
            .filter_map(|stored| stored.row.map(|row| row.window).or(stored.judgement.map(|j| j.window)))
            .collect();
        if let Some(window) = windows.iter().find(|window| canceled.is_some_and(|canceled| window.declared_at > canceled)) {
            return Err(format!("declared after the cancel was answered at {canceled:?}: {window:?}"));
        }
        if shared.network.known().restored {
            // Windows since the backup are gone, and what was in them.
            continue;
        }
        let mut limits: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for (seq, number) in places(shared, lane).await? {
            // Who is in a retry pack is not looked up: any of the lane's may hold them.
            let of = windows.iter().filter(|window| window.leg != 0 || (window.from..window.to).contains(&seq));
            let limit = limits.entry(number).or_default();
            *limit = of.map(|window| window.send_by).fold(*limit, Ord::max);
        }
        for (number, limit) in limits {
            let Some(got) = shared.network.known().got.get(&format!("{}/+{number}", lane.batch)).cloned() else { continue };
            if got.last_at > limit {
                return Err(format!("handed over after its window's limit: +{number} at {:?}, {limit:?}", got.last_at));
            }
        }
    }
    Ok(())
}

/// The numbers of a lane by their places.
async fn places(shared: &Shared, lane: LaneKey) -> Result<Vec<(u32, u64)>, String> {
    let manifest = shared.stores.manifests.get(lane).await.map_err(|error| error.to_string())?;
    let mut places = vec![];
    for pack in manifest.iter().flat_map(|manifest| &manifest.packs) {
        let key = PackKey { lane, range: pack.range, attempt: pack.attempt, n: pack.n };
        let head = shared.stores.packs.head(key).await.map_err(|error| error.to_string())?;
        let numbers = head.map(|head| head.numbers).unwrap_or_default();
        places.extend(numbers.iter().enumerate().map(|(at, number)| (pack.first_seq + at as u32, *number)));
    }
    Ok(places)
}

/// What the store holds of a number's lane.
async fn lane_story(shared: &Shared, row: &BatchRow, number: &str) -> String {
    let Some(number) = number.strip_prefix('+').and_then(|digits| digits.parse().ok()) else { return String::new() };
    let lane = LaneKey { batch: row.batch.batch_id, lane: lane_of(Msisdn(number), row.lanes) };
    let ledger = shared.stores.ledgers.load(lane).await;
    let windows = shared.stores.windows.list(lane, 0, 1_000).await.unwrap_or_default();
    let places = places(shared, lane).await.unwrap_or_default();
    let seq = places.iter().rev().find(|(_, other)| *other == number).map(|(seq, _)| *seq);
    let mut story = format!("lane {lane}, place {seq:?}, ledger {ledger:?}");
    for window in windows {
        let answers = window.row.iter().flat_map(|row| &row.answers).filter(|answered| Some(answered.seq) == seq);
        let answers: Vec<_> = answers.map(|answered| &answered.answer).collect();
        let declared = window.row.as_ref().map(|row| (&row.window, row.complete));
        story.push_str(&format!("\n  {} {declared:?} {answers:?} judged {:?}", window.key.window, window.judgement));
    }
    if let Some(seq) = seq {
        let reports = shared.stores.receipts.list(lane, seq, 10).await.unwrap_or_default();
        let reports: Vec<_> = reports.into_iter().filter(|report| report.part.recipient.seq == seq).collect();
        story.push_str(&format!("\n  receipts {reports:?}"));
    }
    let unmatched = shared.stores.parked.unmatched(None, 1_000).await.unwrap_or_default();
    let waiting = shared.stores.parked.due(Timestamp(i64::MAX), 1_000).await.unwrap_or_default();
    let parked: Vec<_> =
        unmatched.into_iter().chain(waiting).filter(|parked| parked.report.number == Some(Msisdn(number))).collect();
    story.push_str(&format!("\n  parked {parked:?}"));
    story
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
    let key = (line.outcome != Ends::Duplicate).then(|| format!("{id}/{}", line.number));
    let got = key.as_ref().and_then(|key| known.got.get(key)).cloned().unwrap_or_default();
    let wrong = |what: &str| Err(format!("{what}: {line:?} got {got:?}"));
    let complete = got.complete();
    match line.outcome {
        Ends::Accepted if complete != 1 => return wrong("accepted, and not there"),
        // An order to send the refused again may have been lost with what came behind the backup.
        Ends::Failed if complete != 0 && !known.restored => return wrong("failed, and there"),
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
    // A receipt that was acknowledged is in the store: an accepted recipient whose one part has one is not without.
    let delivered = line.delivery == Some(smsfleet::model::receipt::Delivery::Delivered);
    let acknowledged = key.as_ref().is_some_and(|key| known.acknowledged.get(key) == Some(&Rung::Delivered));
    if line.outcome == Ends::Accepted && got.of == 1 && acknowledged && !delivered {
        return wrong("an acknowledged receipt is lost");
    }
    if delivered && !key.is_some_and(|key| known.delivered.contains(&key)) {
        return wrong("delivered, but no receipt said so");
    }
    Ok(())
}
