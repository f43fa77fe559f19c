//! When windows of this process were declared, so that the delay of receipts can be measured. For metrics alone: nothing rests
//! on it, and it forgets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::metrics;
use crate::model::id::{LaneKey, RecipientKey};
use crate::model::time::Timestamp;

/// Windows remembered: a few megabytes.
const WINDOWS_MAX: usize = 65_536;

static HANDED: Mutex<Handed> = Mutex::new(Handed { windows: BTreeMap::new(), order: VecDeque::new() });

/// Notes the recipients `from..to` of a lane, declared at `at` for the first time.
pub fn note(lane: LaneKey, from: u32, to: u32, at: Timestamp) {
    if metrics::are_counted() {
        HANDED.lock().unwrap_or_else(PoisonError::into_inner).note(lane, (from, to, at), WINDOWS_MAX);
    }
}

/// When the window of a recipient was declared, if this process did it not too long ago.
pub fn at(recipient: RecipientKey) -> Option<Timestamp> {
    HANDED.lock().unwrap_or_else(PoisonError::into_inner).at(recipient)
}

struct Handed {
    /// By lane and first recipient: just behind the last, and when.
    windows: BTreeMap<(LaneKey, u32), (u32, Timestamp)>,
    /// The oldest first.
    order: VecDeque<(LaneKey, u32)>,
}

impl Handed {
    fn note(&mut self, lane: LaneKey, (from, to, at): (u32, u32, Timestamp), most: usize) {
        // Declared again after it was given back: the later one counts, in the place of the former.
        if self.windows.insert((lane, from), (to, at)).is_none() {
            self.order.push_back((lane, from));
        }
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.windows.remove(&oldest);
            }
        }
    }

    fn at(&self, recipient: RecipientKey) -> Option<Timestamp> {
        let (lane, seq) = (recipient.lane, recipient.seq);
        let ((of, _), (to, at)) = self.windows.range(..=(lane, seq)).next_back()?;
        (*of == lane && seq < *to).then_some(*at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::BatchId;

    #[test]
    fn a_recipient_is_found_in_its_window_and_the_oldest_are_forgotten() {
        let lane = |lane| LaneKey { batch: BatchId(1), lane };
        let mut handed = Handed { windows: BTreeMap::new(), order: VecDeque::new() };
        let who = |of, seq| RecipientKey { lane: lane(of), seq };
        handed.note(lane(1), (0, 10, Timestamp(5)), 2);
        handed.note(lane(1), (20, 30, Timestamp(6)), 2);
        assert_eq!((handed.at(who(1, 9)), handed.at(who(1, 10))), (Some(Timestamp(5)), None));
        assert_eq!((handed.at(who(1, 20)), handed.at(who(2, 20))), (Some(Timestamp(6)), None));
        handed.note(lane(1), (20, 25, Timestamp(7)), 2);
        assert_eq!(
            (handed.at(who(1, 0)), handed.at(who(1, 24)), handed.at(who(1, 25))),
            (Some(Timestamp(5)), Some(Timestamp(7)), None)
        );
        handed.note(lane(0), (0, 1, Timestamp(8)), 2);
        assert_eq!((handed.at(who(1, 0)), handed.at(who(0, 0))), (None, Some(Timestamp(8))));
        assert_eq!((handed.windows.len(), handed.order.len()), (2, 2));
    }
}
