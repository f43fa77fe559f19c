//! The recount: every record of a batch counted from the store, in exactly one outcome.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::walk::{History, Lane, REPORTS_PER_PAGE};
use crate::model::account::Account;
use crate::model::batch::BatchRow;
use crate::model::code::Code;
use crate::model::id::LaneKey;
use crate::model::outcome::Outcome;
use crate::model::pack::{ManifestPack, PackKey};
use crate::model::receipt::Delivery;
use crate::model::record::RangeState;
use crate::model::report::Settlement;
use crate::model::state::StepState;
use crate::model::step::CurrentStep;
use crate::model::time::Timestamp;
use crate::ports::{StoreError, Stores};

/// Different kinds of failure kept in a report; the rest is counted together.
const FAILURE_KINDS_MAX: usize = 200;
/// Lanes that are read side by side: a store on the network makes each read wait. All people of a lane are in memory meanwhile.
const LANES_AT_ONCE: usize = 4;

/// Counts a batch from its ranges, manifests, windows and receipts. Reads the whole history of the batch, lane by lane: for
/// the end of a step and for reports, not for progress bars. `row` is the batch's row as it was read before the call.
pub async fn recount(
    stores: &Stores,
    row: &BatchRow,
    accounts: &BTreeMap<String, Account>,
    now: Timestamp,
) -> Result<Settlement, StoreError> {
    let mut settlement = Settlement { counted: now, records: row.records, ..Settlement::default() };
    let unread = count_ranges(stores, row, &mut settlement).await?;
    if row.sealed.is_some() {
        let keys = (0..row.lanes).map(|lane| LaneKey { batch: row.batch.batch_id, lane: lane as u8 });
        let reading = keys.map(|key| read_lane(stores, accounts, key, now));
        let mut lanes = stream::iter(reading).buffered(LANES_AT_ONCE);
        while let Some((lane, deliveries)) = lanes.try_next().await? {
            count_lane(stores, lane, &deliveries, &mut settlement).await?;
            // A store in this process never makes it wait: a large batch would be one poll of many minutes.
            tokio::task::yield_now().await;
        }
    } else {
        count_unsealed(row, unread, &mut settlement);
    }
    settlement.delivery_num = settlement.deliveries.get(Delivery::Delivered.name()).copied().unwrap_or(0);
    settlement.segments = settlement.segments_by_account.values().sum();
    settlement.settled = has_ended(row)
        && settlement.of(Outcome::Open) == 0
        && settlement.deliveries.get(Delivery::Pending.name()).copied().unwrap_or(0) == 0;
    Ok(settlement)
}

fn has_ended(row: &BatchRow) -> bool {
    match row.current_step {
        CurrentStep::Delivery => row.delivery.state.is_final(),
        // A preparation that succeeded is followed by delivery in the same write.
        CurrentStep::Preparation => matches!(row.preparation.state, StepState::Canceled | StepState::CompletedFailed),
    }
}

/// Counts what preparation turned away. Answers how many records are not accounted for yet.
async fn count_ranges(stores: &Stores, row: &BatchRow, settlement: &mut Settlement) -> Result<u64, StoreError> {
    let mut accounted = 0;
    for (_, range) in stores.ranges.list(row.batch.batch_id).await? {
        let RangeState::Done(totals) = &range.row.state else { continue };
        for (code, records) in &totals.rejected {
            *settlement.rejected.entry(code.as_str().to_owned()).or_default() += records;
            settlement.count(Outcome::Rejected, *records);
            accounted += records;
        }
        settlement.count(Outcome::Suppressed, totals.suppressed);
        accounted += totals.suppressed;
    }
    Ok(row.records.saturating_sub(accounted))
}

/// A batch that was never sealed: what is left of its records is open, or ended with the preparation.
fn count_unsealed(row: &BatchRow, unread: u64, settlement: &mut Settlement) {
    match row.preparation.state {
        StepState::Canceled => settlement.count(Outcome::Canceled, unread),
        StepState::CompletedFailed if unread > 0 => {
            let code = row.preparation.reason.as_ref().map_or(Code::BatchUnsent, |(code, _)| *code);
            settlement.count(Outcome::Failed, unread);
            count_failure(settlement, code, "", unread);
        }
        StepState::Initial
        | StepState::Ready
        | StepState::Running
        | StepState::Paused
        | StepState::CompletedSucceeded
        | StepState::CompletedFailed => settlement.count(Outcome::Open, unread),
    }
}

/// A lane with its answers, and what became of each of its people by the receipts.
async fn read_lane(
    stores: &Stores,
    accounts: &BTreeMap<String, Account>,
    key: LaneKey,
    now: Timestamp,
) -> Result<(Lane, Vec<Option<Delivery>>), StoreError> {
    let mut lane = Lane::load(stores, accounts, key, &History::None).await?;
    // Without its manifest nobody of it can be named.
    let deliveries = if lane.manifest.is_some() { read_deliveries(stores, accounts, &mut lane, now).await? } else { vec![] };
    Ok((lane, deliveries))
}

