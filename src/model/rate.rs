//! The governor of one account's rate, in segments: a token bucket whose rate follows what the account answers.
//!
//! With a ceiling it starts there. Without one it finds the limit: it grows while it is used and nobody complains, halves
//! the gap between what was good and what was too much once somebody does, and then holds just below, feeling upwards now
//! and then. Cuts come at once, raises gently (AIMD).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a rate without a ceiling starts.
const FIRST_RATE: f64 = 250.0;
/// No account is faster.
const RATE_MAX: f64 = 5_000_000.0;
/// None is slower: the deepest cut leaves a segment a second, less the margin.
const RATE_MIN: f64 = 0.9;
/// What the bucket holds at most: this long at the current rate. Short, so that an account with a strict clock is not
/// flooded after a pause.
const DEPTH: Duration = Duration::from_millis(40);
/// Answers that come this soon after a cut belong to what was sent before it.
const DEAF: Duration = Duration::from_millis(150);
/// How often a rate that finds its limit is raised.
const STEP: Duration = Duration::from_millis(100);
/// How long a rate between good and too much must hold to count as good.
const TRIAL: Duration = Duration::from_millis(400);
/// How often a settled rate feels upwards, and by how much.
const FEEL_EVERY: Duration = Duration::from_secs(4);
/// It feels by this much at first, by twice as much each time nobody complained, and never by more than the last.
const FEEL_FIRST: f64 = 0.01;
const FEEL_MOST: f64 = 0.25;
/// A settled rate stays this far below what was good.
const MARGIN: f64 = 0.99;
/// No answer is taken to need longer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// A ceiling is used up to this share: clocks are not the same everywhere.
const CEILING_SHARE: f64 = 0.995;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// Growing by a third at each step that was used up.
    Growing,
    /// Between what was good and what was too much.
    Searching { good: f64, bad: f64, since: Duration },
    /// Just below the limit.
    Holding { since: Duration },
}

/// The governor of one account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Governor {
    ceiling: Option<u32>,
    rate: f64,
    last_good: f64,
    tokens: f64,
    refilled: Duration,
    phase: Phase,
    stepped: Duration,
    granted_since_step: f64,
    cut: Option<Duration>,
    cuts_in_a_row: u32,
    throttled: u64,
    feel: f64,
    outstanding: f64,
    answer_time: Duration,
}

impl Governor {
    /// A governor with what is known of the account's limit, starting at `now`.
    pub fn new(ceiling: Option<u32>, now: Duration) -> Governor {
        let rate = ceiling.map_or(FIRST_RATE, |limit| f64::from(limit.max(1)) * CEILING_SHARE);
        let phase = if ceiling.is_some() { Phase::Holding { since: now } } else { Phase::Growing };
        Governor {
            ceiling,
            rate,
            last_good: rate,
            tokens: 1.0,
            refilled: now,
            phase,
            stepped: now,
            granted_since_step: 0.0,
            cut: None,
            cuts_in_a_row: 0,
            throttled: 0,
            feel: FEEL_FIRST,
            outstanding: 0.0,
            answer_time: Duration::ZERO,
        }
    }

    /// Sets or clears the ceiling, live.
    pub fn set_ceiling(&mut self, ceiling: Option<u32>, now: Duration) {
        let (throttled, tokens, outstanding) = (self.throttled, self.tokens, self.outstanding);
        let rate = self.rate;
        *self = Governor::new(ceiling, now);
        self.throttled = throttled;
        self.outstanding = outstanding;
        self.tokens = tokens.min(self.rate * DEPTH.as_secs_f64()).max(0.0);
        if ceiling.is_none() {
            self.rate = rate;
            self.last_good = rate;
        }
    }

    /// What is known of the account's limit, with an empty bucket, from `at` on: how it goes on after a shared state was lost.
    pub fn again(&self, at: Duration) -> Governor {
        let phase = match self.phase {
            Phase::Growing => Phase::Growing,
            Phase::Searching { good, bad, .. } => Phase::Searching { good, bad, since: at },
            Phase::Holding { .. } => Phase::Holding { since: at },
        };
        Governor {
            tokens: 0.0,
            refilled: at,
            phase,
            stepped: at,
            granted_since_step: 0.0,
            cut: None,
            cuts_in_a_row: 0,
            outstanding: 0.0,
            ..self.clone()
        }
    }

