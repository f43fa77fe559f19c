//! Until when a batch may be sent: whoever is called expired was declared behind that, and nobody is sent to long behind it.

use std::time::Duration;

use smsfleet::model::batch::{BatchRow, SmsBatch};
use smsfleet::model::lane::lane_of;
use smsfleet::model::limits::{BATCH_READING_MAX, SEND_BY};
use smsfleet::model::outcome::Outcome as Ends;
use smsfleet::model::schedule::LateStart;
use smsfleet::statistics::RecipientLine;

use super::lanes::Lane;
use super::oracle::digits;
use super::process::Shared;

/// How long after a declare began the limit was looked at: a declare rests on a reading that is not older.
const LOOKED_AT: Duration = BATCH_READING_MAX;

/// Holds a batch that has ended against the limit it was `asked` to keep.
pub fn check(shared: &Shared, row: &BatchRow, asked: &SmsBatch, lanes: &[Lane], lines: &[RecipientLine]) -> Result<(), String> {
    // An order to send again may have brought a later one.
    let (Some(first), Some(last)) = (asked.not_after, row.batch.not_after) else { return Ok(()) };
    for line in lines.iter().filter(|line| line.outcome == Ends::Expired) {
        let Some(number) = digits(line) else { continue };
        let lane = &lanes[usize::from(lane_of(number, row.lanes))];
        let mut mine = lane.place(number).into_iter().flat_map(|seq| lane.of(seq));
        if !mine.any(|held| held.window.declared_at.plus(LOOKED_AT) > first) {
            return Err(format!("expired, and never declared behind {first}: {line:?}"));
        }
    }
    if row.batch.late_start == LateStart::Send {
        // A person let it go on whatever the time.
        return Ok(());
    }
    let known = shared.network.known();
    let gone = |at| known.restored.is_some_and(|(taken, back)| (taken..=back).contains(&at));
    let of_it = known.got.iter().filter(|(key, _)| key.starts_with(&row.batch.batch_id.to_string()));
    match of_it.into_iter().find(|(_, got)| got.last_at > last.plus(SEND_BY) && !gone(got.last_at)) {
        Some((key, got)) => Err(format!("handed over long behind {last}: {key} at {}", got.last_at)),
        None => Ok(()),
    }
}
