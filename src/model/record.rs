//! Records and record ranges: the plan of a preparation, and the control row of each range.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::code::Code;
use super::id::WorkerId;
use super::limits::LANES_MAX;
use super::time::Timestamp;

/// What a source was when the batch was planned. A range that reads another fingerprint fails with
/// [`Code::SourceChanged`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Bytes of the source; its records where it has no bytes.
    pub size: u64,
    /// What the storage calls this version: modification time and inode of a file, etag of an object.
    pub version: String,
    /// XXH3-64 of the whole content, or of what stands for it.
    pub content: u64,
}

/// One range of the source as it was planned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePlan {
    /// First byte (file) or whatever the source counts in.
    pub from: u64,
    /// Just behind the last byte.
    pub to: u64,
    /// Number of the first record, from 0.
    pub first_record: u64,
    /// Line of the first record, from 1 (the header is a line).
    pub first_line: u64,
    /// Records in the range, malformed ones counted.
    pub records: u64,
    /// XXH3-64 of the range's bytes, or of its keys and when each was last written.
    pub content: u64,
    /// The file the range lies in, when the list is a folder of several. Bytes and lines are that file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Box<PartPlan>>,
    /// Which keys it covers, when the source is a table that is read by keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Box<KeyRange>>,
}

/// A range of a table, in the order of its keys. An end that is not there is the table's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The last record of the range before: not a part of this one.
    pub after: Option<RecordKey>,
    /// The last record that belongs to it.
    pub upto: Option<RecordKey>,
}

/// The key of a record in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordKey {
    /// The partition it lies in.
    pub partition: String,
    /// Its place within the partition.
    pub row: String,
}

/// One file or object of a list that is a folder, as it was planned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPlan {
    /// Its name within the folder.
    pub name: String,
    /// What it was.
    pub fingerprint: Fingerprint,
    /// How it is to be read, in the source adapter's own words.
    pub dialect: String,
    /// Where its text ends, in the unit of [`RangePlan::to`].
    pub end: u64,
}

/// The plan of a source: stored once, never made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlan {
    /// What was planned.
    pub fingerprint: Fingerprint,
    /// How the source is to be read (dialect, header, encoding), in the source adapter's own words.
    pub dialect: String,
    /// Names of the columns, in order.
    pub columns: Vec<String>,
    /// The ranges, in order.
    pub ranges: Vec<RangePlan>,
    /// Records in all ranges.
    pub records: u64,
}

/// One record: its place in the source and its fields, in the order of the plan's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the record in the source, from 0.
    pub record: u64,
    /// Line in the source, from 1.
    pub line: u64,
    /// The fields, or why there are none.
    pub fields: Result<Vec<String>, RowFault>,
}

impl Record {
    /// Bytes it takes in memory, about: an empty field takes some too.
    pub fn bytes(&self) -> usize {
        match &self.fields {
            Ok(fields) => fields.iter().map(|field| size_of::<String>() + field.len()).sum(),
            Err(fault) => fault.detail.len(),
        }
    }
}

/// Why a record cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFault {
    /// The reason.
    pub code: Code,
    /// What exactly, without personal data ("has 3 fields, the header has 5").
    pub detail: String,
}

/// Why a record never became a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RejectKind {
    /// It cannot be sent.
    Rejected,
    /// The number is on the suppression list.
    Suppressed,
}

/// A record that never became a message, kept with its reason: nothing is dropped in silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Number of the record in the source, from 0.
    pub record: u64,
    /// Line in the source, from 1.
    pub line: u64,
    /// Rejected or suppressed.
    pub kind: RejectKind,
    /// The reason; for a suppressed number the reason is its kind and the code is `None`.
    pub code: Option<Code>,
    /// What exactly.
    pub detail: String,
    /// What stood in the number column, so that the operator finds the row (personal data: reports only).
    pub number: String,
}

impl Reject {
    /// Whether what stood in the number column is `number`. The list may have it without its country code.
    pub fn fits(&self, number: super::id::Msisdn) -> bool {
        let digits: String = self.number.chars().filter(char::is_ascii_digit).collect();
        digits.len() >= 7 && number.digits().ends_with(digits.trim_start_matches('0'))
    }
}

