//! Stored rows: every form that `adapters/rows` writes, as damaged as can be.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::ser::SerializeTuple;
use serde::{Serialize, Serializer};
use smsfleet::adapters::rows::frame::{block, read_block, read_small, small, unpacked_max};
use smsfleet::adapters::rows::{control, manifest, pack, receipt, reject, window};
use smsfleet::model::batch::{BatchRow, COMMANDS};
use smsfleet::model::fleet::Sheet;
use smsfleet::model::id::{BatchId, LaneKey, RecipientKey, WorkerId};
use smsfleet::model::ledger::Ledger;
use smsfleet::model::pack::PackHead;
use smsfleet::model::record::RangeRow;
use smsfleet::model::slot::Slots;
use smsfleet::model::time::Timestamp;
use smsfleet::ports::StoreError;
use smsfleet::ports::control::Versioned;
use smsfleet::ports::receipts::{PartKey, UncertainEntry};
use xxhash_rust::xxh3::xxh3_64;

use super::input::Input;
use super::is_reason;

/// An octet that says which form, and whether what follows is the row as it stands or what its frame holds.
pub fn rows(input: &[u8]) -> bool {
    let mut input = Input(input);
    let kind = input.byte();
    let (is_raw, rest) = (kind & 0x80 > 0, input.0);
    let framed = |octets: &[u8]| if is_raw { octets.to_vec() } else { block(&Raw(octets)) };
    let (large, small) = (framed(rest), if is_raw { rest.to_vec() } else { small(&Raw(rest)) });
    let part = PartKey { recipient: RecipientKey { lane: LaneKey { batch: BatchId(1), lane: 2 }, seq: 3 }, part: 1 };
    match kind & 0x7F {
        0 => {
            // Two rows that belong together, the first behind its length.
            let mut both = Input(rest);
            let (head, texts) = (framed(both.piece()), framed(both.0));
            let Some(read) = known(pack::read(&head, &texts)) else { return false };
            let (head, texts) = pack::write(&read);
            assert_eq!(pack::read_head(&head), Ok(read.head()));
            assert_eq!(pack::read(&head, &texts), Ok(read));
            true
        }
        1 => reads_back(&large, pack::read_head, None::<fn(&PackHead) -> Vec<u8>>),
        2 => reads_back(&large, manifest::read, Some(manifest::write)),
        3 => reads_back(&large, reject::read, Some(|rejects: &Vec<_>| reject::write(rejects))),
        4 => reads_back(&large, window::read, Some(window::write)),
        5 => reads_back(&large, window::read_judgement, Some(window::write_judgement)),
        6 => reads_back(&large, window::read_retry, Some(window::write_retry)),
        7 => {
            let read = |row: &[u8]| receipt::read(part, row);
            reads_back(
                &small,
                read,
                Some(|of: &smsfleet::ports::receipts::MatchedReport| receipt::write(&of.account, &of.report)),
            )
        }
        8 => reads_back(&small, receipt::read_parked, Some(receipt::write_parked)),
        9 => {
            let entry = |at: &Timestamp| UncertainEntry {
                account: "a".into(),
                number: smsfleet::model::id::Msisdn(1),
                part,
                declared_at: *at,
            };
            reads_back(&small, receipt::read_uncertain, Some(|at: &Timestamp| receipt::write_uncertain(&entry(at))))
        }
        // What journals, documents and facts are kept in, and the store's own counters.
        10 => reads_back(&small, read_of::<(String,)>, Some(frame_of)),
        11 => reads_back(&small, read_of::<(u64, BatchId)>, Some(frame_of)),
        _ => reads_back(&small, read_of::<(u64,)>, Some(frame_of)),
    }
}

/// Blocks with a checksum that is right: an octet with the method, four with the length it claims, then its body.
pub fn blocks(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (method, length, body) = (input.byte(), input.number(), input.0);
    let mut row = [&[1; 9][..], &[method], &length.to_le_bytes(), body].concat();
    let checksum = xxh3_64(&row[9..]);
    row[1..9].copy_from_slice(&checksum.to_le_bytes());
    let Some(read) = known(read_block::<Vec<u8>>("row", &row)) else { return false };
    assert!(read.len() <= unpacked_max(body.len()), "{} bytes out of {}", read.len(), body.len());
    assert_eq!(read_block("row", &block(&read)), Ok(read));
    true
}

