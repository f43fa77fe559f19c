//! The ledger: the one control row of a lane, and every change of it as a pure function.
//!
//! A lane is worked through in *legs*: leg 0 is the manifest, each retry pack is a further leg. A leg only moves forward;
//! whatever must be tried again goes into an appended leg, so the ledger never goes back, except that an owner may lower
//! `declared` over what it has not handed over. Each change below is stored by one compare-and-set on the row's version.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::WorkerId;
use super::limits::{LANE_WINDOWS_MAX, WINDOW_RECIPIENTS_MAX};
use super::time::Timestamp;

/// The manifest or a retry pack, and how far it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Leg {
    /// 0 is the manifest; a retry pack has a random name, written before the ledger knows it.
    pub id: u64,
    /// Places in it.
    pub len: u32,
    /// Places declared so far.
    pub declared: u32,
    /// Nothing of it is declared before this instant.
    pub due: Timestamp,
    /// Whether it was made for accounts of another provider type than the batch has now: who had some parts taken there cannot
    /// get the rest here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// The account that took the other parts of everybody's message in it: only there may the rest go, as another splits the
    /// text otherwise, or has another sender. `None` when whole messages are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl Leg {
    /// A leg of which nothing is declared.
    pub fn new(id: u64, len: u32, due: Timestamp) -> Leg {
        Leg { id, len, declared: 0, due, foreign: false, account: None }
    }
}

/// Recipients of a lane that a worker has declared it is about to hand to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[doc(alias = "SendWindow")]
#[serde(remote = "Self")]
pub struct OpenWindow {
    /// The ledger's version after the declare: the window's name.
    pub window: u64,
    /// The leg it is of.
    pub leg: u64,
    /// First place in the leg.
    pub from: u32,
    /// Just behind the last place.
    pub to: u32,
    /// The account it was declared for.
    pub account: String,
    /// Who declared it: the only one who writes its answers.
    pub declarer: WorkerId,
    /// When the declare began.
    pub declared_at: Timestamp,
    /// Nothing of it is handed over after this instant.
    pub send_by: Timestamp,
}

impl OpenWindow {
    /// Recipients in the window.
    pub fn len(&self) -> u32 {
        self.to - self.from
    }

    /// Whether the window holds nobody.
    pub fn is_empty(&self) -> bool {
        self.to == self.from
    }
}

// Read with a look at what is read: of a leg that is declared beyond its end, or a window that ends before it begins, nobody could
// say who is in it.
impl<'de> Deserialize<'de> for Leg {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Leg, D::Error> {
        let leg = Leg::deserialize(deserializer)?;
        if leg.declared > leg.len { Err(D::Error::custom("a leg is declared beyond its end")) } else { Ok(leg) }
    }
}

impl Serialize for Leg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Leg::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for OpenWindow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OpenWindow, D::Error> {
        let window = OpenWindow::deserialize(deserializer)?;
        if window.to < window.from { Err(D::Error::custom("a window ends before it begins")) } else { Ok(window) }
    }
}

impl Serialize for OpenWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OpenWindow::serialize(self, serializer)
    }
}

// The lengths of a row are compared with each other: whoever reads it makes room by them.
impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ledger, D::Error> {
        let ledger = Ledger::deserialize(deserializer)?;
        ledger.check().map_err(D::Error::custom).map(|()| ledger)
    }
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ledger::serialize(self, serializer)
    }
}

/// Recipients of a lane by outcome, as the closed windows left them. Estimates for people who watch: the truth is the
/// recount of the windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTotals {
    /// Taken by an account.
    pub accepted: u64,
    /// Refused for good.
    pub failed: u64,
    /// Handed over and never answered.
    pub uncertain: u64,
    /// Suppressed when their window was declared.
    pub suppressed: u64,
    /// Their validity ended before they were declared.
    pub expired: u64,
    /// Segments taken.
    pub segments: u64,
}

impl LaneTotals {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &LaneTotals) {
        // They are shown, and decide nothing: a damaged one is shown as it is, and stops nobody.
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.failed = self.failed.saturating_add(other.failed);
        self.uncertain = self.uncertain.saturating_add(other.uncertain);
        self.suppressed = self.suppressed.saturating_add(other.suppressed);
        self.expired = self.expired.saturating_add(other.expired);
        self.segments = self.segments.saturating_add(other.segments);
    }

    /// Recipients with an outcome.
    pub fn settled(&self) -> u64 {
        let counts = [self.accepted, self.failed, self.uncertain, self.suppressed, self.expired];
        counts.into_iter().fold(0, u64::saturating_add)
    }
}

