//! One account's rate on one worker: the slices it holds, what it was asked for, and what it has to tell the fleet.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::rate::Governor;
use crate::model::rate_shared::{CREDIT, SharedRate, Slice, Visit};
use crate::ports::rates::{Grant, RateView};

/// How long a caller waits before it asks again while slices come in.
const SOON: Duration = Duration::from_millis(4);
/// The longest wait while the fleet's state can be reached.
const LATER: Duration = Duration::from_millis(50);
/// How long a caller waits when it cannot.
const AWAY: Duration = Duration::from_millis(100);
/// A slice goes back early when nobody asked for this long: longer than a caller is told to wait.
const UNWANTED: Duration = Duration::from_millis(60);
const _: () = assert!(UNWANTED.as_millis() > LATER.as_millis());
/// A view that is older than this says nothing about now.
const STALE: Duration = Duration::from_secs(2);

/// Times are those of this worker's boot clock.
pub(super) struct Credit {
    holder: u64,
    /// The ceiling it began with, the one it knows now, and whether these were told.
    first: Option<u32>,
    ceiling: Option<u32>,
    is_first_told: bool,
    changed: Option<Option<u32>>,
    /// Segments that may be handed out, and until when.
    slices: VecDeque<(u32, Duration)>,
    /// The life of the shared state that the slices came from.
    life: Option<Duration>,
    /// Segments asked for and not given, since the last visit.
    wanted: u32,
    asked: Option<Duration>,
    unused: u32,
    others: u32,
    throttled: u32,
    /// Segments handed out and neither answered nor given back.
    outstanding: u32,
    wait: Duration,
    seen: Option<(Governor, Duration)>,
    sharers: u32,
}

impl Credit {
    /// No credit yet, with the ceiling this worker knows.
    pub fn new(holder: u64, ceiling: Option<u32>) -> Credit {
        Credit {
            holder,
            first: ceiling,
            ceiling,
            is_first_told: false,
            changed: None,
            slices: VecDeque::new(),
            life: None,
            wanted: 0,
            asked: None,
            unused: 0,
            others: 0,
            throttled: 0,
            outstanding: 0,
            wait: SOON,
            seen: None,
            sharers: 1,
        }
    }

    /// Hands out of what is there.
    pub fn take(&mut self, want: u32, now: Duration) -> Grant {
        self.expire(now);
        self.asked = Some(now);
        let mut granted = 0;
        while granted < want
            && let Some((segments, _)) = self.slices.front_mut()
        {
            let part = (want - granted).min(*segments);
            granted += part;
            *segments -= part;
            if *segments == 0 {
                self.slices.pop_front();
            }
        }
        self.wanted = self.wanted.saturating_add(want - granted);
        self.outstanding = self.outstanding.saturating_add(granted);
        if granted > 0 { Grant::Take(granted) } else { Grant::Wait(self.wait) }
    }

    /// Whether somebody waits for more.
    pub fn is_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Takes back what a caller did not use.
    pub fn give_back(&mut self, segments: u32) {
        self.unused = self.unused.saturating_add(segments);
        self.outstanding = self.outstanding.saturating_sub(segments);
    }

    /// Hears what answers said.
    pub fn answered(&mut self, others: u32, throttled: u32) {
        self.others = self.others.saturating_add(others);
        self.throttled = self.throttled.saturating_add(throttled);
        self.outstanding = self.outstanding.saturating_sub(others.saturating_add(throttled));
    }

    /// A ceiling that was set live.
    pub fn set_ceiling(&mut self, ceiling: Option<u32>) {
        self.ceiling = ceiling;
        self.changed = Some(ceiling);
    }

    /// A new shared state, from what this worker knows.
    pub fn begin(&self, now: Duration) -> SharedRate {
        SharedRate::begin(self.seen(), self.first, self.ceiling, now)
    }

    fn seen(&self) -> Option<&Governor> {
        self.seen.as_ref().map(|(governor, _)| governor)
    }