    /// Whether a stored one can be gone on with: its numbers are among those that a governor comes to, and nothing of it was
    /// later than `latest`. One that is damaged would never grant again, or grant without end.
    pub fn is_usable(&self, latest: Duration) -> bool {
        let top = self.ceiling.map_or(f64::from(u32::MAX), |limit| f64::from(limit.max(1)));
        let is_rate = |rate: f64| rate >= RATE_MIN && rate <= top;
        let phase = match self.phase {
            Phase::Growing => true,
            Phase::Searching { good, bad, since } => is_rate(good) && is_rate(bad) && since <= latest,
            Phase::Holding { since } => since <= latest,
        };
        let positive = self.tokens >= 0.0 && self.outstanding >= 0.0 && (0.0..=FEEL_MOST).contains(&self.feel);
        let times = [self.refilled, self.stepped, self.cut.unwrap_or_default()];
        phase
            && positive
            && is_rate(self.rate)
            && is_rate(self.last_good)
            && self.granted_since_step.is_finite()
            && self.answer_time <= ANSWER_TIME_MAX
            && times.into_iter().all(|time| time <= latest)
    }

    /// Segments that [`Governor::take`] would give at most.
    pub fn available(&mut self, now: Duration) -> u32 {
        self.refill(now);
        self.tokens as u32
    }

    /// Segments that the bucket holds at most.
    pub fn depth(&self) -> u32 {
        (self.rate * DEPTH.as_secs_f64()).max(1.0) as u32
    }

    /// Sets right what is outstanding, from who knows it better.
    pub fn set_outstanding(&mut self, segments: f64) {
        self.outstanding = segments;
    }

    /// Segments a second that are allowed now.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The ceiling.
    pub fn ceiling(&self) -> Option<u32> {
        self.ceiling
    }

    /// How long an answer takes, smoothed.
    pub fn answer_time(&self) -> Duration {
        self.answer_time
    }

    /// "Slow down" answers so far.
    pub fn throttled(&self) -> u64 {
        self.throttled
    }

    /// Takes up to `want` segments, or says how long to wait for the next.
    pub fn take(&mut self, want: u32, now: Duration) -> Result<u32, Duration> {
        self.refill(now);
        self.step(now);
        if self.tokens < 1.0 {
            let wait = Duration::from_secs_f64(((1.0 - self.tokens) / self.rate).min(1.0));
            return Err(wait.max(Duration::from_millis(1)));
        }
        let granted = (self.tokens as u32).min(want).max(1);
        self.tokens -= f64::from(granted);
        self.granted_since_step += f64::from(granted);
        self.outstanding += f64::from(granted);
        Ok(granted)
    }

    /// Gives back what was not used.
    pub fn give_back(&mut self, segments: u32) {
        self.tokens += f64::from(segments);
        self.granted_since_step -= f64::from(segments);
        self.outstanding = (self.outstanding - f64::from(segments)).max(0.0);
    }

    /// Hears what answers said. Throttle answers cut the rate, once for all that were sent at the rate that was too much.
    pub fn answered(&mut self, others: u32, throttled: u32, now: Duration) {
        // Little's law: what is outstanding, over the rate, is the time an answer takes.
        let took = Duration::from_secs_f64((self.outstanding / self.rate).min(ANSWER_TIME_MAX.as_secs_f64()));
        self.answer_time = (self.answer_time * 7 + took) / 8;
        self.outstanding = (self.outstanding - f64::from(others) - f64::from(throttled)).max(0.0);
        if throttled == 0 {
            return;
        }
        self.throttled = self.throttled.saturating_add(u64::from(throttled));
        let deaf = DEAF.max(self.answer_time * 2);
        if self.cut.is_some_and(|cut| now.saturating_sub(cut) < deaf) {
            return;
        }
        let again_soon = self.cut.is_some_and(|cut| now.saturating_sub(cut) < deaf * 3);
        self.cuts_in_a_row = if again_soon { self.cuts_in_a_row.saturating_add(1) } else { 0 };
        self.cut = Some(now);
        self.feel = FEEL_FIRST;
        self.tokens = self.tokens.min(0.0);
        let bad = self.rate;
        let good = match self.phase {
            Phase::Growing => self.last_good,
            Phase::Searching { good, .. } => good,
            Phase::Holding { .. } => bad * 0.98,
        };
        // Complaints that go on mean that even the good rate is too much now: cut deeper each time.
        let depth = [1.0, 0.9, 0.75, 0.5][self.cuts_in_a_row.min(3) as usize];
        let good = (good.min(bad * 0.98) * depth).max(1.0);
        self.phase = if bad / good > 1.03 { Phase::Searching { good, bad, since: now } } else { Phase::Holding { since: now } };
        self.rate = good * MARGIN;
        self.stepped = now;
        self.granted_since_step = 0.0;
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        let depth = (self.rate * DEPTH.as_secs_f64()).max(1.0);
        self.tokens = (self.tokens + passed * self.rate).min(depth);
    }