/// The control row of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Ledger {
    /// Places in the manifest.
    pub len: u32,
    /// The newest dispatch that claimed it.
    pub task_number: u64,
    /// Who may declare.
    pub owner: WorkerId,
    /// What is left to declare, and what still has open windows.
    pub legs: Vec<Leg>,
    /// Windows with recipients whose answer is not settled.
    pub open: Vec<OpenWindow>,
    /// What the closed windows came to.
    pub totals: LaneTotals,
    /// Fenced for good: canceled, or the batch has finished. Nothing is ever declared again.
    pub closed: bool,
    /// Grows with every fence.
    #[serde(deserialize_with = "super::growing::read")]
    pub fences: u32,
    /// The latest instant at which anything of the lane was handed to an account, as the closed windows know it; `None` before
    /// the first.
    #[serde(default)]
    pub handed: Option<Timestamp>,
    /// Number of the last order to send again that was carried out here.
    #[serde(default)]
    pub order: u32,
    /// Recipients that this order appended.
    #[serde(default)]
    pub ordered: u32,
    /// Windows with this name or a smaller one were declared for accounts of another provider type than the batch has now.
    #[serde(default)]
    pub foreign_until: u64,
    /// The dispatch whose change of provider type was carried out here last.
    #[serde(default)]
    pub provider_number: u64,
    /// The dispatch whose end fenced the lane last: an order given before it is not carried out any more.
    #[serde(default)]
    pub closed_number: u64,
}

/// Why a ledger does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerRefusal {
    /// The token or the worker belongs to an older dispatch.
    OutOfDate,
    /// Somebody else owns the lane now.
    NotOwner,
    /// The lane is fenced for good.
    Closed,
    /// There is nothing left to declare.
    Nothing,
    /// The leg is not due yet; the instant is in the leg.
    NotDue,
    /// As many windows are open as may be.
    TooManyOpen,
    /// There is no such window: it was closed before.
    NoWindow,
}

/// How a window ended, for [`Ledger::close`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// What its recipients came to.
    pub totals: LaneTotals,
    /// Retry packs that hold those who must be tried again. Their rows are durable already.
    pub retries: Vec<Leg>,
    /// Legs that a retry pack took over whole.
    pub merged: Vec<u64>,
    /// When nothing from this place of the leg on was handed over: `declared` may be lowered to it.
    pub lower_to: Option<u32>,
    /// When the last of it was handed over; `None` when nothing was.
    pub handed: Option<Timestamp>,
    /// [`Ledger::foreign_until`] as it was when the retry packs were made: if the provider changed since, they are of the old one.
    pub foreign_until: u64,
}

impl Ledger {
    /// The ledger of a freshly sealed lane of `len` places.
    pub fn sealed(len: u32) -> Ledger {
        let legs = if len == 0 { vec![] } else { vec![Leg::new(0, len, Timestamp(0))] };
        Ledger {
            len,
            task_number: 0,
            owner: WorkerId(0),
            legs,
            open: vec![],
            totals: LaneTotals::default(),
            closed: false,
            fences: 0,
            handed: None,
            order: 0,
            ordered: 0,
            foreign_until: 0,
            provider_number: 0,
            closed_number: 0,
        }
    }

