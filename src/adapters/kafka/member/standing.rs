//! Whether a member without partitions is in its group at all: the client library has been seen to wait for ever for something that
//! did not come, after its broker was restarted, while the others shared its partitions.

use std::time::{Duration, Instant};

/// A member that has had no partition for so long asks who is in its group, and again after as long.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// So many answers in a row without its name, and it joins anew. Whoever is just joining may be missing from one.
const ANSWERS: u32 = 2;

/// What a member knows of its place in the group.
#[derive(Debug)]
pub(super) struct Standing {
    /// When it asks, unless it has partitions by then.
    ask_at: Instant,
    /// Answers in a row that did not name it.
    unnamed: u32,
}

impl Standing {
    /// Of a member that joins at `now`.
    pub(super) fn new(now: Instant) -> Standing {
        Standing { ask_at: now + ASK_EVERY, unnamed: 0 }
    }

    /// Whether the broker is to be asked now.
    pub(super) fn is_due(&mut self, has_partitions: bool, now: Instant) -> bool {
        if has_partitions {
            *self = Standing::new(now);
        }
        now >= self.ask_at
    }

    /// Takes in whether the broker named the member; `None` when it did not answer. Gives back whether it should join anew.
    pub(super) fn heard(&mut self, is_named: Option<bool>, now: Instant) -> bool {
        self.ask_at = now + ASK_EVERY;
        self.unnamed = match is_named {
            Some(false) => self.unnamed + 1,
            // A broker that is away says nothing about the group: the library waits for it by itself.
            Some(true) | None => 0,
        };
        self.unnamed >= ANSWERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_and_is_not_in_the_group_joins_anew_and_nobody_else() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        let mut now = begun;
        // Asks, and what comes of them, of a member that is answered like this for ten minutes.
        let mut asked = |has_partitions: bool, answers: &mut dyn FnMut(u32) -> Option<bool>| {
            let (mut asks, mut anew) = (0, 0);
            for _ in 0..600 {
                now += Duration::from_secs(1);
                if standing.is_due(has_partitions, now) {
                    anew += u32::from(standing.heard(answers(asks), now));
                    asks += 1;
                }
            }
            (asks, anew)
        };
        assert_eq!(asked(true, &mut |_| panic!("whoever has partitions is in the group")), (0, 0));
        assert_eq!(asked(false, &mut |_| Some(true)), (20, 0), "more members than partitions");
        assert_eq!(asked(false, &mut |_| None), (20, 0), "the broker is away");
        assert_eq!(asked(false, &mut |ask| Some(!ask.is_multiple_of(2))), (20, 0), "it was just joining");
        let (asks, anew) = asked(false, &mut |_| Some(false));
        assert_eq!((asks, anew), (20, 20 - (ANSWERS - 1)), "as soon as it is sure");
    }
}
