//! A filter in memory for each run: says of nearly every hash that is not in the run that it is not, without reading.
//!
//! A split-block Bloom filter (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): one
//! cache line a hash. It is made with the run, or again after a start, and is never stored.

/// Bits for each entry: about one hash in a hundred is looked for in vain.
const BITS_PER_ENTRY: u64 = 10;
const WORDS: usize = 8;
const BLOCK_BITS: u64 = WORDS as u64 * 32;
/// Odd numbers, one for each word, that spread a hash over its bits.
const SALTS: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// See the file's first sentence.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[u32; WORDS]>,
}

impl Filter {
    /// An empty filter for this many entries.
    pub(super) fn for_entries(entries: u64) -> Filter {
        let blocks = (entries * BITS_PER_ENTRY).div_ceil(BLOCK_BITS).max(1);
        Filter { blocks: vec![[0; WORDS]; usize::try_from(blocks).unwrap_or(1)] }
    }

    /// Bytes a filter for this many entries takes.
    pub(super) fn bytes_for(entries: u64) -> u64 {
        entries * BITS_PER_ENTRY / 8
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let at = self.block_of(hash);
        for (word, mask) in self.blocks[at].iter_mut().zip(masks(hash)) {
            *word |= mask;
        }
    }

    /// `false`: certainly not in the run.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.blocks[self.block_of(hash)].iter().zip(masks(hash)).all(|(word, mask)| word & mask != 0)
    }

    /// By the upper half of the hash; the bits within the block are chosen by the lower.
    fn block_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize
    }
}

fn masks(hash: u64) -> impl Iterator<Item = u32> {
    let low = hash as u32;
    SALTS.into_iter().map(move |salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lane::mix;

    #[test]
    fn whatever_is_in_is_found_and_little_else() {
        let mut filter = Filter::for_entries(10_000);
        (0..10_000).for_each(|n| filter.insert(mix(n)));
        assert!((0..10_000).all(|n| filter.may_hold(mix(n))));
        let wrong = (10_000..110_000).filter(|n| filter.may_hold(mix(*n))).count();
        assert!(wrong < 3_000, "{wrong} of 100,000 are looked for in vain");
        let mut small = Filter::for_entries(0);
        small.insert(u64::MAX);
        assert!(small.may_hold(u64::MAX) && !small.may_hold(0));
    }
}
