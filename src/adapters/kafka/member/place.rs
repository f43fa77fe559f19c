//! How far one partition is: what was received, what may be committed, what was.

use std::collections::BTreeSet;

/// The places of one partition, for as long as it is held.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Behind the last message that was received.
    next: Option<u64>,
    /// Everything below is done.
    done: u64,
    /// What the broker has; `None` when it has nothing.
    sent: Option<u64>,
    /// Whether `done` and `sent` are known.
    is_begun: bool,
    /// Messages at or above `done` that cannot be read: they are done once everything before them is.
    broken: BTreeSet<u64>,
}

impl Place {
    /// Where the partition stands when it is given to us: what its group committed, and the first message there still is.
    /// A group that committed nothing, or what is gone by now, begins there.
    pub(super) fn begin(&mut self, committed: Option<u64>, first: u64) {
        self.is_begun = true;
        self.sent = committed;
        self.done = committed.unwrap_or(first).max(first);
    }

    /// Whether messages up to this one came already.
    pub(super) fn came_before(&self, offset: u64) -> bool {
        self.next.is_some_and(|next| offset < next)
    }

    /// A message came. `false` when it came before: a fetch that was begun anew.
    pub(super) fn received(&mut self, offset: u64) -> bool {
        if self.came_before(offset) {
            return false;
        }
        if !self.is_begun {
            self.begin(Some(offset), offset);
        } else if self.next.is_none() && offset != self.done {
            // Nothing lies between the committed offset and the first message. One before it says that the log was lost and
            // began anew: then the committed offset means nothing.
            self.sent = self.sent.filter(|_| offset > self.done);
            self.done = offset;
        }
        self.next = Some(offset + 1);
        true
    }

    /// A message came that cannot be read.
    pub(super) fn broken(&mut self, offset: u64) -> bool {
        let is_new = self.received(offset);
        if is_new {
            self.broken.insert(offset);
            self.advance();
        }
        is_new
    }

    /// Everything below `next_offset` is done, as far as it was received. Never goes back.
    pub(super) fn done(&mut self, next_offset: u64) {
        self.done = self.done.max(next_offset.min(self.next.unwrap_or(0)));
        self.advance();
    }

    fn advance(&mut self) {
        self.broken = self.broken.split_off(&self.done);
        while self.broken.remove(&self.done) {
            self.done += 1;
        }
    }

    /// What should be committed, if that is more than the broker has.
    pub(super) fn to_commit(&self) -> Option<u64> {
        let is_more = self.sent.is_none_or(|sent| self.done > sent);
        (self.is_begun && is_more).then_some(self.done)
    }

    /// The broker has it.
    pub(super) fn committed(&mut self, offset: u64) {
        self.sent = self.sent.max(Some(offset));
    }

    /// Messages that cannot be read and are not done.
    pub(super) fn broken_open(&self) -> u64 {
        self.broken.len() as u64
    }

    /// Messages that were received and are not done.
    pub(super) fn open(&self) -> u64 {
        self.next.unwrap_or(0).saturating_sub(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(committed: u64) -> Place {
        let mut place = Place::default();
        place.begin(Some(committed), 0);
        place
    }

    #[test]
    fn commits_grow_up_to_what_was_received() {
        let mut place = begun(5);
        assert_eq!((place.to_commit(), place.open()), (None, 0));
        for offset in 5..8 {
            assert!(place.received(offset));
        }
        assert!(!place.received(6), "it came before");
        assert_eq!(place.open(), 3);
        place.done(7);
        assert_eq!((place.to_commit(), place.open()), (Some(7), 1));
        place.done(6);
        assert_eq!(place.to_commit(), Some(7), "never back");
        place.committed(7);
        assert_eq!(place.to_commit(), None);
        place.done(99);
        assert_eq!(place.to_commit(), Some(8), "as far as there are messages");
    }

    #[test]
    fn broken_messages_end_with_what_lies_before_them() {
        let mut place = begun(0);
        assert!(place.broken(0), "nothing lies before it");
        assert_eq!(place.to_commit(), Some(1));
        assert!(place.received(1) && place.broken(2) && place.broken(3) && place.received(4));
        assert_eq!((place.to_commit(), place.open()), (Some(1), 4));
        place.done(2);
        assert_eq!((place.to_commit(), place.open()), (Some(4), 1));
        place.done(5);
        assert!(place.broken(5));
        assert_eq!((place.to_commit(), place.open()), (Some(6), 0), "behind the last token too");
    }

    #[test]
    fn what_is_gone_is_not_waited_for() {
        let mut place = Place::default();
        place.begin(Some(3), 10);
        assert_eq!(place.to_commit(), Some(10), "the broker deleted it: nobody can do it");
        let mut place = Place::default();
        place.begin(None, 0);
        assert_eq!(place.to_commit(), Some(0), "the group's first offset");
        let mut place = begun(3);
        assert!(place.received(8));
        assert_eq!((place.to_commit(), place.open()), (Some(8), 1));
        let mut unknown = Place::default();
        assert_eq!(unknown.to_commit(), None);
        assert!(unknown.received(8));
        assert_eq!((unknown.to_commit(), unknown.open()), (None, 1), "its beginning could not be asked for");
        let mut lost = begun(90);
        assert!(lost.received(0));
        lost.done(1);
        assert_eq!((lost.to_commit(), lost.open()), (Some(1), 0), "the log began anew");
    }
}
