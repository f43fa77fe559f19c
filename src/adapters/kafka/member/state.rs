//! What one member holds and has to tell: pure bookkeeping between the thread that polls and the task that receives.

use std::collections::{BTreeMap, VecDeque};

use super::place::Place;
use crate::model::trace::TraceParent;
use crate::ports::queue::QueueEvent;

/// Messages of one partition that are here at most: waiting, held by the receiver, or unreadable behind such ones. Above it the
/// partition is paused.
pub(super) const OPEN_MAX: u64 = 1_000;
/// Below this it goes on.
pub(super) const OPEN_AGAIN: u64 = 500;

/// A message as it waits to be handed out.
pub(super) struct Waiting<T> {
    pub(super) offset: u64,
    /// When it was written, by the clock of whoever wrote it or of the broker, in milliseconds.
    pub(super) written: Option<i64>,
    pub(super) task: T,
    pub(super) trace: Option<TraceParent>,
}

struct Held<T> {
    waiting: VecDeque<Waiting<T>>,
    place: Place,
    /// Handed out, and not over as far as the receiver says.
    handed: u64,
    /// When the newest message was written.
    newest: Option<i64>,
    is_paused: bool,
    /// It was paused at the last look, and ever since.
    stays_paused: bool,
}

impl<T> Held<T> {
    fn new() -> Held<T> {
        let (waiting, place) = (VecDeque::new(), Place::default());
        Held { waiting, place, handed: 0, newest: None, is_paused: false, stays_paused: false }
    }

    /// How much of it is here. Tokens that are over lie behind one that is not, sent again while it waited: they count for nothing,
    /// or nothing behind them would be read until it is done.
    fn load(&self) -> u64 {
        self.place.open().min(self.waiting.len() as u64 + self.handed + self.place.broken_open())
    }
}

struct Leaving {
    place: Place,
    is_released: bool,
}

enum News {
    Assigned(Vec<u8>),
    Revoked(Vec<u8>),
}

/// A member's books.
pub(super) struct State<T> {
    news: VecDeque<News>,
    held: BTreeMap<u8, Held<T>>,
    /// Revoked, and not let go of yet.
    leaving: BTreeMap<u8, Leaving>,
    /// Began anew while they were held, and nobody said so yet.
    anew: Vec<u8>,
    /// The partition served last: the others come first.
    last: u8,
    paused: usize,
    closed: bool,
}

impl<T> Default for State<T> {
    fn default() -> State<T> {
        let (news, held, leaving, anew) = Default::default();
        State { news, held, leaving, anew, last: u8::MAX, paused: 0, closed: false }
    }
}

impl<T> State<T> {
    /// These partitions are ours from now on.
    pub(super) fn assigned(&mut self, partitions: Vec<u8>) {
        for partition in &partitions {
            let before = self.held.insert(*partition, Held::new());
            self.paused -= usize::from(before.is_some_and(|before| before.is_paused));
        }
        if !partitions.is_empty() {
            self.news.push_back(News::Assigned(partitions));
        }
    }

