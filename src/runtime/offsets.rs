//! Contiguous commits: an offset is committed only when every token before it is done or out of date.

use std::collections::BTreeMap;

/// The tokens of one partition that a worker holds.
#[derive(Clone, Debug)]
pub struct Offsets {
    open: BTreeMap<u64, ()>,
    next: u64,
    committed: u64,
}

impl Offsets {
    /// A partition whose next token has the offset `from`.
    pub fn new(from: u64) -> Offsets {
        Offsets { open: BTreeMap::new(), next: from, committed: from }
    }

    /// A token came. One that came before, and was ended, comes again only after a rebalance: it is taken in again.
    pub fn received(&mut self, offset: u64) {
        self.open.insert(offset, ());
        self.next = self.next.max(offset + 1);
    }

    /// A token is done or out of date.
    pub fn ended(&mut self, offset: u64) {
        self.open.remove(&offset);
    }

    /// How many are open.
    pub fn held(&self) -> u64 {
        self.open.len() as u64
    }

    /// Everything below this may be committed, if that is more than last time.
    pub fn to_commit(&mut self) -> Option<u64> {
        let next = self.open.keys().next().copied().unwrap_or(self.next);
        if next > self.committed {
            self.committed = next;
            return Some(next);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_committed_over_a_gap() {
        let mut offsets = Offsets::new(10);
        for offset in 10..14 {
            offsets.received(offset);
        }
        offsets.ended(11);
        assert_eq!(offsets.to_commit(), None);
        offsets.ended(10);
        assert_eq!(offsets.to_commit(), Some(12));
        offsets.ended(13);
        assert_eq!((offsets.to_commit(), offsets.held()), (None, 1));
        offsets.ended(12);
        assert_eq!(offsets.to_commit(), Some(14));
        assert_eq!(offsets.to_commit(), None);
    }
}