    /// What no change below can have made of a lane's lengths, when there is such a thing.
    fn check(&self) -> Result<(), &'static str> {
        if self.legs.iter().any(|leg| leg.id == 0 && leg.len > self.len) {
            return Err("the manifest's leg is longer than the lane");
        }
        if self.open.iter().any(|window| window.len() > WINDOW_RECIPIENTS_MAX) {
            return Err("a window holds more than any does");
        }
        let behind = |window: &OpenWindow| self.legs.iter().any(|leg| leg.id == window.leg && window.to > leg.len);
        if self.open.iter().any(behind) { Err("a window goes beyond its leg") } else { Ok(()) }
    }

    /// Whether nothing is left to declare and no window is open.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && (self.closed || self.legs.is_empty())
    }

    /// How far the first pass over the manifest was declared.
    pub fn first_pass(&self) -> u32 {
        self.legs.iter().find(|leg| leg.id == 0).map_or(self.len, |leg| leg.declared)
    }

    /// Recipients in open windows.
    pub fn in_flight(&self) -> u64 {
        self.open.iter().map(|window| u64::from(window.len())).sum()
    }

    /// Places of all legs that were not declared.
    pub fn undeclared(&self) -> u64 {
        self.legs.iter().map(|leg| u64::from(leg.len - leg.declared)).sum()
    }

    /// The leg to declare from next: the first that is due, retry packs before the manifest so that nobody is forgotten at
    /// the end. `Err(NotDue)` when all that is left has to wait.
    pub fn next_leg(&self, now: Timestamp) -> Result<&Leg, LedgerRefusal> {
        self.next_leg_of(now, |_| true)
    }

    /// [`next_leg`](Ledger::next_leg) of those that may go now: a leg whose account is down holds no other up.
    pub fn next_leg_of(&self, now: Timestamp, may_go: impl Fn(&Leg) -> bool) -> Result<&Leg, LedgerRefusal> {
        let mut waiting = self.legs.iter().filter(|leg| leg.declared < leg.len).peekable();
        if waiting.peek().is_none() {
            return Err(LedgerRefusal::Nothing);
        }
        waiting
            .filter(|leg| leg.due <= now && may_go(leg))
            .max_by_key(|leg| (leg.id != 0, std::cmp::Reverse(leg.due)))
            .ok_or(LedgerRefusal::NotDue)
    }

    /// When the next leg is due, of those that have something left.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.legs.iter().filter(|leg| leg.declared < leg.len).map(|leg| leg.due).min()
    }

    /// The row after `worker` claims the lane for the dispatch `task_number`. A lane that is fenced for good is claimed only
    /// to settle the windows that are still open.
    pub fn claim(&self, worker: WorkerId, task_number: u64) -> Result<Ledger, LedgerRefusal> {
        if self.closed && self.open.is_empty() {
            return Err(LedgerRefusal::Closed);
        }
        if task_number < self.task_number {
            return Err(LedgerRefusal::OutOfDate);
        }
        Ok(Ledger { owner: worker, task_number, ..self.clone() })
    }

    /// The row after `worker` declares the places `from..to` of a leg, `from` being where the leg stands. `version` is the
    /// row's version after this change and becomes the window's name.
    pub fn declare(&self, window: OpenWindow, task_number: u64, now: Timestamp) -> Result<Ledger, LedgerRefusal> {
        if self.closed {
            return Err(LedgerRefusal::Closed);
        }
        if self.task_number != task_number {
            return Err(LedgerRefusal::OutOfDate);
        }
        if self.owner != window.declarer {
            return Err(LedgerRefusal::NotOwner);
        }
        if self.open.iter().filter(|open| open.declarer == self.owner).count() >= LANE_WINDOWS_MAX {
            return Err(LedgerRefusal::TooManyOpen);
        }
        let mut next = self.clone();
        let Some(leg) = next.legs.iter_mut().find(|leg| leg.id == window.leg) else {
            return Err(LedgerRefusal::Nothing);
        };
        if leg.due > now {
            return Err(LedgerRefusal::NotDue);
        }
        if leg.declared != window.from || window.to <= window.from || window.to > leg.len {
            return Err(LedgerRefusal::Nothing);
        }
        leg.declared = window.to;
        next.open.push(window);
        Ok(next)
    }

    /// The row after an open window ended. `by` must own the lane: a replaced owner only writes answers.
    pub fn close(&self, by: WorkerId, window: u64, closing: &Closing) -> Result<Ledger, LedgerRefusal> {
        if self.owner != by {
            return Err(LedgerRefusal::NotOwner);
        }
        let Some(at) = self.open.iter().position(|open| open.window == window) else {
            return Err(LedgerRefusal::NoWindow);
        };
        let mut next = self.clone();
        let closed = next.open.remove(at);
        next.totals.add(&closing.totals);
        next.handed = next.handed.max(closing.handed);
        if let Some(lower_to) = closing.lower_to
            && let Some(leg) = next.legs.iter_mut().find(|leg| leg.id == closed.leg)
        {
            if leg.declared != closed.to || !(closed.from..=closed.to).contains(&lower_to) {
                return Err(LedgerRefusal::Nothing);
            }
            leg.declared = lower_to;
        }
        next.legs.retain(|leg| !closing.merged.contains(&leg.id));
        let foreign = self.foreign_until != closing.foreign_until;
        next.legs.extend(closing.retries.iter().map(|leg| Leg { foreign, ..leg.clone() }));
        next.sweep();
        Ok(next)
    }

    /// Whether `declared` of the window's leg may be lowered into it: it must be the leg's last declared window.
    pub fn is_last_of_leg(&self, window: u64) -> bool {
        self.open
            .iter()
            .find(|open| open.window == window)
            .is_some_and(|open| self.legs.iter().any(|leg| leg.id == open.leg && leg.declared == open.to))
    }

    pub(super) fn sweep(&mut self) {
        let open = &self.open;
        self.legs.retain(|leg| leg.declared < leg.len || open.iter().any(|window| window.leg == leg.id));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    pub(in crate::model) fn window(version: u64, leg: u64, from: u32, to: u32, declarer: WorkerId) -> OpenWindow {
        let at = Timestamp(1_000);
        OpenWindow {
            window: version,
            leg,
            from,
            to,
            account: "a".into(),
            declarer,
            declared_at: at,
            send_by: at.plus(Duration::from_secs(10)),
        }
    }

    pub(in crate::model) const A: WorkerId = WorkerId(1);
    pub(in crate::model) const B: WorkerId = WorkerId(2);
    pub(in crate::model) const NOW: Timestamp = Timestamp(1_000);

    #[test]
    fn a_lane_is_worked_through_and_done() {
        let ledger = Ledger::sealed(10).claim(A, 1).expect("claimed");
        let ledger = ledger.declare(window(2, 0, 0, 10, A), 1, NOW).expect("declared");
        assert!(!ledger.is_done());
        assert_eq!(ledger.next_leg(NOW), Err(LedgerRefusal::Nothing));
        let ledger = ledger.close(A, 2, &Closing::default()).expect("closed");
        assert!(ledger.is_done());
        assert_eq!(ledger.first_pass(), 10);
    }

    #[test]
    fn an_old_token_claims_nothing() {
        let ledger = Ledger::sealed(10).claim(A, 5).expect("claimed");
        assert_eq!(ledger.claim(B, 4), Err(LedgerRefusal::OutOfDate));
        assert_eq!(ledger.fence_closed(6).expect("fenced").claim(B, 6), Err(LedgerRefusal::Closed));
    }

    #[test]
    fn a_replaced_owner_declares_and_closes_nothing() {
        let ledger = Ledger::sealed(10).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 5, A), 1, NOW)).expect("declared");
        let ledger = ledger.claim(B, 1).expect("claimed by another");
        assert_eq!(ledger.declare(window(4, 0, 5, 10, A), 1, NOW), Err(LedgerRefusal::NotOwner));
        assert_eq!(ledger.close(A, 2, &Closing::default()), Err(LedgerRefusal::NotOwner));
        assert!(ledger.declare(window(4, 0, 5, 10, B), 1, NOW).is_ok(), "the new owner goes on at once");
    }

    #[test]
    fn only_the_place_behind_the_last_is_declared() {
        let ledger = Ledger::sealed(10).claim(A, 1).expect("claimed");
        for (from, to) in [(1, 5), (0, 0), (0, 11)] {
            assert_eq!(ledger.declare(window(2, 0, from, to, A), 1, NOW), Err(LedgerRefusal::Nothing), "{from}..{to}");
        }
    }

    #[test]
    fn not_now_goes_into_a_further_leg() {
        let ledger = Ledger::sealed(4).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 4, A), 1, NOW)).expect("declared");
        let closing = Closing { retries: vec![Leg::new(77, 2, Timestamp(2_000))], ..Closing::default() };
        let ledger = ledger.close(A, 2, &closing).expect("closed");
        assert_eq!(ledger.next_leg(NOW), Err(LedgerRefusal::NotDue));
        assert_eq!(ledger.next_leg(Timestamp(2_000)).map(|leg| leg.id), Ok(77));
        assert_eq!((ledger.undeclared(), ledger.is_done()), (2, false));
        assert_eq!(ledger.first_pass(), 4);
    }

    #[test]
    fn a_leg_that_may_not_go_holds_no_other_up_and_one_of_an_account_is_as_it_was_stored() {
        let rest = Leg { account: Some("a".into()), ..Leg::new(77, 2, NOW) };
        let ledger = Ledger { legs: vec![Leg::new(0, 4, Timestamp(0)), rest], ..Ledger::sealed(4) };
        assert_eq!(ledger.next_leg(NOW).map(|leg| leg.id), Ok(77));
        assert_eq!(ledger.next_leg_of(NOW, |leg| leg.account.is_none()).map(|leg| leg.id), Ok(0));
        let stored = serde_json::to_string(&ledger).expect("written");
        assert_eq!(serde_json::from_str::<Ledger>(&stored).expect("read"), ledger);
        assert_eq!(stored.matches("\"account\"").count(), 1, "what has none is stored as before: {stored}");
    }

    #[test]
    fn a_stopping_owner_lowers_over_what_it_did_not_hand_over() {
        let ledger = Ledger::sealed(10).claim(A, 1).and_then(|l| l.declare(window(2, 0, 0, 8, A), 1, NOW)).expect("declared");
        assert!(ledger.is_last_of_leg(2));
        let ledger = ledger.close(A, 2, &Closing { lower_to: Some(3), ..Closing::default() }).expect("closed");
        assert_eq!((ledger.first_pass(), ledger.undeclared()), (3, 7));
    }
}