    /// Where a partition stood when it was given to us.
    pub(super) fn begin(&mut self, partition: u8, committed: Option<u64>, first: u64) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.place.begin(committed, first);
        }
    }

    /// These partitions are to be let go of. What waits of them is forgotten; what is done may still be committed.
    pub(super) fn revoked(&mut self, partitions: Vec<u8>) {
        for partition in &partitions {
            if let Some(held) = self.held.remove(partition) {
                self.paused -= usize::from(held.is_paused);
                self.leaving.insert(*partition, Leaving { place: held.place, is_released: false });
            }
        }
        if !partitions.is_empty() {
            self.news.push_back(News::Revoked(partitions));
        }
    }

    /// Everything was lost: nothing of it may be committed any more.
    pub(super) fn lost(&mut self, partitions: Vec<u8>) {
        self.revoked(partitions);
        self.leaving.clear();
    }

    /// All that is held.
    pub(super) fn partitions(&self) -> Vec<u8> {
        self.held.keys().copied().collect()
    }

    /// Whether anything is held.
    pub(super) fn has_partitions(&self) -> bool {
        !self.held.is_empty()
    }

    /// The work on these has stopped.
    pub(super) fn released(&mut self, partitions: &[u8]) {
        for partition in partitions {
            if let Some(leaving) = self.leaving.get_mut(partition) {
                leaving.is_released = true;
            }
        }
    }

    /// Whether the work on everything that is to be let go of has stopped.
    pub(super) fn is_released(&self) -> bool {
        self.leaving.values().all(|leaving| leaving.is_released)
    }

    /// Lets go. Gives back what is to be committed before.
    pub(super) fn let_go(&mut self) -> Vec<(u8, u64)> {
        let leaving = std::mem::take(&mut self.leaving);
        leaving.into_iter().filter_map(|(partition, leaving)| Some((partition, leaving.place.to_commit()?))).collect()
    }

    /// A message came. Gives back whether the partition has to be paused.
    pub(super) fn received(&mut self, partition: u8, message: Waiting<T>) -> bool {
        self.look_whether_it_begins_anew(partition, message.offset, message.written);
        let Some(held) = self.held.get_mut(&partition) else { return false };
        if held.place.received(message.offset) {
            held.newest = held.newest.max(message.written);
            held.waiting.push_back(message);
        }
        self.brake(partition)
    }

    /// A message came that cannot be read. Gives back whether the partition has to be paused.
    pub(super) fn broken(&mut self, partition: u8, offset: u64, written: Option<i64>) -> bool {
        self.look_whether_it_begins_anew(partition, offset, written);
        let Some(held) = self.held.get_mut(&partition) else { return false };
        held.place.broken(offset);
        self.brake(partition)
    }

    /// A place that came before, with a message that was written after all that came, is of another log: ours was lost, or cut off.
    /// What the old one said is forgotten, as it is when a partition is given to us. (A fetch that is begun anew brings what was
    /// written before.)
    fn look_whether_it_begins_anew(&mut self, partition: u8, offset: u64, written: Option<i64>) {
        let Some(held) = self.held.get_mut(&partition) else { return };
        if !held.place.came_before(offset) || held.newest.is_none() || written <= held.newest {
            return;
        }
        self.paused -= usize::from(held.is_paused);
        *held = Held::new();
        held.place.begin(None, offset);
        self.news.push_back(News::Assigned(vec![partition]));
        self.anew.push(partition);
    }

    /// Partitions that began anew since the last look.
    pub(super) fn take_anew(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.anew)
    }

    /// Whether the receiver has yet to hear that the partition is ours: what it says is of an earlier time.
    fn is_unheard_of(&self, partition: u8) -> bool {
        self.news.iter().any(|news| matches!(news, News::Assigned(partitions) if partitions.contains(&partition)))
    }

    fn brake(&mut self, partition: u8) -> bool {
        let Some(held) = self.held.get_mut(&partition) else { return false };
        let must = !held.is_paused && held.load() >= OPEN_MAX;
        if must {
            held.is_paused = true;
            self.paused += 1;
        }
        must
    }

    /// Paused partitions that go on.
    pub(super) fn take_resumable(&mut self) -> Vec<u8> {
        if self.paused == 0 {
            return vec![];
        }
        let mut found = vec![];
        for (partition, held) in &mut self.held {
            if held.is_paused && held.load() < OPEN_AGAIN {
                (held.is_paused, held.stays_paused) = (false, false);
                found.push(*partition);
            }
        }
        self.paused -= found.len();
        found
    }

    /// A partition that is paused and was at the last look, with how much of it is here.
    pub(super) fn stays_paused(&mut self) -> Option<(u8, u64)> {
        let mut stays = None;
        for (partition, held) in &mut self.held {
            if held.is_paused && held.stays_paused {
                stays = stays.or(Some((*partition, held.load())));
            }
            held.stays_paused = held.is_paused;
        }
        stays
    }

    /// All that is held and not paused.
    pub(super) fn unpaused(&self) -> Vec<u8> {
        self.held.iter().filter(|(_, held)| !held.is_paused).map(|(partition, _)| *partition).collect()
    }

    /// Everything of a partition below `next` is done. Only for partitions that are held, or about to be let go of.
    pub(super) fn done(&mut self, partition: u8, next: u64) {
        if self.is_unheard_of(partition) {
            return;
        }
        let held = self.held.get_mut(&partition).map(|held| &mut held.place);
        let leaving = self.leaving.get_mut(&partition).map(|leaving| &mut leaving.place);
        if let Some(place) = held.or(leaving) {
            place.done(next);
        }
    }

    /// How many messages of a partition the receiver has that are not over.
    pub(super) fn holds(&mut self, partition: u8, messages: u64) {
        if self.is_unheard_of(partition) {
            return;
        }
        if let Some(held) = self.held.get_mut(&partition) {
            held.handed = messages;
        }
    }

    /// What the broker has to be told.
    pub(super) fn to_commit(&self) -> Vec<(u8, u64)> {
        self.held.iter().filter_map(|(partition, held)| Some((*partition, held.place.to_commit()?))).collect()
    }

    /// The broker knows it.
    pub(super) fn committed(&mut self, offsets: &[(u8, u64)]) {
        for (partition, offset) in offsets {
            if let Some(held) = self.held.get_mut(partition) {
                held.place.committed(*offset);
            }
        }
    }

    /// Nothing is told any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.news.clear();
    }

    /// Whether the member has left.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next event: news first, then a message of the partition whose turn it is.
    pub(super) fn next(&mut self) -> Option<QueueEvent<T>> {
        match self.news.pop_front() {
            Some(News::Assigned(partitions)) => return Some(QueueEvent::Assigned(partitions)),
            Some(News::Revoked(partitions)) => return Some(QueueEvent::Revoked(partitions)),
            None => {}
        }
        let behind = self.last.checked_add(1).and_then(|from| self.waiting_from(from));
        let partition = behind.or_else(|| self.waiting_from(0))?;
        let held = self.held.get_mut(&partition)?;
        let message = held.waiting.pop_front()?;
        held.handed += 1;
        self.last = partition;
        Some(QueueEvent::Task { partition, offset: message.offset, task: message.task, trace: message.trace })
    }

    fn waiting_from(&self, from: u8) -> Option<u8> {
        self.held.range(from..).find(|(_, held)| !held.waiting.is_empty()).map(|(partition, _)| *partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(partitions: &[u8]) -> State<u64> {
        let mut state = State::default();
        state.assigned(partitions.to_vec());
        assert_eq!(state.next(), Some(QueueEvent::Assigned(partitions.to_vec())));
        state
    }

    fn receive(state: &mut State<u64>, partition: u8, offset: u64) -> bool {
        receive_written(state, partition, offset, offset as i64)
    }

    fn receive_written(state: &mut State<u64>, partition: u8, offset: u64, at: i64) -> bool {
        state.received(partition, Waiting { offset, written: Some(at), task: offset, trace: None })
    }

    fn task(state: &mut State<u64>) -> Option<(u8, u64)> {
        match state.next()? {
            QueueEvent::Task { partition, offset, .. } => Some((partition, offset)),
            other => panic!("{other:?} instead of a message"),
        }
    }

    #[test]
    fn partitions_take_turns_whatever_came_first() {
        let mut state = state(&[3, 90, 255]);
        for (partition, offset) in [(90, 0), (90, 1), (3, 0), (255, 0), (3, 1)] {
            assert!(!receive(&mut state, partition, offset));
        }
        let order: Vec<_> = std::iter::from_fn(|| task(&mut state)).collect();
        assert_eq!(order, [(3, 0), (90, 0), (255, 0), (3, 1), (90, 1)]);
    }

    #[test]
    fn one_partition_is_braked_and_the_others_go_on() {
        let mut state = state(&[1, 2]);
        let paused: Vec<u64> = (0..OPEN_MAX).filter(|offset| receive(&mut state, 1, *offset)).collect();
        assert_eq!(paused, [OPEN_MAX - 1], "once, when it is full");
        assert!(!receive(&mut state, 2, 0));
        while task(&mut state).is_some() {}
        assert!(state.take_resumable().is_empty(), "handed out is not done");
        state.done(1, OPEN_MAX - OPEN_AGAIN);
        assert!(state.take_resumable().is_empty());
        state.done(1, OPEN_MAX - OPEN_AGAIN + 1);
        assert_eq!(state.take_resumable(), [1]);
        assert!(state.take_resumable().is_empty(), "once");
        state.revoked(vec![1]);
        assert!(state.take_resumable().is_empty());
    }

    #[test]
    fn what_is_over_brakes_nothing_while_one_before_it_lasts() {
        let mut state = state(&[1]);
        for offset in 0..5 * OPEN_MAX {
            assert!(!receive(&mut state, 1, offset), "{offset} is the last that is read");
            assert_eq!(task(&mut state), Some((1, offset)));
            // The first lasts; the others are the same once more.
            state.holds(1, 1);
        }
        assert!(state.to_commit().is_empty(), "offsets are committed in order");
        let paused = (5 * OPEN_MAX..).find(|offset| receive(&mut state, 1, *offset));
        assert_eq!(paused, Some(6 * OPEN_MAX - 2), "with what waits to be handed out it is full");
        while task(&mut state).is_some() {}
        assert_eq!((state.take_resumable(), state.stays_paused(), state.stays_paused()), (vec![], None, Some((1, OPEN_MAX))));
        state.holds(1, OPEN_AGAIN - 1);
        assert_eq!((state.take_resumable(), state.stays_paused()), (vec![1], None));
        // What nobody can read is not handed out, and is in memory all the same.
        let broken = (7 * OPEN_MAX..).find(|offset| state.broken(1, *offset, None));
        assert_eq!(broken, Some(7 * OPEN_MAX + OPEN_MAX - OPEN_AGAIN));
    }

    #[test]
    fn what_comes_back_is_not_paused_however_it_went() {
        for is_lost in [false, true] {
            let mut state = state(&[1, 2]);
            let paused = (0..OPEN_MAX).filter(|offset| receive(&mut state, 1, *offset)).count();
            assert_eq!(paused, 1);
            assert_eq!(state.unpaused(), [2]);
            if is_lost {
                state.lost(vec![1, 2])
            } else {
                state.revoked(vec![1, 2])
            }
            state.assigned(vec![1, 2]);
            assert_eq!(state.unpaused(), [1, 2]);
            let paused: Vec<u64> = (0..OPEN_MAX).filter(|offset| receive(&mut state, 1, *offset)).collect();
            assert_eq!(paused, [OPEN_MAX - 1], "it is braked as if it were new");
        }
    }

    #[test]
    fn what_is_revoked_is_let_go_of_with_what_was_done_meanwhile() {
        let mut state = state(&[1, 2]);
        for (partition, offset) in [(1, 0), (1, 1), (2, 0)] {
            receive(&mut state, partition, offset);
        }
        assert_eq!(task(&mut state), Some((1, 0)));
        state.revoked(vec![1]);
        assert_eq!(state.next(), Some(QueueEvent::Revoked(vec![1])), "before any message");
        assert_eq!(task(&mut state), Some((2, 0)), "the rest goes on");
        assert_eq!(task(&mut state), None, "what waited of it is not handed out");
        assert!(!state.is_released());
        state.done(1, 1);
        state.released(&[1]);
        assert!(state.is_released());
        assert_eq!(state.let_go(), [(1, 1)]);
        state.done(1, 2);
        assert_eq!((state.let_go(), state.to_commit()), (vec![], vec![]), "only the owner commits");
    }

    #[test]
    fn what_was_lost_is_not_committed() {
        let mut state = state(&[1]);
        receive(&mut state, 1, 0);
        state.done(1, 1);
        assert_eq!(state.to_commit(), [(1, 1)]);
        state.lost(state.partitions());
        assert_eq!(state.next(), Some(QueueEvent::Revoked(vec![1])));
        assert_eq!((state.to_commit(), state.let_go()), (vec![], vec![]));
        state.assigned(vec![1]);
        assert_eq!(state.next(), Some(QueueEvent::Assigned(vec![1])));
        assert!(!receive(&mut state, 1, 0));
        assert_eq!(task(&mut state), Some((1, 0)), "it comes again");
    }

    #[test]
    fn a_log_that_begins_anew_is_read_from_its_beginning_and_a_fetch_that_does_is_not() {
        let mut state = state(&[1]);
        state.begin(1, Some(500), 0);
        for offset in 500..510 {
            receive(&mut state, 1, offset);
        }
        while task(&mut state).is_some() {}
        state.done(1, 505);
        state.committed(&[(1, 505)]);
        // The same once more, and messages from before our time.
        for offset in [505, 0, 509] {
            receive(&mut state, 1, offset);
        }
        assert!(state.next().is_none() && state.take_anew().is_empty() && state.to_commit().is_empty());
        // The topic was made anew: its messages are younger.
        for offset in 0..3 {
            receive_written(&mut state, 1, offset, 1_000);
        }
        assert_eq!(state.take_anew(), [1]);
        state.done(1, 510);
        state.holds(1, 10);
        assert_eq!(state.to_commit(), [(1, 0)], "what is said of the old log is not taken for the new one");
        assert_eq!(state.next(), Some(QueueEvent::Assigned(vec![1])), "places are counted from another beginning");
        assert_eq!(std::iter::from_fn(|| task(&mut state)).collect::<Vec<_>>(), [(1, 0), (1, 1), (1, 2)]);
        state.done(1, 2);
        assert_eq!(state.to_commit(), [(1, 2)]);
        // A message that cannot be read may be the first; and a clock may be slow, until it is past what came last.
        state.broken(1, 0, Some(2_000));
        assert_eq!((state.take_anew(), state.to_commit()), (vec![1], vec![(1, 1)]));
        receive_written(&mut state, 1, 1, 3_000);
        assert_eq!(state.next(), Some(QueueEvent::Assigned(vec![1])));
        assert_eq!(task(&mut state), Some((1, 1)));
        receive_written(&mut state, 1, 0, 3_000);
        assert!(state.next().is_none(), "not younger");
    }

    #[test]
    fn commits_that_failed_are_made_again() {
        let mut state = state(&[1]);
        state.begin(1, Some(0), 0);
        receive(&mut state, 1, 0);
        assert!(state.to_commit().is_empty());
        state.done(1, 1);
        let offsets = state.to_commit();
        assert_eq!(offsets, [(1, 1)]);
        assert_eq!(state.to_commit(), [(1, 1)], "nobody said that it worked");
        state.committed(&offsets);
        assert!(state.to_commit().is_empty());
    }
}
