//! One entry of the receipt index: fixed in size, known by hashes alone.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::model::id::Msisdn;
use crate::model::lane::mix;

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 22;

/// A part of a recipient under the hash of its account's message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Hash of account and message id.
    pub hash: u64,
    /// Hash of the number.
    pub number: u32,
    /// Short number of the batch.
    pub batch: u32,
    /// The recipient's place in the lane.
    pub seq: u32,
    /// The lane.
    pub lane: u8,
    /// The part.
    pub part: u8,
}

impl Entry {
    /// Appends the entry.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.hash.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.batch.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.push(self.lane);
        bytes.push(self.part);
    }

    /// Reads an entry.
    pub fn read(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let four = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Entry {
            hash: u64::from(four(0)) << 32 | u64::from(four(4)),
            number: four(8),
            batch: four(12),
            seq: four(16),
            lane: bytes[20],
            part: bytes[21],
        }
    }
}

/// Reads the entries of a row behind its head; bytes that make no whole entry are passed over.
pub fn entries(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Entry> + ExactSizeIterator {
    let (whole, _) = bytes.as_chunks::<ENTRY_BYTES>();
    whole.iter().map(Entry::read)
}

/// The entries of a block with this hash, the newest first: entries of one hash stand in the order they came in.
pub fn with_hash(block: &[u8], hash: u64) -> impl Iterator<Item = Entry> {
    let (whole, _) = block.as_chunks::<ENTRY_BYTES>();
    let key = hash.to_be_bytes();
    let from = whole.partition_point(|entry| entry[..8] < key[..]);
    let to = from + whole[from..].partition_point(|entry| entry[..8] == key[..]);
    whole[from..to].iter().rev().map(Entry::read)
}

/// Hash of an account's message id. Part of the stored form.
pub fn hash_id(account: &str, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), xxh3_64(account.as_bytes()))
}

/// Hash of a number. Part of the stored form.
pub fn hash_number(number: Msisdn) -> u32 {
    (mix(number.0) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_in_the_stored_form() {
        let entry = |hash, seq| Entry { hash, number: 0x0a0b_0c0d, batch: 7, seq, lane: 127, part: 2 };
        let mut bytes = Vec::new();
        for (hash, seq) in [(5, 1), (9, 2), (9, 3), (u64::MAX, 4)] {
            entry(hash, seq).write(&mut bytes);
        }
        assert_eq!(bytes[..ENTRY_BYTES], [0, 0, 0, 0, 0, 0, 0, 5, 10, 11, 12, 13, 0, 0, 0, 7, 0, 0, 0, 1, 127, 2]);
        assert_eq!(entries(&bytes).next(), Some(entry(5, 1)));
        let seqs = |hash| with_hash(&bytes, hash).map(|entry| entry.seq).collect::<Vec<_>>();
        assert_eq!((seqs(9), seqs(5), seqs(u64::MAX), seqs(6)), (vec![3, 2], vec![1], vec![4], vec![]));
    }

    #[test]
    fn hashes_are_the_ones_that_are_stored() {
        assert_eq!(hash_id("a", "1a2b"), hash_id("a", "1a2b"));
        assert_ne!(hash_id("a", "1a2b"), hash_id("b", "1a2b"));
        assert_eq!(hash_number(Msisdn(0)), 0xe220_a839);
    }
}
