//! The verdict: what the store says of every record, against what the provider saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::code::Code;
use smsfleet::model::id::{BatchId, LaneKey, Msisdn, WorkerId};
use smsfleet::model::lane::{lane_of, partition_of};
use smsfleet::model::ledger::OpenWindow;
use smsfleet::model::limits::{QUEUE_FULL_TRIES_MAX, SEND_BY, TRANSIENT_TRIES_MAX};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::pack::PackKey;
use smsfleet::model::receipt::{Delivery, Rung};
use smsfleet::model::step::CurrentStep;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::windows::StoredWindow;
use smsfleet::statistics::{RecipientFilter, RecipientLine, RecipientPages, recount};

use super::known::{Away, Said};
use super::process::{Shared, accounts};
use super::run::Outcome;
use super::source::{VERSIONS, records};

/// How long after its taking a message's answer is written down, by a worker that lives: the provider takes its time, and the store.
pub(super) const ANSWERED: Duration = Duration::from_secs(60);

/// How long a worker may take to let go of a partition.
const LET_GO: Duration = Duration::from_secs(1);

/// Waits until reports that wait for another look have had theirs.
pub async fn until_looked_over(shared: &Shared) -> Result<(), String> {
    for _ in 0..600 {
        let waiting = shared.stores.parked.due(Timestamp(i64::MAX), 1).await.map_err(|error| error.to_string())?;
        if waiting.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
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
    shared.network.known().again.nothing_owed(id)?;
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
        if asked != Some(line.number.as_str()) {
            return Err(format!("batch {id}: record {} was {asked:?}, and is {:?}", line.record, line.number));
        }
        *by_outcome.entry(line.outcome).or_default() += 1;
        if !seen.insert(line.record) {
            return Err(format!("batch {id}: record {} is listed twice", line.record));
        }
        let checked = check_line(shared, id, line, canceled)
            .and_then(|()| check_cause(shared, id, line, &all, canceled.is_some()))
            .and_then(|()| check_receipts(shared, id, line))
            .and_then(|()| check_text(shared, id, line, &all));
        if let Err(wrong) = checked {
            return Err(format!("{wrong}\n{}", lane_story(shared, row, &line.number).await));
        }
    }
    check_doubts(shared, row, &lines).await?;
    check_strangers(shared, id, &all)?;
    super::limit::check(shared, row, batch, &lines).await?;
    let delivered = lines.iter().filter(|line| line.delivery == Some(Delivery::Delivered)).count() as u64;
    if settlement.delivery_num != delivered {
        return Err(format!("batch {id}: {delivered} were delivered, and the recount says {settlement:?}"));
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
        let story = lane_story(shared, row, &line.number).await;
        return Err(format!("batch {id} was not canceled: {by_outcome:?}, {line:?}\n{story}"));
    }
    outcome.accepted += of(Ends::Accepted);
    outcome.failed += of(Ends::Failed);
    outcome.uncertain += of(Ends::Uncertain);
    outcome.canceled += of(Ends::Canceled);
    outcome.expired += of(Ends::Expired);
    Ok(())
}

