//! Keys: fields in big endian, one behind the other, so that the order of the bytes is the order of the fields.

use crate::model::id::{BatchId, LaneKey, Msisdn, RangeKey, RecipientKey, WindowKey};
use crate::model::pack::PackKey;
use crate::model::time::Timestamp;
use crate::ports::StoreError;
use crate::ports::receipts::PartKey;

use super::frame::corrupt;

/// Builds a key field by field.
#[derive(Clone, Debug, Default)]
pub struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    /// An empty key: the first of a table.
    pub fn new() -> KeyBuilder {
        KeyBuilder(Vec::with_capacity(32))
    }

    /// A byte.
    pub fn u8(mut self, value: u8) -> KeyBuilder {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(mut self, value: u32) -> KeyBuilder {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(mut self, value: u64) -> KeyBuilder {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// An instant, in the order of time.
    pub fn time(self, at: Timestamp) -> KeyBuilder {
        self.u64(at.0 as u64 ^ 1 << 63)
    }

    /// A batch.
    pub fn batch(mut self, batch: BatchId) -> KeyBuilder {
        self.0.extend_from_slice(&batch.0.to_be_bytes());
        self
    }

    /// A lane.
    pub fn lane(self, lane: LaneKey) -> KeyBuilder {
        self.batch(lane.batch).u8(lane.lane)
    }

    /// A name of any length; its length goes first, so that no name runs into what follows.
    pub fn name(self, name: &str) -> KeyBuilder {
        let mut key = self.u32(u32::try_from(name.len()).unwrap_or(u32::MAX));
        key.0.extend_from_slice(name.as_bytes());
        key
    }

    /// The key.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Key of a batch.
pub fn batch(key: BatchId) -> Vec<u8> {
    KeyBuilder::new().batch(key).done()
}

/// Key of a range.
pub fn range(key: RangeKey) -> Vec<u8> {
    KeyBuilder::new().batch(key.batch).u32(key.range).done()
}

/// Key of a lane.
pub fn lane(key: LaneKey) -> Vec<u8> {
    KeyBuilder::new().lane(key).done()
}

/// Key of a pack.
pub fn pack(key: PackKey) -> Vec<u8> {
    KeyBuilder::new().lane(key.lane).u32(key.range).u32(key.attempt).u32(key.n).done()
}

/// Key of a window's row (`judged` false) or of its judgement.
pub fn window(key: WindowKey, judged: bool) -> Vec<u8> {
    KeyBuilder::new().lane(key.lane).u64(key.window).u8(u8::from(judged)).done()
}

/// First bytes of the keys of a recipient's parts.
pub fn recipient(key: RecipientKey) -> Vec<u8> {
    KeyBuilder::new().lane(key.lane).u32(key.seq).done()
}

/// Key of one report of one part: its rung and the digest of its raw text make it a cell of its own.
pub fn report(part: PartKey, rung: u8, digest: u64) -> Vec<u8> {
    KeyBuilder::new().lane(part.recipient.lane).u32(part.recipient.seq).u8(part.part).u8(rung).u64(digest).done()
}

/// First bytes of the keys of an account's uncertain entries for a number.
pub fn uncertain(account: &str, number: Msisdn) -> Vec<u8> {
    KeyBuilder::new().name(account).u64(number.0).done()
}

/// Reads a key field by field; a key that is too short is [`StoreError::Corrupt`].
pub struct KeyReader<'a>(pub &'a [u8]);

impl KeyReader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else {
            return Err(corrupt("key", "it is too short"));
        };
        self.0 = rest;
        Ok(*first)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, StoreError> {
        self.take::<1>().map(|bytes| bytes[0])
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    /// An instant.
    pub fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.u64().map(|bits| Timestamp((bits ^ 1 << 63) as i64))
    }

    /// A batch.
    pub fn batch(&mut self) -> Result<BatchId, StoreError> {
        self.take().map(|bytes| BatchId(u128::from_be_bytes(bytes)))
    }

    /// A lane.
    pub fn lane(&mut self) -> Result<LaneKey, StoreError> {
        Ok(LaneKey { batch: self.batch()?, lane: self.u8()? })
    }

    /// A recipient and a part of it.
    pub fn part(&mut self) -> Result<PartKey, StoreError> {
        let recipient = RecipientKey { lane: self.lane()?, seq: self.u32()? };
        Ok(PartKey { recipient, part: self.u8()? })
    }
}

/// The end of a range that holds all keys beginning with `prefix`; `None` when nothing lies behind it.
pub fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_order_of_the_fields() {
        let time = |at| KeyBuilder::new().time(Timestamp(at)).done();
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.windows(2).all(|pair| time(pair[0]) < time(pair[1])));
        for at in times {
            assert_eq!(KeyReader(&time(at)).time(), Ok(Timestamp(at)));
        }
        let of = |batch, lane, number| window(WindowKey { lane: LaneKey { batch: BatchId(batch), lane }, window: number }, false);
        assert!(of(1, 0, 256) < of(1, 1, 2) && of(1, 127, 3) < of(2, 0, 1) && of(1, 1, 255) < of(1, 1, 256));
        assert!(KeyReader(&[1, 2, 3]).u32().is_err());
    }

    #[test]
    fn the_end_of_a_prefix_lies_just_behind_it() {
        assert_eq!(behind(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(behind(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(behind(&[255]), None);
        assert_eq!(behind(&[]), None);
    }
}
