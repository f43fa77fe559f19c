//! What the lanes of all active batches come to: who is unsent, in flight, or has an outcome, as their ledgers say.
//!
//! For people and for scaling. The truth about a batch that has ended is its recount.

use super::ledger::{LaneTotals, Ledger};
use super::time::Timestamp;

/// The sum over lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    unsent: u64,
    sendable: u64,
    in_flight: u64,
    totals: LaneTotals,
    waiting: u64,
    sending: u64,
    done: u64,
}

impl Backlog {
    /// Takes a lane in; of a batch that may be sent now, with the time it is.
    pub fn add(&mut self, ledger: &Ledger, sent_at: Option<Timestamp>) {
        // Of a lane that is fenced for good nobody more is sent.
        if !ledger.closed {
            self.unsent += ledger.undeclared();
            let due = ledger.legs.iter().filter(|leg| sent_at.is_some_and(|now| leg.due <= now));
            self.sendable += due.map(|leg| u64::from(leg.len - leg.declared)).sum::<u64>();
        }
        self.in_flight += ledger.in_flight();
        self.totals.add(&ledger.totals);
        let lanes = match (ledger.is_done(), ledger.open.is_empty()) {
            (true, _) => &mut self.done,
            (false, true) => &mut self.waiting,
            (false, false) => &mut self.sending,
        };
        *lanes += 1;
    }

    /// Takes in what other lanes come to.
    pub fn merge(&mut self, other: &Backlog) {
        self.unsent += other.unsent;
        self.sendable += other.sendable;
        self.in_flight += other.in_flight;
        self.totals.add(&other.totals);
        self.waiting += other.waiting;
        self.sending += other.sending;
        self.done += other.done;
    }

    /// Recipients who are not declared and could be now.
    pub fn sendable(&self) -> u64 {
        self.sendable
    }

    /// Recipients by state.
    pub fn recipients(&self) -> [(&'static str, u64); 7] {
        let LaneTotals { accepted, failed, uncertain, suppressed, expired, .. } = self.totals;
        [
            ("unsent", self.unsent),
            ("in_flight", self.in_flight),
            ("accepted", accepted),
            ("failed", failed),
            ("uncertain", uncertain),
            ("suppressed", suppressed),
            ("expired", expired),
        ]
    }

    /// Lanes by state.
    pub fn lanes(&self) -> [(&'static str, u64); 3] {
        [("waiting", self.waiting), ("sending", self.sending), ("done", self.done)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::WorkerId;
    use crate::model::ledger::{Leg, OpenWindow};

    #[test]
    fn lanes_add_up() {
        let waiting = Ledger::sealed(100);
        let mut sending = Ledger::sealed(50);
        sending.legs[0].declared = 20;
        sending.totals.accepted = 15;
        sending.legs.push(Leg::new(9, 3, Timestamp(70)));
        sending.open.push(OpenWindow {
            window: 1,
            leg: 0,
            from: 15,
            to: 20,
            account: "a".into(),
            declarer: WorkerId(1),
            declared_at: Timestamp(0),
            send_by: Timestamp(0),
        });
        let canceled = Ledger { closed: true, ..Ledger::sealed(7) };
        let mut backlog = Backlog::default();
        backlog.add(&waiting, None);
        backlog.add(&sending, Some(Timestamp(60)));
        backlog.add(&canceled, Some(Timestamp(60)));
        assert_eq!(backlog.sendable(), 30, "neither a paused batch nor what is not due yet is work for now");
        assert_eq!(backlog.recipients()[..3], [("unsent", 133), ("in_flight", 5), ("accepted", 15)]);
        assert_eq!(backlog.lanes(), [("waiting", 1), ("sending", 1), ("done", 1)]);
    }
}