    fn step(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.stepped);
        if passed < STEP.max(self.answer_time * 2) {
            return;
        }
        // A rate that nobody uses up says nothing about the limit.
        let used = self.granted_since_step >= 0.7 * self.rate * passed.as_secs_f64();
        self.stepped = now;
        self.granted_since_step = 0.0;
        if !used {
            return;
        }
        let top = self.ceiling.map_or(RATE_MAX, |limit| f64::from(limit.max(1)) * CEILING_SHARE);
        match self.phase {
            Phase::Growing => {
                self.last_good = self.rate;
                self.rate = (self.rate * 1.4).min(top);
            }
            Phase::Searching { good, bad, since } if now.saturating_sub(since) >= TRIAL.max(self.answer_time * 3) => {
                let good = good.max(self.rate);
                let middle = (good + bad) / 2.0;
                if bad / good < 1.03 {
                    self.phase = Phase::Holding { since: now };
                    self.rate = good;
                } else {
                    self.phase = Phase::Searching { good, bad, since: now };
                    self.rate = middle.min(top);
                }
            }
            Phase::Holding { since } if now.saturating_sub(since) >= FEEL_EVERY => {
                self.phase = Phase::Holding { since: now };
                self.rate = (self.rate * (1.0 + self.feel)).min(top);
                self.feel = (self.feel * 2.0).min(FEEL_MOST);
                self.cuts_in_a_row = 0;
            }
            Phase::Searching { .. } | Phase::Holding { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// An account with a token bucket of 100 ms that answers after `answer_after`: returns accepted and throttled in the
    /// seconds `from..to`.
    fn run(ceiling: Option<u32>, limit: impl Fn(u64) -> f64, answer_after: u64, from: u64, to: u64) -> (u64, u64) {
        let mut governor = Governor::new(ceiling, Duration::ZERO);
        let mut answers: VecDeque<(u64, u32, u32)> = VecDeque::new();
        let (mut bucket, mut accepted, mut throttled) = (limit(0) / 10.0, 0, 0);
        for ms in 0..to * 1_000 {
            let now = Duration::from_millis(ms);
            let limit = limit(ms / 1_000);
            bucket = f64::min(bucket + limit / 1_000.0, limit / 10.0);
            while answers.front().is_some_and(|(at, ..)| *at <= ms) {
                let (_, granted, refused) = answers.pop_front().expect("just seen");
                governor.answered(granted - refused, refused, now);
            }
            if let Ok(granted) = governor.take(10_000, now) {
                let taken = f64::from(granted).min(bucket.floor());
                bucket -= taken;
                let refused = granted - taken as u32;
                if ms >= from * 1_000 {
                    accepted += taken as u64;
                    throttled += u64::from(refused);
                }
                answers.push_back((ms + answer_after, granted, refused));
            }
        }
        (accepted, throttled)
    }

    #[test]
    fn an_allowed_rate_is_used_whether_or_not_it_is_known() {
        for limit in [200u32, 1_000, 5_000, 20_000] {
            for ceiling in [Some(limit), None] {
                for answer_after in [2, 20, 100] {
                    let (accepted, throttled) = run(ceiling, |_| f64::from(limit), answer_after, 0, 30);
                    let used = accepted as f64 / (f64::from(limit) * 30.0);
                    let refused = throttled as f64 / (accepted + throttled) as f64;
                    // An unknown limit is found on the way: a short run at a low limit, or slow answers, weigh more.
                    let (least, most) = match (limit, answer_after) {
                        (200, _) => (0.93, 0.03),
                        (_, 100) => (0.90, 0.015),
                        _ => (0.95, 0.01),
                    };
                    let case = format!("{limit} {ceiling:?} {answer_after} ms: used {used:.3}, throttled {refused:.4}");
                    assert!(used >= least && refused < most, "{case}");
                }
            }
        }
    }

    #[test]
    fn a_limit_that_falls_is_followed_at_once() {
        let falls = |second: u64| if second < 10 { 5_000.0 } else { 500.0 };
        let (accepted, throttled) = run(Some(5_000), falls, 20, 12, 40);
        assert!(accepted as f64 >= 0.9 * 500.0 * 28.0, "accepted {accepted}");
        assert!((throttled as f64) < 0.02 * accepted as f64, "throttled {throttled} of {accepted}");
    }

    #[test]
    fn a_rate_that_nobody_uses_does_not_grow() {
        let mut governor = Governor::new(None, Duration::ZERO);
        for ms in (0..10_000).step_by(50) {
            let _ = governor.take(1, Duration::from_millis(ms));
        }
        assert!(governor.rate() < 500.0, "{}", governor.rate());
    }
}
