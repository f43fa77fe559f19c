//! Who may hold sessions of an account that allows only a few: bind slots, lent for half a minute at a time.
//!
//! The leader lends them, by compare-and-set, to workers whose lanes wait for the account; a worker without one declares
//! nothing for it. A slot comes back when its holder falls silent or wants it no more; it moves on only when more workers
//! wait than there are slots. Nothing but the provider's limit rests on it: a bind too many is refused over there.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::WorkerId;
use super::time::Timestamp;

/// How long a slot is lent.
pub const LENT_FOR: Duration = Duration::from_secs(30);
/// A holder lets go this long before its time ends, so that two machines' clocks may differ by that much.
pub const LET_GO_BEFORE: Duration = Duration::from_secs(8);
/// How long a holder keeps a slot for which others wait.
pub const TURN: Duration = Duration::from_secs(60);

/// One slot that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// To whom.
    pub worker: WorkerId,
    /// Since when.
    pub since: Timestamp,
    /// Until when, unless it is lent on.
    pub until: Timestamp,
}

/// The slots of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Those that are lent.
    pub lent: Vec<Lent>,
    /// Workers that want one and had one before, with the end of its time: whoever had it last waits longest.
    #[serde(default)]
    pub had: Vec<(WorkerId, Timestamp)>,
}

impl Slots {
    /// Whether `worker` may hold sessions at `now`.
    pub fn holds(&self, worker: WorkerId, now: Timestamp) -> bool {
        self.lent.iter().any(|lent| lent.worker == worker && now.plus(LET_GO_BEFORE) < lent.until)
    }

    /// Until when `worker` has a slot, if it has one.
    pub fn until(&self, worker: WorkerId) -> Option<Timestamp> {
        self.lent.iter().find(|lent| lent.worker == worker).map(|lent| lent.until)
    }

    /// The slots as they should be lent from `now` on: `limit` of them, to `wanting` workers, all of them alive. A slot
    /// whose time is not over stays taken even when its holder is gone: it may be frozen, with its sessions open.
    pub fn next(&self, limit: usize, wanting: &BTreeSet<WorkerId>, now: Timestamp) -> Slots {
        let mut lent: Vec<Lent> = self.lent.iter().copied().filter(|lent| lent.until > now).collect();
        let holders: BTreeSet<WorkerId> = lent.iter().map(|lent| lent.worker).collect();
        let ended = self.lent.iter().filter(|lent| lent.until <= now).map(|lent| (lent.worker, lent.until));
        let mut had: Vec<(WorkerId, Timestamp)> = self.had.iter().copied().chain(ended).collect();
        let last = |worker: &WorkerId| had.iter().filter(|(who, _)| who == worker).map(|(_, until)| *until).max();
        let mut waiting: Vec<WorkerId> = wanting.difference(&holders).copied().collect();
        waiting.sort_by_key(|worker| (last(worker), *worker));
        let free = limit.saturating_sub(lent.len());
        // Those who have had it longest make room, one for each that would be left waiting.
        let mut leaving = waiting.len().saturating_sub(free);
        let mut too_many = lent.len().saturating_sub(limit);
        lent.sort_by_key(|lent| lent.since);
        for slot in &mut lent {
            if too_many > 0 {
                too_many -= 1;
            } else if leaving > 0 && now.since(slot.since) >= TURN {
                leaving -= 1;
            } else if wanting.contains(&slot.worker) {
                slot.until = now.plus(LENT_FOR);
            }
        }
        waiting.truncate(free);
        lent.extend(waiting.into_iter().map(|worker| Lent { worker, since: now, until: now.plus(LENT_FOR) }));
        lent.sort_by_key(|lent| (lent.since, lent.worker));
        had.retain(|(worker, _)| wanting.contains(worker) && !lent.iter().any(|lent| lent.worker == *worker));
        Slots { lent, had }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(0).plus(Duration::from_secs(seconds))
    }

    fn workers(names: &[u64]) -> BTreeSet<WorkerId> {
        names.iter().map(|name| WorkerId(*name)).collect()
    }

    fn holders(slots: &Slots, now: Timestamp) -> Vec<u64> {
        slots.lent.iter().filter(|lent| slots.holds(lent.worker, now)).map(|lent| lent.worker.0).collect()
    }

    #[test]
    fn there_are_never_more_holders_than_slots_and_everybody_gets_a_turn() {
        let (mut slots, all) = (Slots::default(), workers(&[1, 2, 3, 4, 5]));
        let mut served = BTreeSet::new();
        for second in 0..600 {
            slots = slots.next(2, &all, at(second));
            assert!(slots.lent.len() <= 2, "second {second}: {slots:?}");
            served.extend(holders(&slots, at(second)));
        }
        assert_eq!(served.len(), 5);
    }

    #[test]
    fn who_is_alone_keeps_it_and_who_is_gone_gives_it_back_when_its_time_is_over() {
        let mut slots = Slots::default();
        for second in 0..300 {
            slots = slots.next(1, &workers(&[1]), at(second));
            assert_eq!(holders(&slots, at(second)), [1]);
            assert_eq!(slots.lent[0].since, at(0), "nobody waits: it is not passed round");
        }
        // It is frozen: its sessions may be open, so nobody else gets the slot before the time it was lent for is over.
        let frozen_at = 299;
        for second in frozen_at..frozen_at + LENT_FOR.as_secs() {
            slots = slots.next(1, &workers(&[2]), at(second));
            assert!(!slots.holds(WorkerId(2), at(second)));
        }
        slots = slots.next(1, &workers(&[2]), at(frozen_at + LENT_FOR.as_secs()));
        assert_eq!(holders(&slots, at(frozen_at + LENT_FOR.as_secs())), [2]);
    }

    #[test]
    fn a_holder_lets_go_before_its_time_ends() {
        let slots = Slots::default().next(1, &workers(&[1]), at(0));
        let ends = LENT_FOR.as_secs() - LET_GO_BEFORE.as_secs();
        assert!(slots.holds(WorkerId(1), at(ends - 1)) && !slots.holds(WorkerId(1), at(ends)));
        assert_eq!((slots.until(WorkerId(1)), slots.until(WorkerId(2))), (Some(at(LENT_FOR.as_secs())), None));
    }
}
