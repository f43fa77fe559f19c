//! Time as policy: late starts, sending hours, and the delays between tries.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::lane::mix;
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

/// Durations in configuration and stored rows, as seconds with a fraction.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    /// Reads seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| serde::de::Error::custom("seconds must be a number from 0 up"))
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
    fn hours_may_cross_midnight() {
        let hours = |from, to| SendingHours { from, to, zone: "UTC".into() };
        let day = hours(8 * 60, 22 * 60);
        assert_eq!([479, 480, 1319, 1320].map(|m| day.allow(m)), [false, true, true, false]);
        let night = hours(22 * 60, 6 * 60);
        assert_eq!([1319, 1320, 0, 359, 360].map(|m| night.allow(m)), [false, true, true, true, false]);
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
