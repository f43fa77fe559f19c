//! Receipts, parked reports and uncertain entries.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::{corrupt, read_small, small};
use crate::model::id::Msisdn;
use crate::model::receipt::{Ending, Report, Rung};
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::{MatchedReport, ParkedReport, PartKey, UncertainEntry};

#[derive(Serialize, Deserialize)]
struct StoredReport {
    account: String,
    message_id: String,
    number: Option<u64>,
    reference: Option<String>,
    rung: u8,
    done: Option<i64>,
    error: String,
    raw: String,
    received: i64,
}

/// The stored number of a rung: its height, then what kind of ending. In the order of the ladder; never given twice.
pub fn rung_number(rung: Rung) -> u8 {
    match rung {
        Rung::AcceptedByNetwork => 0x10,
        Rung::EnRoute => 0x20,
        Rung::Ended(Ending::Unknown) => 0x30,
        Rung::Ended(Ending::Failed) => 0x31,
        Rung::Ended(Ending::Expired) => 0x32,
        Rung::Ended(Ending::Deleted) => 0x33,
        Rung::Ended(Ending::Rejected) => 0x34,
        Rung::Delivered => 0x40,
    }
}

fn rung_of(number: u8) -> Result<Rung, StoreError> {
    Ok(match number {
        0x10 => Rung::AcceptedByNetwork,
        0x20 => Rung::EnRoute,
        0x30 => Rung::Ended(Ending::Unknown),
        0x31 => Rung::Ended(Ending::Failed),
        0x32 => Rung::Ended(Ending::Expired),
        0x33 => Rung::Ended(Ending::Deleted),
        0x34 => Rung::Ended(Ending::Rejected),
        0x40 => Rung::Delivered,
        _ => return Err(corrupt("report", "it holds a rung that this version does not know")),
    })
}

/// The key of a report's cell.
pub fn cell(part: PartKey, report: &Report) -> Vec<u8> {
    super::key::report(part, rung_number(report.rung), xxh3_64(report.raw.as_bytes()))
}

/// Writes a matched report.
pub fn write(account: &str, report: &Report) -> Vec<u8> {
    small(&stored(account, report))
}

/// Reads a matched report.
pub fn read(part: PartKey, bytes: &[u8]) -> Result<MatchedReport, StoreError> {
    let (account, report) = opened(read_small("report", bytes)?)?;
    Ok(MatchedReport { part, account, report })
}

#[derive(Serialize, Deserialize)]
struct StoredParked {
    id: u64,
    report: StoredReport,
    due: Option<i64>,
    looks: u32,
}

/// Writes a parked report.
pub fn write_parked(parked: &ParkedReport) -> Vec<u8> {
    small(&StoredParked {
        id: parked.id,
        report: stored(&parked.account, &parked.report),
        due: parked.due.map(|at| at.0),
        looks: parked.looks,
    })
}

/// Reads a parked report.
pub fn read_parked(bytes: &[u8]) -> Result<ParkedReport, StoreError> {
    let parked: StoredParked = read_small("parked report", bytes)?;
    let (account, report) = opened(parked.report)?;
    Ok(ParkedReport { id: parked.id, account, report, due: parked.due.map(Timestamp), looks: parked.looks })
}

/// Writes an uncertain entry; everything else of it is in its key.
pub fn write_uncertain(entry: &UncertainEntry) -> Vec<u8> {
    small(&(entry.declared_at.0,))
}

/// Reads when an uncertain entry's window was declared.
pub fn read_uncertain(bytes: &[u8]) -> Result<Timestamp, StoreError> {
    read_small::<(i64,)>("uncertain entry", bytes).map(|(at,)| Timestamp(at))
}

fn stored(account: &str, report: &Report) -> StoredReport {
    StoredReport {
        account: account.to_owned(),
        message_id: report.message_id.clone(),
        number: report.number.map(|number| number.0),
        reference: report.reference.clone(),
        rung: rung_number(report.rung),
        done: report.done,
        error: report.error.clone(),
        raw: report.raw.clone(),
        received: report.received.0,
    }
}

fn opened(row: StoredReport) -> Result<(String, Report), StoreError> {
    let report = Report {
        message_id: row.message_id,
        number: row.number.map(Msisdn),
        reference: row.reference,
        rung: rung_of(row.rung)?,
        done: row.done,
        error: row.error,
        raw: row.raw,
        received: Timestamp(row.received),
    };
    Ok((row.account, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{BatchId, LaneKey, RecipientKey};

    fn report(rung: Rung) -> Report {
        Report {
            message_id: "m1".into(),
            number: Some(Msisdn(300)),
            reference: None,
            rung,
            done: Some(-1),
            error: "000".into(),
            raw: "id:m1".into(),
            received: Timestamp(5),
        }
    }

    #[test]
    fn reports_read_back_on_every_rung() {
        let part = PartKey { recipient: RecipientKey { lane: LaneKey { batch: BatchId(1), lane: 2 }, seq: 3 }, part: 1 };
        let mut cells = std::collections::BTreeSet::new();
        for state in 1..=8 {
            let report = report(Rung::from_message_state(state).expect("a state of the table"));
            let read = read(part, &write("a", &report)).expect("it reads back");
            assert_eq!((read.account.as_str(), &read.report), ("a", &report));
            assert!(cells.insert(cell(part, &report)), "each rung is a cell of its own");
            assert_eq!(rung_number(report.rung) >> 4, report.rung.height());
        }
        let parked = ParkedReport { id: 9, account: "a".into(), report: report(Rung::EnRoute), due: None, looks: 2 };
        assert_eq!(read_parked(&write_parked(&parked)), Ok(parked));
    }

    #[test]
    fn the_form_is_the_one_that_is_stored() {
        let bytes = write("a", &report(Rung::Delivered));
        let golden = [&[1, 1, b'a', 2][..], b"m1", &[1, 172, 2, 0, 0x40, 1, 1, 3], b"000", &[5], b"id:m1", &[10]].concat();
        assert_eq!(bytes, golden);
    }
}
