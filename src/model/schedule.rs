//! Time as policy: late starts, sending hours, and the delays between tries.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::lane::mix;
use super::limits::DURATION_MAX;
use super::time::Timestamp;

/// What happens to a start that was missed beyond `not_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LateStart {
    /// The batch is paused with the reason; a person decides.
    #[default]
    Hold,
    /// It is sent all the same.
    Send,
    /// It is canceled.
    Cancel,
}

/// What a leader does with a delivery that is READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartDecision {
    /// Not yet.
    Wait(Timestamp),
    /// Now.
    Start,
    /// Too late: pause it.
    Hold,
    /// Too late: cancel it.
    Cancel,
}

/// Whether a delivery begins now.
pub fn start_decision(
    schedule: Option<Timestamp>,
    not_after: Option<Timestamp>,
    late: LateStart,
    now: Timestamp,
) -> StartDecision {
    if let Some(at) = schedule
        && now < at
    {
        return StartDecision::Wait(at);
    }
    if not_after.is_some_and(|limit| now > limit) {
        return match late {
            LateStart::Hold => StartDecision::Hold,
            LateStart::Send => StartDecision::Start,
            LateStart::Cancel => StartDecision::Cancel,
        };
    }
    StartDecision::Start
}

/// When an account may send, by the wall clock of a zone. Whoever writes one by hand is told of a wrong key; stored ones are read by
/// [`stored_hours`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendingHours {
    /// First minute of the day, as `"08:00"`.
    #[serde(with = "minute_of_day")]
    pub from: u16,
    /// First minute that is too late, as `"22:00"`; before `from` it means the next morning.
    #[serde(with = "minute_of_day")]
    pub to: u16,
    /// IANA name of the zone, such as `"Asia/Shanghai"`.
    pub zone: String,
}

/// Reads hours that are stored in a batch, which a later version may have given more keys.
pub fn stored_hours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SendingHours>, D::Error> {
    #[derive(Deserialize)]
    struct Stored {
        #[serde(with = "minute_of_day")]
        from: u16,
        #[serde(with = "minute_of_day")]
        to: u16,
        zone: String,
    }
    let stored = Option::<Stored>::deserialize(deserializer)?;
    Ok(stored.map(|Stored { from, to, zone }| SendingHours { from, to, zone }))
}

impl std::fmt::Display for SendingHours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [(a, b), (c, d)] = [self.from, self.to].map(|minute| (minute / 60, minute % 60));
        write!(f, "{a:02}:{b:02}-{c:02}:{d:02} {}", self.zone)
    }
}

impl SendingHours {
    /// Whether sending is allowed at a minute of the zone's day (0 to 1439).
    pub fn allow(&self, minute: u16) -> bool {
        if self.from <= self.to { (self.from..self.to).contains(&minute) } else { minute >= self.from || minute < self.to }
    }
}

/// The delay before try `attempt` (from 0): doubles from `first` up to `most`, and half of it is drawn from `seed`, so
/// that many who failed together do not come back together.
pub fn backoff_delay(attempt: u32, first: Duration, most: Duration, seed: u64) -> Duration {
    let whole = first.saturating_mul(1u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX)).min(most);
    let half = whole / 2;
    let share = mix(seed.wrapping_add(u64::from(attempt))) % 1_000;
    half + half.mul_f64(share as f64 / 1_000.0)
}

/// Puts what waits together into at most `most` groups, as ranges of `dues`, which are in order. A group is due when its last is,
/// so nobody is tried earlier than was asked for, and what is due now waits for nothing that is not.
///
/// Time ahead is cut into cells that grow with their distance, at first a sixteenth of it, and what shares one goes together. The
/// cells' ends are multiples of powers of two, so as time goes on they are only ever cut finer: whoever was put off to the end of
/// one is not put off beyond it by those who come later, however many they are.
pub fn groups(dues: &[Timestamp], now: Timestamp, most: usize) -> Vec<Range<usize>> {
    const FARTHEST: u64 = 1 << 36;
    for coarse in 0..24 {
        let end = |due: &Timestamp| {
            let wait = u64::try_from(due.0.saturating_sub(now.0)).unwrap_or(0).min(FARTHEST);
            let cell = (wait.next_power_of_two() << coarse >> 4).max(1) as i64;
            let cells = due.0.div_euclid(cell) + i64::from(due.0.rem_euclid(cell) > 0);
            if wait == 0 { i64::MIN } else { cells.saturating_mul(cell) }
        };
        let mut groups: Vec<Range<usize>> = vec![];
        for group in dues.chunk_by(|one, next| end(one) == end(next)) {
            let from = groups.last().map_or(0, |before| before.end);
            groups.push(from..from + group.len());
        }
        if groups.len() <= most {
            return groups;
        }
    }
    std::iter::once(0..dues.len()).collect()
}

/// So many seconds; `None` for what is no duration, or is longer than [`DURATION_MAX`] and so would be behind the end of a clock.
pub fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= DURATION_MAX)
}

/// Durations in configuration, as seconds with a fraction.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{DURATION_MAX, duration};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    /// Reads seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        duration(seconds).ok_or_else(|| {
            let most = DURATION_MAX.as_secs();
            serde::de::Error::custom(format_args!("seconds must be a number from 0 to {most}, which is ten years"))
        })
    }
}