/// A rendered text shown in the plan, so that an operator sees what would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Line in the source.
    pub line: u64,
    /// The text, signature and link included (personal data: plan only).
    pub text: String,
    /// Segments it takes.
    pub segments: u8,
    /// Why it was chosen: "longest", "strangest".
    pub why: String,
    /// How strongly it was chosen; larger wins when ranges are put together.
    pub weight: u32,
}

/// What a finished range found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RangeTotals {
    /// Records read.
    pub records: u64,
    /// Rejected records by reason.
    pub rejected: Vec<(Code, u64)>,
    /// Records whose number is suppressed.
    pub suppressed: u64,
    /// Messages made.
    pub messages: u64,
    /// Packs written for each lane: `packs[lane]` packs named `n = 0..`.
    pub packs: Vec<u32>,
    /// Hash over all packs of the attempt, in order.
    pub hash: u64,
    /// Samples for the plan.
    pub samples: Vec<Sample>,
}

/// More records than any range has. Sums of such numbers over all ranges and reasons stay far below what a `u64` holds.
const RECORDS_MOST: u64 = 1 << 40;

impl RangeTotals {
    /// What no attempt can have counted, when there is such a thing.
    fn check(&self) -> Result<(), &'static str> {
        let rejected = self.rejected.iter().map(|(_, records)| *records);
        if rejected.chain([self.records, self.suppressed, self.messages]).any(|records| records > RECORDS_MOST) {
            return Err("a range has more records than any");
        }
        // Nobody writes an empty pack.
        let packs: u64 = self.packs.iter().map(|packs| u64::from(*packs)).sum();
        let too_many = self.packs.len() > usize::from(LANES_MAX) || packs > self.messages;
        if too_many { Err("a range has more packs than its messages fill") } else { Ok(()) }
    }
}

impl<'de> Deserialize<'de> for RangeTotals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RangeTotals, D::Error> {
        let totals = RangeTotals::deserialize(deserializer)?;
        totals.check().map_err(D::Error::custom).map(|()| totals)
    }
}

impl Serialize for RangeTotals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RangeTotals::serialize(self, serializer)
    }
}

/// Where a range stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeState {
    /// Nobody has it.
    Waiting,
    /// A worker reads it.
    Claimed,
    /// The attempt named by the row has won; its packs are the range's packs.
    Done(Box<RangeTotals>),
    /// It cannot be read.
    Failed(RowFault),
}

/// The control row of a range. An attempt is named when it is claimed; the finish is a compare-and-set on the row, so only
/// one attempt ever wins, and packs of the others are garbage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[doc(alias = "RecordRange")]
pub struct RangeRow {
    /// The range as planned.
    pub plan: RangePlan,
    /// Number of the attempt that holds or won it; 0 before the first.
    #[serde(deserialize_with = "super::growing::read")]
    pub attempt: u32,
    /// Who holds it.
    pub owner: WorkerId,
    /// The holder's last sign of life.
    pub heart_beat: Timestamp,
    /// Records the holder has read so far (an estimate, for the progress bar).
    pub progress: u64,
    /// Where it stands.
    pub state: RangeState,
}

impl RangeRow {
    /// A range that nobody has read yet.
    pub fn planned(plan: RangePlan) -> RangeRow {
        RangeRow { plan, attempt: 0, owner: WorkerId(0), heart_beat: Timestamp(0), progress: 0, state: RangeState::Waiting }
    }

    /// The row after `worker` claims the range, or `None` when there is nothing to claim: it has ended, or somebody else
    /// showed a sign of life less than `dead_after_ms` ago.
    pub fn claim(&self, worker: WorkerId, now: Timestamp, dead_after_ms: u64) -> Option<RangeRow> {
        match self.state {
            RangeState::Waiting => {}
            RangeState::Claimed if self.owner != worker && now.since(self.heart_beat).as_millis() as u64 >= dead_after_ms => {}
            RangeState::Claimed | RangeState::Done(_) | RangeState::Failed(_) => return None,
        }
        Some(RangeRow {
            attempt: self.attempt + 1,
            owner: worker,
            heart_beat: now,
            progress: 0,
            state: RangeState::Claimed,
            ..self.clone()
        })
    }