/// Control rows: an octet that says whose, then JSON.
pub fn control_rows(input: &[u8]) -> bool {
    let mut input = Input(input);
    let kind = input.byte();
    let row = [&[1][..], &7u64.to_be_bytes(), &9u64.to_be_bytes(), input.0].concat();
    let now = Timestamp(1_767_367_860_000);
    match kind % 5 {
        0 => control_row::<Ledger>(&row).is_some_and(|ledger| {
            let all = u64::from(ledger.len) + ledger.legs.iter().map(|leg| u64::from(leg.len)).sum::<u64>();
            assert!(ledger.undeclared() <= all);
            let _ = (ledger.in_flight(), ledger.is_done(), ledger.first_pass(), ledger.next_due(), ledger.next_leg(now).is_ok());
            let _ = ledger.claim(WorkerId(1), u64::MAX);
            true
        }),
        1 => control_row::<BatchRow>(&row).is_some_and(|batch| {
            for command in COMMANDS {
                let changed = batch.command(command, now);
                assert!(changed.is_err() || batch.can(command).is_ok());
            }
            let _ = (batch.start_decision(now), batch.is_active(), batch.is_over(), batch.task_code());
            true
        }),
        2 => control_row::<RangeRow>(&row).is_some_and(|range| {
            let claimed = range.claim(WorkerId(1), now, 1_000);
            assert!(claimed.is_none_or(|claimed| claimed.attempt > range.attempt));
            true
        }),
        3 => document::<Slots>(input.0).is_some_and(|slots| {
            let next = slots.next(2, &[WorkerId(1), WorkerId(2)].into(), now);
            assert!(next.lent.len() <= slots.lent.len().max(2) && next.had.len() <= slots.had.len() + slots.lent.len());
            let _ = slots.holds(WorkerId(1), now);
            true
        }),
        _ => document::<Sheet>(input.0).is_some(),
    }
}

fn control_row<T: Serialize + DeserializeOwned + PartialEq + Debug>(row: &[u8]) -> Option<T> {
    let read: Versioned<T> = known(control::read("row", row))?;
    assert_eq!((read.version, read.nonce), (7, 9));
    assert_eq!(control::read("row", &control::write(7, 9, &read.row)).as_ref(), Ok(&read), "a row reads back");
    Some(read.row)
}

fn document<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let again = serde_json::to_vec(&read).expect("a document has only names as keys");
    assert_eq!(serde_json::from_slice::<T>(&again).ok().as_ref(), Some(&read), "a document reads back");
    Some(read)
}

/// A row that is read is written and read again: the same.
fn reads_back<T: PartialEq + Debug>(
    row: &[u8],
    read: impl Fn(&[u8]) -> Result<T, StoreError>,
    write: Option<impl Fn(&T) -> Vec<u8>>,
) -> bool {
    let Some(found) = known(read(row)) else { return false };
    if let Some(write) = write {
        assert_eq!(read(&write(&found)), Ok(found), "a row reads back");
    }
    true
}

/// What was read; a row that cannot be read is damaged, for a reason that does not copy it.
fn known<T>(read: Result<T, StoreError>) -> Option<T> {
    match read {
        Ok(read) => Some(read),
        Err(StoreError::Corrupt(reason)) => {
            assert!(is_reason(&reason) && reason.len() < 200, "{reason}");
            None
        }
        Err(other) => panic!("a damaged row is damaged, not {other:?}"),
    }
}

fn read_of<T: DeserializeOwned>(row: &[u8]) -> Result<T, StoreError> {
    read_small("row", row)
}

fn frame_of<T: Serialize>(row: &T) -> Vec<u8> {
    small(row)
}

/// Octets that a frame holds as they are.
pub struct Raw<'a>(pub &'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|octet| tuple.serialize_element(octet))?;
        tuple.end()
    }
}
