//! Reports that match nothing yet: parked under a due time, looked for again, and visible as unmatched in the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::intake::Intake;
use super::matching::{Found, find, only_uncertain};
use crate::model::id::Msisdn;
use crate::model::lane::mix;
use crate::model::receipt::Report;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{MatchedReport, ParkedReport};

/// Delays before the looks; the last one repeats.
const DELAYS: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(20),
    Duration::from_secs(120),
    Duration::from_secs(900),
];
/// From this look on a report may settle an uncertain recipient: an early report has met its own answer by then.
const UNCERTAIN_FROM: u32 = 2;
/// Parked reports looked over at once.
const AT_ONCE: usize = 2_000;

/// A report parked for the first time.
pub fn first_parked(account: &str, report: &Report, now: Timestamp) -> ParkedReport {
    ParkedReport {
        id: name_of(account, report),
        account: account.to_owned(),
        report: report.clone(),
        due: Some(now.plus(DELAYS[0])),
        looks: 0,
    }
}

/// The name of a parked report, from what it says: parking the same report twice is parking it once.
fn name_of(account: &str, report: &Report) -> u64 {
    let fields = [account.as_bytes(), report.message_id.as_bytes(), report.rung.stat().as_bytes(), report.raw.as_bytes()];
    let mut name = mix(report.number.map_or(0, |number| number.0));
    for field in fields {
        for chunk in field.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            name = mix(name ^ u64::from_le_bytes(word));
        }
        name = mix(name ^ field.len() as u64);
    }
    name
}

/// What reports of one message have in common.
fn message_of(parked: &ParkedReport) -> (String, Option<Msisdn>, String) {
    (parked.account.clone(), parked.report.number, parked.report.message_id.clone())
}

/// Looks for the recipients of parked reports that are due.
pub async fn look_again(intake: &Intake) -> Result<(), StoreError> {
    let now = intake.world.clock.now();
    let due = intake.stores.parked.due(now, AT_ONCE).await?;
    if due.is_empty() {
        return Ok(());
    }
    let (mut matched, mut settled, mut again, mut open) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut take = |parked: ParkedReport, (part, number): Found| {
        settled.push(parked.id);
        MatchedReport { part, account: parked.account, report: Report { number, ..parked.report } }
    };
    let mut by_account: BTreeMap<String, Vec<ParkedReport>> = BTreeMap::new();
    for parked in due {
        by_account.entry(parked.account.clone()).or_default().push(parked);
    }
    for (name, parked) in by_account {
        let Some(account) = intake.account(&name) else {
            again.extend(parked.into_iter().map(|parked| ParkedReport { due: None, ..parked }));
            continue;
        };
        let reports: Vec<&Report> = parked.iter().map(|parked| &parked.report).collect();
        let found = find(&intake.stores, &intake.known, intake.world.clock.boot(), account, &reports).await?;
        for (parked, found) in parked.into_iter().zip(found) {
            match found {
                Some(found) => matched.push(take(parked, found)),
                None => open.push((parked, account)),
            }
        }
    }
    intake.record(matched).await?;
    let (mut matched, mut heard) = (Vec::new(), HashMap::new());
    let mut unknown = Vec::new();
    for (parked, account) in open {
        let found = match parked.looks >= UNCERTAIN_FROM {
            true => only_uncertain(&intake.stores, account, &parked.report).await?,
            false => None,
        };
        match found {
            Some(found) => {
                heard.insert(message_of(&parked), found);
                matched.push(take(parked, found));
            }
            None => unknown.push((parked, account)),
        }
    }
    // Whom one of them is about, the others of its message are about too, in whatever order they were looked for.
    let mut open = Vec::new();
    for (parked, account) in unknown {
        let may_be_told = parked.looks >= UNCERTAIN_FROM && !parked.report.message_id.is_empty();
        match heard.get(&message_of(&parked)).filter(|_| may_be_told) {
            Some(found) => matched.push(take(parked, *found)),
            None => open.push((parked, account)),
        }
    }
    intake.record(matched).await?;
    again.extend(open.into_iter().map(|(parked, account)| later(parked, account.receipts.wait, now)));
    // Recorded first: a crash between the two only finds them once more.
    intake.stores.parked.remove(settled).await?;
    if !again.is_empty() {
        intake.stores.parked.park(again).await?;
    }
    Ok(())
}

/// The report with its next due time; none once it was looked for twice as long as receipts are waited for. Who was sent to may be
/// known late: a window whose sender died is judged when somebody serves its lane again.
fn later(parked: ParkedReport, wait: Duration, now: Timestamp) -> ParkedReport {
    // How often decides only when it is looked for next: a damaged count begins no look anew.
    let looks = parked.looks.saturating_add(1);
    // Where receipts are not waited for long, looks must not be further apart than the wait allows.
    let delay = DELAYS[(looks as usize).min(DELAYS.len() - 1)].min((wait / 8).max(DELAYS[0]));
    let due = now.plus(delay);
    let given_up = now.since(parked.report.received) > wait * 2 && looks >= UNCERTAIN_FROM;
    ParkedReport { looks, due: (!given_up).then_some(due), ..parked }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::receipt::Rung;

    fn report(raw: &str) -> Report {
        Report {
            message_id: "1".into(),
            number: None,
            reference: None,
            rung: Rung::Delivered,
            done: None,
            error: String::new(),
            raw: raw.into(),
            received: Timestamp(0),
        }
    }

    #[test]
    fn the_same_report_is_parked_once() {
        let name = |account, raw| first_parked(account, &report(raw), Timestamp(5)).id;
        assert_eq!(name("a", "x"), name("a", "x"));
        assert_ne!(name("a", "x"), name("b", "x"));
        assert_ne!(name("a", "x"), name("a", "y"));
        assert_ne!(name("a", "12345678"), name("a", "123456780"));
    }

    #[test]
    fn a_report_looked_for_more_often_than_can_be_counted_is_looked_for_as_seldom_as_any() {
        let (now, wait) = (Timestamp(0), Duration::from_secs(86_400));
        let parked = ParkedReport { looks: u32::MAX, ..first_parked("a", &report("x"), now) };
        assert_eq!(later(parked, wait, now).due, Some(now.plus(DELAYS[DELAYS.len() - 1])));
    }

    #[test]
    fn looking_ends_with_the_accounts_time_and_the_report_stays() {
        let wait = Duration::from_secs(3600);
        let mut parked = first_parked("a", &report("x"), Timestamp(0));
        let (mut looks, mut last) = (0, Timestamp(0));
        while let Some(due) = parked.due {
            last = due;
            parked = later(parked, wait, due);
            looks += 1;
            assert!(looks < 100, "it ends");
        }
        assert!(parked.looks > 5);
        // Whoever it belongs to may be known late.
        assert!(last.since(Timestamp(0)) > wait * 3 / 2, "{last:?}");
    }
}