    /// The row after a sign of life, or `None` when `attempt` no longer holds the range.
    #[doc(alias = "heart_beat")]
    pub fn beat(&self, attempt: u32, progress: u64, now: Timestamp) -> Option<RangeRow> {
        (self.attempt == attempt && self.state == RangeState::Claimed).then(|| RangeRow {
            heart_beat: now,
            progress,
            ..self.clone()
        })
    }

    /// The row after `attempt` stopped before its end, so that the next attempt need not wait for it to look dead; `None`
    /// when it no longer holds the range.
    pub fn release(&self, attempt: u32) -> Option<RangeRow> {
        (self.attempt == attempt && self.state == RangeState::Claimed).then(|| RangeRow {
            progress: 0,
            state: RangeState::Waiting,
            ..self.clone()
        })
    }

    /// The row after `attempt` ended with `state`, or `None` when it no longer holds the range.
    pub fn finish(&self, attempt: u32, state: RangeState, now: Timestamp) -> Option<RangeRow> {
        (self.attempt == attempt && self.state == RangeState::Claimed).then(|| RangeRow {
            heart_beat: now,
            progress: self.plan.records,
            state,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_attempt_wins() {
        let row = RangeRow::planned(RangePlan { records: 10, ..RangePlan::default() });
        let first = row.claim(WorkerId(1), Timestamp(0), 1_000).expect("a waiting range is claimed");
        assert_eq!(first.claim(WorkerId(2), Timestamp(999), 1_000), None, "its owner lives");
        let second = first.claim(WorkerId(2), Timestamp(1_000), 1_000).expect("its owner is dead");
        assert_eq!(second.attempt, 2);
        let done = RangeState::Done(Box::default());
        assert_eq!(second.finish(1, done.clone(), Timestamp(1_001)), None, "the frozen one changes nothing");
        let finished = second.finish(2, done, Timestamp(1_001)).expect("the holder finishes");
        assert_eq!(finished.claim(WorkerId(3), Timestamp(99_999), 1_000), None);
        assert_eq!(finished.beat(2, 1, Timestamp(2)), None);
        assert_eq!(finished.release(2), None);
    }

    #[test]
    fn totals_that_no_attempt_counted_are_damage() {
        let read = |totals: RangeTotals| {
            let row = RangeRow { state: RangeState::Done(Box::new(totals)), ..RangeRow::planned(RangePlan::default()) };
            let json = serde_json::to_string(&row).expect("a row is JSON");
            serde_json::from_str::<RangeRow>(&json).map(|read| assert_eq!(read, row)).is_ok()
        };
        let of = |messages, packs: &[u32]| RangeTotals { messages, packs: packs.to_vec(), ..RangeTotals::default() };
        assert!(read(of(0, &[])) && read(of(5, &[2, 3, 0, 0])) && read(of(128, &[1; 128])));
        assert!(!read(of(4, &[2, 3])), "a pack nobody is in");
        assert!(!read(of(1_000, &[u32::MAX])), "whoever seals would look for four billion packs");
        assert!(!read(of(1_000, &[1; 129])), "a lane that no batch has");
        assert!(!read(of(u64::MAX, &[])));
        assert!(!read(RangeTotals { records: u64::MAX, ..RangeTotals::default() }));
        assert!(!read(RangeTotals { rejected: vec![(Code::RowTextEmpty, u64::MAX)], ..RangeTotals::default() }));
    }

    #[test]
    fn a_released_range_is_claimed_at_once_under_a_new_attempt() {
        let claimed = RangeRow::planned(RangePlan::default()).claim(WorkerId(1), Timestamp(0), 1_000).expect("claimed");
        assert_eq!(claimed.claim(WorkerId(1), Timestamp(9_000), 1_000), None, "it holds it already");
        assert_eq!(claimed.release(2), None);
        let next = claimed.release(1).and_then(|row| row.claim(WorkerId(1), Timestamp(1), 1_000)).expect("claimed again");
        assert_eq!(next.attempt, 2);
    }
}
