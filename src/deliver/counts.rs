//! What a window's answers are counted as, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::answer::Answer;
use crate::model::code::Code;
use crate::model::limits::SEND_BY;
use crate::model::schedule::SendingHours;
use crate::model::window::Answered;
use crate::ports::clock::Clock;
use crate::runtime::metrics;

/// Counts answers by class, and refusals by code.
pub(super) fn answers(account: &str, answers: &[Answered]) {
    let (mut classes, mut codes) = (BTreeMap::<&'static str, u64>::new(), BTreeMap::<Code, u64>::new());
    for answered in answers {
        *classes.entry(answered.answer.class()).or_default() += 1;
        if let Answer::Failed { code, .. } = &answered.answer {
            *codes.entry(*code).or_default() += 1;
        }
    }
    for (class, answers) in classes {
        metrics::count(&metrics::DELIVER_ANSWERS, &[account, class], answers);
    }
    for (code, parts) in codes {
        metrics::count(&metrics::DELIVER_FAILURES, &[account, code.as_str()], parts);
    }
}

/// The chunks of a window, by when their hand-over began. Both grow: recipients are handed over in their order.
#[derive(Default)]
pub(super) struct Chunks(Mutex<Vec<(u32, Duration)>>);

impl Chunks {
    /// A chunk that begins with the recipient `first` is handed over at `now`, on the boot clock.
    pub(super) fn begins(&self, first: u32, now: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((first, now));
    }

    /// Measures how long answers took that came together at `now`: once for each class, by the chunk of its first.
    pub(super) fn answered(&self, account: &str, answers: &[Answered], now: Duration) {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut classes = BTreeMap::new();
        for answered in answers.iter().filter(|answered| answered.answer != Answer::NotSent) {
            classes.entry(answered.answer.class()).or_insert(answered.seq);
        }
        for (class, seq) in classes {
            if let Some(at) = chunks.partition_point(|(first, _)| *first <= seq).checked_sub(1) {
                metrics::observe(&metrics::DELIVER_LATENCY, &[account, class], now.saturating_sub(chunks[at].1));
            }
        }
    }
}

/// Whether a hand-over now breaks one of these hours. A window that was declared within them may be handed over until its send-by
/// limit, so what counts is that neither now nor so long ago was allowed.
pub(super) fn is_outside(clock: &dyn Clock, hours: [Option<&SendingHours>; 2]) -> bool {
    let now = clock.now();
    hours.into_iter().flatten().any(|hours| !clock.allows(hours, now) && !clock.allows(hours, now.minus(SEND_BY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    /// A clock that stands still at a second of the day.
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp(0).plus(Duration::from_secs(self.0))
        }

        fn boot(&self) -> Duration {
            Duration::ZERO
        }

        fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16> {
            (zone == "UTC").then(|| (at.since(Timestamp(0)).as_secs() / 60 % 1_440) as u16)
        }
    }

    #[test]
    fn only_what_no_window_can_excuse_is_outside_the_hours() {
        let hours = |zone: &str| SendingHours { from: 8 * 60, to: 22 * 60, zone: zone.into() };
        let (day, unknown) = (hours("UTC"), hours("nowhere"));
        let end = 22 * 3_600;
        let outside = |second, batch: Option<&SendingHours>| is_outside(&At(second), [Some(&day), batch]);
        assert!(!outside(end - 1, None));
        assert!(!outside(end + 9, None), "declared within the hours, at most ten seconds ago");
        assert!(outside(end + 11, None));
        assert!(outside(12 * 3_600, Some(&unknown)), "a zone that nobody knows allows nothing");
        assert!(!is_outside(&At(3), [None, None]));
    }
}
