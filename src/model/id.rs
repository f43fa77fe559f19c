//! Names of things: batches, dispatches, workers, lanes, windows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hex;

/// The name of a batch: 128 bits derived from the tenant and the idempotency key of its creation, so that the same
/// request, sent twice, names the same batch. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchId(pub u128);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What was given as a batch id is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotABatchId;

impl fmt::Display for NotABatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch id has 32 hexadecimal digits")
    }
}

impl std::error::Error for NotABatchId {}

impl FromStr for BatchId {
    type Err = NotABatchId;

    fn from_str(text: &str) -> Result<BatchId, NotABatchId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotABatchId);
        }
        u128::from_str_radix(text, 16).map(BatchId).map_err(|_| NotABatchId)
    }
}

impl Serialize for BatchId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for BatchId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchId, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            u128::deserialize(deserializer).map(BatchId)
        }
    }
}

/// One dispatch of a batch: the batch and a number that only grows. Whatever carries a smaller number than the batch row
/// is out of date and does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskCode {
    /// The batch that was dispatched.
    pub batch: BatchId,
    /// Grows by one at each dispatch; 0 is "never dispatched".
    pub number: u64,
}

impl fmt::Display for TaskCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.batch, self.number)
    }
}

/// One life of one worker process: drawn at random when it starts, never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{:016x}", self.0)
    }
}

impl std::str::FromStr for WorkerId {
    type Err = String;

    /// Reads what [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<WorkerId, String> {
        let digits = text.strip_prefix('w').filter(|digits| digits.len() == 16);
        let number = digits.and_then(hex::number).and_then(|number| u64::try_from(number).ok());
        number.map(WorkerId).ok_or_else(|| format!("{text} is no worker: w and 16 hexadecimal digits"))
    }
}

/// A lane of a batch: the unit of ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneKey {
    /// The batch.
    pub batch: BatchId,
    /// The lane, below the batch's number of lanes.
    pub lane: u8,
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.batch, self.lane)
    }
}

/// A record range of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RangeKey {
    /// The batch.
    pub batch: BatchId,
    /// Which range, in the order of the source.
    pub range: u32,
}

/// A send window: named by the ledger version that declared it, so no two declares share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// The lane.
    pub lane: LaneKey,
    /// The ledger's version after the declare.
    pub window: u64,
}

/// One recipient of a batch: its lane and its place in the lane's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecipientKey {
    /// The lane.
    pub lane: LaneKey,
    /// Place in the manifest, struck-out ones counted.
    pub seq: u32,
}

/// A telephone number in E.164, as the digits after the plus sign (at most 15, so it fits). Its `Debug` and `Display` are
/// masked: a number reaches a log only through these.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Msisdn(pub u64);

impl Msisdn {
    /// What stands where a number was erased. No number in E.164 is 0.
    pub const ERASED: Msisdn = Msisdn(0);

    /// Whether the number was erased.
    pub fn is_erased(self) -> bool {
        self == Msisdn::ERASED
    }

    /// The digits without a plus sign, for the protocols and the operator's own reports. Never for a log.
    pub fn digits(self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let keep_front = digits.len().min(4);
        let back = if digits.len() > 8 { &digits[digits.len() - 2..] } else { "" };
        write!(f, "+{}{}{}", &digits[..keep_front], "*".repeat(digits.len() - keep_front - back.len()), back)
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_id_reads_back_what_it_wrote() {
        let id = BatchId(0x00ff_1234_0000_0000_0000_0000_0000_0001);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("12".parse::<BatchId>(), Err(NotABatchId));
        assert_eq!("+0000000000000000000000000000001".parse::<BatchId>(), Err(NotABatchId));
    }

    #[test]
    fn a_worker_is_written_in_one_way() {
        let worker = WorkerId(0x1f);
        assert_eq!(worker.to_string().parse(), Ok(worker));
        for text in ["w+00000000000001f", "w00000000000001F", "w1f", "000000000000001f"] {
            assert!(text.parse::<WorkerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_masked_wherever_they_are_printed() {
        assert_eq!(format!("{}", Msisdn(8_613_800_138_000)), "+8613*******00");
        assert_eq!(format!("{:?}", Msisdn(12345)), "+1234*");
    }
}
