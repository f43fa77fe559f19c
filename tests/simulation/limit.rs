//! Until when a batch may be sent: whoever is called expired was declared behind that, and nobody is sent to long behind it.

use std::time::Duration;

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::id::{LaneKey, Msisdn};
use smsfleet::model::lane::lane_of;
use smsfleet::model::limits::{BATCH_READING_MAX, SEND_BY};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::schedule::LateStart;
use smsfleet::statistics::RecipientLine;

use super::oracle::{places, windows};
use super::process::Shared;

/// How long after a declare began the limit was looked at: a declare rests on a reading that is not older.
const LOOKED_AT: Duration = BATCH_READING_MAX;

/// Holds a batch that has ended against the limit it was `asked` to keep.
pub async fn check(shared: &Shared, row: &BatchRow, asked: &SmsBatch, lines: &[RecipientLine]) -> Result<(), String> {
    let id = row.batch.batch_id;
    // An order to send again may have brought a later one.
    let (Some(first), Some(last)) = (asked.not_after, row.batch.not_after) else { return Ok(()) };
    for line in lines.iter().filter(|line| line.outcome == Ends::Expired) {
        let Some(number) = line.number.strip_prefix('+').and_then(|digits| digits.parse().ok()) else { continue };
        let lane = LaneKey { batch: id, lane: lane_of(Msisdn(number), row.lanes) };
        let place = places(shared, lane).await?.into_iter().find(|(_, of)| *of == number).map(|(seq, _)| seq);
        let windows = windows(shared, lane).await?;
        // Who is in a retry pack is not looked up: any of the lane's may hold them.
        let mut mine =
            windows.iter().filter(|window| window.leg != 0 || place.is_some_and(|seq| (window.from..window.to).contains(&seq)));
        if !mine.any(|window| window.declared_at.plus(LOOKED_AT) > first) {
            return Err(format!("expired, and never declared behind {first}: {line:?}"));
        }
    }
    if row.batch.late_start == LateStart::Send {
        // A person let it go on whatever the time.
        return Ok(());
    }
    let known = shared.network.known();
    let gone = |at| known.restored.is_some_and(|(taken, back)| (taken..=back).contains(&at));
    let of_it = known.got.iter().filter(|(key, _)| key.starts_with(&id.to_string()));
    match of_it.into_iter().find(|(_, got)| got.last_at > last.plus(SEND_BY) && !gone(got.last_at)) {
        Some((key, got)) => Err(format!("handed over long behind {last}: {key} at {}", got.last_at)),
        None => Ok(()),
    }
}