/// Under which name the network knows a record's number.
fn key_of(id: BatchId, line: &RecipientLine) -> String {
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
    id: BatchId,
    line: &RecipientLine,
    all: &[(String, String)],
    is_canceled: bool,
) -> Result<(), String> {
    let known = shared.network.known();
    let first = all.iter().position(|(number, _)| *number == line.number).map(|at| at as u64);
    let number = line.number.strip_prefix('+').and_then(|digits| digits.parse().ok()).map(Msisdn);
    let is_suppressed = number.is_some_and(|number| known.ever_suppressed.contains(&number));
    let key = key_of(id, line);
    let refusals = known.refused.get(&key).copied().unwrap_or_default();
    // As often as the less patient of the two kinds of "not now" is tried.
    let too_often = refusals.not_now > u32::from(TRANSIENT_TRIES_MAX.min(QUEUE_FULL_TRIES_MAX));
    let got_some = known.got.get(&key).is_some_and(|got| !got.parts.is_empty());
    let is_refused = match line.code {
        Some(Code::ProviderRefused) => refusals.for_good > 0,
        // Late answers of a window that others judged may say so, and nobody tries again behind their worker.
        Some(Code::ProviderTransient) => too_often || refusals.not_now > 0 && !got_some && !known.lost.is_empty(),
        Some(Code::BatchUnsent) => !got_some && !known.lost.is_empty(),
        Some(Code::PartiallySent) => {
            let is_left = is_canceled || is_suppressed || known.operators.changed(id) || known.limited.contains(&id);
            got_some && (refusals.for_good > 0 || too_often || is_left)
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
    let (Some(got), Ends::Accepted) = (known.got.get(&key), line.outcome) else { return Ok(()) };
    if known.again.is_asked(id) && (got.repeated() || got.accounts.len() > 1) {
        // Of whoever was sent again nobody knows which of the two a receipt is about.
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
async fn check_releases(shared: &Shared, row: &BatchRow) -> Result<(), String> {
    let away = shared.network.known().away.clone();
    let id = row.batch.batch_id;
    for lane in 0..row.lanes {
        let key = LaneKey { batch: id, lane: lane as u8 };
        let mine: Vec<&Away> = away.iter().filter(|away| away.partition == partition_of(id, key.lane)).collect();
        if mine.is_empty() {
            continue;
        }
        for window in windows(shared, key).await? {
            let late = |away: &&&Away| {
                let behind = away.until.is_none_or(|until| window.declared_at < until);
                away.worker == window.declarer
                    && window.declared_at > away.from.plus(LET_GO)
                    && behind
                    // Who stood in between had no second.
                    && shared.network.known().lost_between(away.worker, away.from, window.declared_at).is_none()
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
    let (silent, restored) = {
        let known = shared.network.known();
        (known.silent.clone(), known.restored)
    };
    // A recovery puts more people in doubt than it knows of: whoever may have been sent to since the backup. Who had it, and whose
    // answer was written long before, is none of them.
    let may_be_since = |key: &String| {
        restored
            .is_some_and(|(taken, _)| shared.network.known().got.get(key).is_none_or(|got| got.last_at.plus(ANSWERED) > taken))
    };
    let unexplained = |line: &&RecipientLine| {
        let key = key_of(id, line);
        line.outcome == Ends::Uncertain && !silent.contains(&key) && !may_be_since(&key)
    };
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
        let is_there = shared.network.known().got.contains_key(&key_of(id, line));
        // Whoever lived beyond a window's limit has run it.
        let by_lost = mine.any(|(window, ran)| {
            let since = shared.network.known().lost_between(window.declarer, window.declared_at, Timestamp(i64::MAX));
            since.is_some_and(|since| ran || is_there || since <= window.send_by.plus(Duration::from_secs(2)))
        });
        if !by_lost {
            let story = lane_story(shared, row, &line.number).await;
            return Err(format!("in doubt, though it was answered and nobody died: {line:?}\n{story}"));
        }
    }
    Ok(())
}

/// A window ends when rule 8 says; nothing is declared while its batch is paused or canceled; and after a change of provider was
/// answered, nothing is declared for the old one.
async fn check_accounts(shared: &Shared, row: &BatchRow) -> Result<(), String> {
    let id = row.batch.batch_id;
    for lane in 0..row.lanes {
        let key = LaneKey { batch: id, lane: lane as u8 };
        for window in windows(shared, key).await? {
            let allowed = shared.network.known().operators.types_at(id, window.declared_at);
            // What a recovery writes down is over when it is.
            let is_recovered = window.declarer == WorkerId(0) && shared.network.known().restored.is_some();
            let lasts = if is_recovered { Duration::ZERO } else { SEND_BY };
            if window.send_by != window.declared_at.plus(lasts) || window.declared_at > shared.clock.now() {
                return Err(format!("it ends at another time than {lasts:?} behind its beginning: {window:?}"));
            }
            if !is_recovered && shared.network.known().operators.stands_at(id, window.declared_at) {
                return Err(format!("declared behind the answer to a pause or a cancel: {window:?}"));
            }
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
        let windows = windows(shared, lane).await?;
        if let Some(window) = windows.iter().find(|window| canceled.is_some_and(|canceled| window.declared_at > canceled)) {
            return Err(format!("declared after the cancel was answered at {canceled:?}: {window:?}"));
        }
        let mut limits: BTreeMap<u64, (Timestamp, Timestamp)> = BTreeMap::new();
        for (seq, number) in places(shared, lane).await? {
            // Who is in a retry pack is not looked up: any of the lane's may hold them.
            let of = windows.iter().filter(|window| window.leg != 0 || (window.from..window.to).contains(&seq));
            let limit = limits.entry(number).or_insert((Timestamp(i64::MAX), Timestamp(0)));
            *limit = of.fold(*limit, |(from, to), window| (from.min(window.declared_at), to.max(window.send_by)));
        }
        for (number, (from, to)) in limits {
            let Some(got) = shared.network.known().got.get(&format!("{}/+{number}", lane.batch)).cloned() else { continue };
            // Windows since the backup are gone with the store that was lost, and what was in them.
            let restored = shared.network.known().restored;
            let gone = |at: Timestamp| restored.is_some_and(|(taken, back)| (taken..=back).contains(&at));
            if got.last_at > to && !gone(got.last_at) {
                return Err(format!("handed over after its window's limit: +{number} at {:?}, {to:?}", got.last_at));
            }
            if got.first_at < from && !gone(got.first_at) {
                return Err(format!("handed over before it was declared: +{number} at {:?}, {from:?}", got.first_at));
            }
        }
    }
    Ok(())
}

/// The windows of a lane, as whoever ran or judged them wrote them down.
pub(super) async fn windows(shared: &Shared, lane: LaneKey) -> Result<Vec<OpenWindow>, String> {
    let stored = shared.stores.windows.list(lane, 0, 10_000).await.map_err(|error| error.to_string())?;
    let of = |stored: StoredWindow| stored.row.map(|row| row.window).or(stored.judgement.map(|judged| judged.window));
    Ok(stored.into_iter().filter_map(of).collect())
}

/// The numbers of a lane by their places.
pub(super) async fn places(shared: &Shared, lane: LaneKey) -> Result<Vec<(u32, u64)>, String> {
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
    let key = (line.outcome != Ends::Duplicate).then(|| key_of(id, line));
    let got = key.as_ref().and_then(|key| known.got.get(key)).cloned().unwrap_or_default();
    let wrong = |what: &str| Err(format!("{what}: {line:?} got {got:?}"));
    let complete = got.complete();
    match line.outcome {
        Ends::Accepted if complete != 1 && !known.again.is_whole(&key_of(id, line)) => return wrong("accepted, and not there"),
        // An order to send the refused again may have been lost with what came behind the backup.
        Ends::Failed if complete != 0 && !known.restored.is_some_and(|(taken, back)| (taken..=back).contains(&got.last_at)) => {
            return wrong("failed, and there");
        }
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