    /// Whether it was seen within `age`.
    pub fn is_fresh(&self, now: Duration, age: Duration) -> bool {
        self.seen.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) < age)
    }

    /// What there is to ask for and to tell; `None` when there is nothing.
    pub fn visit(&mut self, now: Duration) -> Option<Visit> {
        self.expire(now);
        if self.asked.is_none_or(|asked| now.saturating_sub(asked) > UNWANTED) {
            self.unused = self.unused.saturating_add(self.slices.drain(..).map(|(segments, _)| segments).sum());
            self.wanted = 0;
        }
        let tells = self.unused > 0 || self.others > 0 || self.throttled > 0;
        (self.wanted > 0 || tells || self.changed.is_some() || !self.is_first_told).then_some(Visit {
            holder: self.holder,
            want: self.wanted,
            unused: self.unused,
            life: self.life,
            others: self.others,
            throttled: self.throttled,
            outstanding: self.outstanding,
            begun_with: (!self.is_first_told).then_some(self.first),
            ceiling: self.changed,
        })
    }

    /// The visit was made, and its result stored by a request that began at `began`.
    pub fn visited(&mut self, visit: &Visit, slice: Slice, shared: &SharedRate, began: Duration, now: Duration) {
        self.told(visit);
        self.throttled -= visit.throttled.min(self.throttled);
        if self.changed == visit.ceiling {
            self.changed = None;
        }
        self.is_first_told = true;
        if self.life != Some(shared.life()) {
            // What an earlier life granted was never this one's.
            self.unused = 0;
            self.life = Some(shared.life());
        }
        if slice.granted > 0 {
            self.slices.push_back((slice.granted, began + CREDIT));
        }
        self.wait = if slice.granted > 0 { SOON } else { slice.wait.clamp(SOON, LATER) };
        self.seen = Some((shared.governor().clone(), now));
        self.sharers = shared.sharers();
    }

    /// The shared state was read, nothing more.
    pub fn looked(&mut self, shared: &SharedRate, now: Duration) {
        self.seen = Some((shared.governor().clone(), now));
        self.sharers = shared.sharers();
    }

    /// Nobody knows whether the visit was made. What it may have granted is not used; what it gave back is not given back
    /// again, which would be twice; that an account complained, or a ceiling was set, is harmless twice.
    pub fn lost(&mut self, visit: &Visit) {
        self.told(visit);
        self.wait = AWAY;
    }

    /// The visit was not made.
    pub fn failed(&mut self) {
        self.wanted = 0;
        self.wait = AWAY;
    }

    fn told(&mut self, visit: &Visit) {
        self.unused -= visit.unused.min(self.unused);
        self.others -= visit.others.min(self.others);
        // Whoever still waits asks again in a moment.
        self.wanted = 0;
    }

    fn expire(&mut self, now: Duration) {
        while self.slices.front().is_some_and(|(_, until)| *until < now) {
            if let Some((segments, _)) = self.slices.pop_front() {
                self.unused = self.unused.saturating_add(segments);
            }
        }
    }

    /// The rate as people see it: 0 once the fleet's state cannot be reached, for nothing is handed out then.
    pub fn view(&self, now: Duration) -> RateView {
        let governor = self.seen();
        RateView {
            rate: governor.filter(|_| self.is_fresh(now, STALE)).map_or(0.0, Governor::rate),
            answer_time: governor.map_or(Duration::ZERO, Governor::answer_time),
            ceiling: governor.map_or(self.ceiling, Governor::ceiling),
            throttled: governor.map_or(0, Governor::throttled),
            sharers: self.sharers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn granted(credit: &mut Credit, segments: u32, began: Duration) {
        let visit = credit.visit(began).expect("it has something to ask for");
        let shared = credit.begin(Duration::from_secs(9));
        credit.visited(&visit, Slice { granted: segments, wait: Duration::ZERO }, &shared, began, began);
    }

    #[test]
    fn a_slice_is_handed_out_for_a_hundred_milliseconds_from_when_it_was_asked_for() {
        let mut credit = Credit::new(1, None);
        assert_eq!(credit.take(50, MS), Grant::Wait(SOON));
        granted(&mut credit, 30, MS);
        assert_eq!(credit.take(20, 101 * MS), Grant::Take(20));
        assert!(matches!(credit.take(20, 102 * MS), Grant::Wait(_)), "ten are left, too late");
        let visit = credit.visit(102 * MS).expect("it gives them back");
        assert_eq!((visit.unused, visit.want, visit.outstanding), (10, 20, 20));
    }

    #[test]
    fn a_lost_answer_gives_nothing_and_nothing_twice() {
        let mut credit = Credit::new(1, None);
        credit.take(50, MS);
        granted(&mut credit, 30, MS);
        credit.take(30, MS);
        credit.give_back(5);
        credit.answered(10, 3);
        let visit = credit.visit(2 * MS).expect("there is much to tell");
        credit.lost(&visit);
        assert_eq!(credit.take(1, 3 * MS), Grant::Wait(AWAY));
        let again = credit.visit(3 * MS).expect("the complaint is told again");
        assert_eq!((again.unused, again.others, again.throttled, again.outstanding), (0, 0, 3, 12));
        credit.failed();
        let again = credit.visit(4 * MS).expect("it was not told");
        assert_eq!(again.throttled, 3);
    }

    #[test]
    fn what_nobody_asks_for_goes_back_early() {
        let mut credit = Credit::new(1, Some(5));
        credit.take(10, MS);
        granted(&mut credit, 40, MS);
        assert_eq!(credit.visit(50 * MS), None, "it may be wanted any moment");
        assert_eq!(credit.visit(70 * MS).map(|visit| visit.unused), Some(40));
    }

    #[test]
    fn a_view_that_is_old_shows_no_rate() {
        let mut credit = Credit::new(1, Some(500));
        assert_eq!((credit.view(MS).rate, credit.view(MS).ceiling), (0.0, Some(500)));
        credit.looked(&SharedRate::begin(None, None, Some(500), MS), MS);
        assert!(credit.view(Duration::from_secs(1)).rate > 400.0);
        assert_eq!(credit.view(Duration::from_secs(3)).rate, 0.0);
    }
}