async fn count_lane(
    stores: &Stores,
    lane: Lane,
    deliveries: &[Option<Delivery>],
    settlement: &mut Settlement,
) -> Result<(), StoreError> {
    let Some(manifest) = lane.manifest.clone() else {
        // The lane was sealed, so its manifest was there: its people cannot be named any more, but they are counted.
        let lost = lane.ledger.as_ref().map_or(0, |ledger| u64::from(ledger.len));
        settlement.count(Outcome::Failed, lost);
        count_failure(settlement, Code::StoreCorrupt, "manifest", lost);
        return Ok(());
    };
    for pack in &manifest.packs {
        let mut readable = None;
        for seq in pack.first_seq..pack.first_seq + pack.count {
            let (mut outcome, mut code) = lane.outcome(seq);
            // Whoever ended without any answer in a lane that is done was either canceled or cannot be read.
            if matches!(outcome, Outcome::Open | Outcome::Canceled) && lane.is_done() {
                let known = match readable {
                    Some(known) => known,
                    None => is_readable(stores, lane.key, pack).await?,
                };
                readable = Some(known);
                if !known {
                    (outcome, code) = (Outcome::Failed, Some(Code::StoreCorrupt));
                }
            }
            settlement.count(outcome, 1);
            if outcome == Outcome::Failed {
                let detail = lane.people.get(seq as usize).map_or("", |person| lane.detail_of(person));
                count_failure(settlement, code.unwrap_or(Code::Internal), detail, 1);
            }
            if outcome == Outcome::Accepted {
                let delivery = deliveries.get(seq as usize).copied().flatten().unwrap_or(Delivery::Pending);
                *settlement.deliveries.entry(delivery.name().to_owned()).or_default() += 1;
            }
        }
    }
    count_segments(stores, &lane, settlement).await
}

async fn read_deliveries(
    stores: &Stores,
    accounts: &BTreeMap<String, Account>,
    lane: &mut Lane,
    now: Timestamp,
) -> Result<Vec<Option<Delivery>>, StoreError> {
    let mut deliveries = vec![None; lane.people.len()];
    let mut next = 0u32;
    loop {
        let page = stores.receipts.list(lane.key, next, REPORTS_PER_PAGE).await?;
        for reports in page.chunk_by(|a, b| a.part.recipient.seq == b.part.recipient.seq) {
            let Some(seq) = reports.first().map(|report| report.part.recipient.seq) else { continue };
            let said = lane.take_reports(accounts, seq, reports, now);
            if let Some(place) = deliveries.get_mut(seq as usize) {
                *place = said;
            }
        }
        let Some(last) = page.last().map(|report| report.part.recipient.seq) else { break };
        next = last.saturating_add(1);
    }
    for (seq, place) in deliveries.iter_mut().enumerate() {
        if place.is_none() {
            *place = lane.take_reports(accounts, seq as u32, &[], now);
        }
    }
    Ok(deliveries)
}

/// Whether a pack's people can be read. A store that does not answer is an error, not a verdict.
pub(super) async fn is_readable(stores: &Stores, lane: LaneKey, pack: &ManifestPack) -> Result<bool, StoreError> {
    Ok(StoreError::unless_damaged(stores.packs.head(pack_key(lane, pack)).await)?.is_some())
}

/// The name of a manifest's pack.
pub(super) fn pack_key(lane: LaneKey, pack: &ManifestPack) -> PackKey {
    PackKey { lane, range: pack.range, attempt: pack.attempt, n: pack.n }
}

async fn count_segments(stores: &Stores, lane: &Lane, settlement: &mut Settlement) -> Result<(), StoreError> {
    let mut segments = lane.segments.clone();
    let mut payload = lane.payload.clone();
    payload.sort_unstable();
    let packs = lane.manifest.iter().flat_map(|manifest| &manifest.packs);
    let mut rest = &payload[..];
    for pack in packs {
        let here = rest.partition_point(|(seq, _)| *seq < pack.first_seq + pack.count);
        let (mine, behind) = rest.split_at(here);
        rest = behind;
        if mine.is_empty() {
            continue;
        }
        let head = StoreError::unless_damaged(stores.packs.head(pack_key(lane.key, pack)).await)?.unwrap_or_default();
        for (seq, account) in mine {
            let taken = head.segments.get((seq - pack.first_seq) as usize).copied().unwrap_or(1);
            segments[usize::from(*account)] += u64::from(taken);
        }
    }
    for (account, taken) in lane.accounts.iter().zip(segments) {
        if taken > 0 {
            *settlement.segments_by_account.entry(account.clone()).or_default() += taken;
        }
    }
    Ok(())
}

fn count_failure(settlement: &mut Settlement, code: Code, detail: &str, recipients: u64) {
    if recipients == 0 {
        return;
    }
    let mut kind = if detail.is_empty() { code.as_str().to_owned() } else { format!("{code} {detail}") };
    if settlement.failed.len() >= FAILURE_KINDS_MAX && !settlement.failed.contains_key(&kind) {
        kind = code.as_str().to_owned();
    }
    *settlement.failed.entry(kind).or_default() += recipients;
}
