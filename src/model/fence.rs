//! What reaches a lane from outside its owner: fences, and an operator's orders. Each is one compare-and-set of the ledger.

use super::ledger::{Ledger, LedgerRefusal, Leg};

impl Ledger {
    /// The row after an operator's order `order` was carried out in this lane, which its dispatch `task_number` sends: its
    /// retry packs are all that is left to send, or nothing when nobody was named (`packs` is empty).
    ///
    /// # Errors
    /// [`LedgerRefusal::Nothing`] when it was carried out before, [`LedgerRefusal::OutOfDate`] when a later command has
    /// ended the lane.
    pub fn append(&self, order: u32, task_number: u64, packs: &[Leg]) -> Result<Ledger, LedgerRefusal> {
        if self.order >= order {
            return Err(LedgerRefusal::Nothing);
        }
        if self.closed_number > task_number {
            return Err(LedgerRefusal::OutOfDate);
        }
        let task_number = task_number.max(self.task_number);
        let mut next = Ledger { order, ordered: 0, task_number, ..self.clone() };
        if !packs.is_empty() {
            // What was left of earlier legs is named by the order, or is not to be sent.
            next.legs.iter_mut().for_each(|leg| leg.declared = leg.len);
            next.sweep();
            next.legs.extend_from_slice(packs);
            next.closed = false;
            next.ordered = packs.iter().map(|leg| leg.len).sum();
            next.totals.failed = next.totals.failed.saturating_sub(u64::from(next.ordered));
        }
        Ok(next)
    }

    /// The row behind a fence that ends the lane, by the command that made the dispatch `task_number` the newest: nothing is
    /// declared any more, open windows are still settled. `None` when it stands behind it already, or behind a later command:
    /// whoever ends a batch from an old reading of it must not close what an order opened again.
    pub fn fence_closed(&self, task_number: u64) -> Option<Ledger> {
        if self.task_number > task_number || self.closed && self.closed_number == task_number {
            return None;
        }
        let fences = self.fences + 1;
        Some(Ledger { closed: true, closed_number: task_number, fences, task_number, ..self.clone() })
    }

    /// The row behind a fence that makes every dispatch before `task_number` out of date here too; `None` when it stands behind
    /// it already.
    pub fn fence(&self, task_number: u64) -> Option<Ledger> {
        (self.task_number < task_number).then(|| Ledger { fences: self.fences + 1, task_number, ..self.clone() })
    }

    /// [`fence`](Ledger::fence) by a change of the provider type. `version` is the row's own version.
    pub fn fence_provider(&self, task_number: u64, version: u64) -> Option<Ledger> {
        if self.provider_number >= task_number {
            return None;
        }
        let mut next = self.fence(task_number).unwrap_or_else(|| self.clone());
        next.provider_number = task_number;
        next.foreign_until = version;
        next.legs.iter_mut().for_each(|leg| leg.foreign = leg.id != 0);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ledger::tests::{A, B, NOW, window};
    use crate::model::ledger::{Closing, LaneTotals};

    #[test]
    fn a_fence_refuses_every_older_dispatch() {
        let ledger = Ledger::sealed(10).claim(A, 5).expect("claimed");
        let fenced = ledger.fence(6).expect("fenced");
        assert_eq!(fenced.declare(window(3, 0, 0, 5, A), 5, NOW), Err(LedgerRefusal::OutOfDate));
        assert_eq!(fenced.claim(B, 5), Err(LedgerRefusal::OutOfDate));
        assert_eq!((fenced.fence(6), fenced.fences), (None, 1));
        let closed = fenced.fence_closed(6).expect("fenced");
        assert_eq!(closed.fence_closed(6), None);
        assert!(closed.fence_closed(7).is_some_and(|row| row.closed && row.task_number == 7), "a later end fences again");
        assert_eq!(fenced.fence_closed(5), None, "an end that was overtaken closes nothing");
    }

    #[test]
    fn an_order_is_appended_once_and_never_behind_a_later_command() {
        let done = Ledger::sealed(10).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 10, A), 1, NOW)).expect("declared");
        let closing = Closing { totals: LaneTotals { accepted: 7, failed: 3, ..LaneTotals::default() }, ..Closing::default() };
        let done = done.close(A, 2, &closing).ok().and_then(|l| l.fence_closed(1)).expect("closed");
        let again = done.append(1, 2, &[Leg::new(77, 3, NOW)]).expect("appended");
        assert_eq!((again.undeclared(), again.closed, again.ordered, again.totals.failed), (3, false, 3, 0));
        assert_eq!(again.append(1, 2, &[Leg::new(78, 3, NOW)]), Err(LedgerRefusal::Nothing));
        assert_eq!(again.claim(B, 1), Err(LedgerRefusal::OutOfDate), "the dispatch before the order is out of date");
        let nobody = done.append(1, 2, &[]).expect("nobody is named");
        assert!(nobody.is_done() && nobody.closed && nobody.order == 1);
        let paused = done.fence(3).expect("a pause fences");
        assert_eq!(
            paused.append(1, 2, &[Leg::new(77, 3, NOW)]).map(|row| row.task_number),
            Ok(3),
            "a pause does not undo the order"
        );
        let canceled = done.fence_closed(3).expect("fenced");
        assert_eq!(canceled.append(1, 2, &[Leg::new(77, 3, NOW)]), Err(LedgerRefusal::OutOfDate));
    }

    #[test]
    fn an_order_sends_nothing_that_it_does_not_name() {
        let ended = Ledger::sealed(10).fence_closed(1).expect("closed with all of it unsent");
        let again = ended.append(1, 2, &[Leg::new(77, 3, NOW)]).expect("appended");
        assert_eq!(again.legs.iter().map(|leg| leg.id).collect::<Vec<_>>(), [77]);
    }

    #[test]
    fn a_change_of_provider_marks_what_was_made_for_the_old_one() {
        let ledger = Ledger::sealed(4).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 4, A), 1, NOW)).expect("declared");
        let closing = Closing { retries: vec![Leg::new(77, 2, NOW)], handed: Some(NOW), ..Closing::default() };
        let ledger = ledger.close(A, 2, &closing).expect("closed");
        let changed = ledger.fence_provider(2, 3).expect("fenced");
        assert_eq!((changed.foreign_until, changed.legs[0].foreign, changed.handed), (3, true, Some(NOW)));
        assert_eq!(changed.fence_provider(2, 4), None);
    }

    #[test]
    fn what_was_to_be_tried_again_when_the_provider_changed_is_of_the_old_one() {
        let ledger = Ledger::sealed(4).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 4, A), 1, NOW)).expect("declared");
        let changed = ledger.fence_provider(2, 3).expect("fenced");
        let planned = |foreign_until| Closing { retries: vec![Leg::new(77, 2, NOW)], foreign_until, ..Closing::default() };
        let late = changed.close(A, 2, &planned(0)).expect("closed as it was planned before");
        let knowing = changed.close(A, 2, &planned(3)).expect("closed as it was planned behind the fence");
        assert_eq!((late.legs[0].foreign, knowing.legs[0].foreign), (true, false));
    }
}