mod minute_of_day {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(minute: &u16, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:02}:{:02}", minute / 60, minute % 60))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once(':').and_then(|(h, m)| Some((h.parse::<u16>().ok()?, m.parse::<u16>().ok()?)));
        match parsed {
            Some((hour, minute)) if hour < 24 && minute < 60 || (hour, minute) == (24, 0) => Ok(hour * 60 + minute),
            _ => Err(serde::de::Error::custom("a time of day is written as \"08:00\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_start_follows_its_policy() {
        let (at, limit) = (Some(Timestamp(100)), Some(Timestamp(200)));
        let decide = |late, now| start_decision(at, limit, late, Timestamp(now));
        assert_eq!(decide(LateStart::Hold, 99), StartDecision::Wait(Timestamp(100)));
        assert_eq!(decide(LateStart::Hold, 200), StartDecision::Start);
        assert_eq!(decide(LateStart::Hold, 201), StartDecision::Hold);
        assert_eq!(decide(LateStart::Send, 201), StartDecision::Start);
        assert_eq!(decide(LateStart::Cancel, 201), StartDecision::Cancel);
    }

    #[test]
    fn every_duration_ends_before_the_clocks_do() {
        let most = DURATION_MAX.as_secs_f64();
        assert_eq!([0.0, 2.5, most].map(duration), [0, 2_500, most as u64 * 1_000].map(|ms| Some(Duration::from_millis(ms))));
        for seconds in [-1.0, f64::NAN, f64::INFINITY, most + 1.0, 1e10, 1.8e19, 1e300] {
            assert_eq!(duration(seconds), None, "{seconds}");
        }
    }

    #[test]
    fn hours_may_cross_midnight() {
        let hours = |from, to| SendingHours { from, to, zone: "UTC".into() };
        let day = hours(8 * 60, 22 * 60);
        assert_eq!([479, 480, 1319, 1320].map(|m| day.allow(m)), [false, true, true, false]);
        let night = hours(22 * 60, 6 * 60);
        assert_eq!([1319, 1320, 0, 359, 360].map(|m| night.allow(m)), [false, true, true, true, false]);
    }

    #[test]
    fn what_is_due_at_about_the_same_time_waits_together() {
        let grouped = |dues: &[i64], most| {
            let dues: Vec<Timestamp> = dues.iter().copied().map(Timestamp).collect();
            let groups = groups(&dues, Timestamp(1_000), most);
            groups.into_iter().map(|group| dues[group].iter().map(|due| due.0).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(grouped(&[1_500, 1_501, 21_000], 9), [vec![1_500, 1_501], vec![21_000]]);
        assert_eq!(grouped(&[1_500, 1_530, 21_000, 22_000], 4), [vec![1_500], vec![1_530], vec![21_000, 22_000]]);
        assert_eq!(grouped(&[1_500, 1_530, 21_000, 22_000], 2), [vec![1_500, 1_530], vec![21_000, 22_000]]);
        assert_eq!(grouped(&[10, 1_000, 1_001], 2), [vec![10, 1_000], vec![1_001]], "what is due waits for nobody");
        assert_eq!(grouped(&[10, 1_001, i64::MAX], 1), [vec![10, 1_001, i64::MAX]], "when there is no other way, all together");
        assert_eq!(grouped(&[], 1), Vec::<Vec<i64>>::new());
    }

    #[test]
    fn nobody_is_put_off_again_and_again_by_those_who_come_later() {
        // What each group is due, and when and how late its people asked for it.
        let mut waiting: Vec<(Timestamp, Vec<(Timestamp, i64)>)> = vec![];
        let (mut served, mut most_late) = (0, 0.0f64);
        for round in 0..6_000 {
            let now = Timestamp(1_800_000_000_000 + 200 * round);
            waiting.retain(|(due, people)| {
                for (asked, delay) in people.iter().filter(|_| *due <= now) {
                    assert!(asked <= due);
                    most_late = most_late.max((due.0 - asked.0) as f64 / *delay as f64);
                    served += 1;
                }
                *due > now
            });
            let delay = [500, 180_000, 20_000, 1_000, 60_000, 5_000, 45_000][mix(round as u64) as usize % 7];
            let due = Timestamp(now.0 + delay);
            waiting.push((due, vec![(due, delay)]));
            waiting.sort_by_key(|(due, _)| *due);
            let dues: Vec<Timestamp> = waiting.iter().map(|(due, _)| *due).collect();
            let together = |group: Range<usize>| {
                (dues[group.end - 1], waiting[group].iter().flat_map(|(_, people)| people.clone()).collect())
            };
            waiting = groups(&dues, now, 10).into_iter().map(together).collect();
            assert!(waiting.len() <= 10);
        }
        // Ten groups for waits between half a second and three minutes cannot be finer; the number of rounds does not count.
        assert!(served > 5_000 && most_late < 4.0, "{served} served, one late by {most_late} of what was asked for");
    }

    #[test]
    fn delays_grow_and_stay_within_bounds() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(10));
        for attempt in 0..40 {
            let delay = backoff_delay(attempt, first, most, 9);
            assert!(delay >= (first * 2u32.pow(attempt.min(6))).min(most) / 2 && delay <= most, "{attempt}: {delay:?}");
        }
        assert_eq!(backoff_delay(3, first, most, 9), backoff_delay(3, first, most, 9));
    }
}
