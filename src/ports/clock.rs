//! Time and chance: both come from outside, so that a simulated run is a function of its seed.

use std::time::Duration;

use crate::model::schedule::SendingHours;
use crate::model::time::Timestamp;

/// What time it is. Waiting uses tokio's timers.
pub trait Clock: Send + Sync {
    /// The wall clock, UTC.
    fn now(&self) -> Timestamp;

    /// A clock that never goes back and runs while the machine sleeps (CLOCK_BOOTTIME), from an arbitrary start. Send-by
    /// limits are measured on it.
    fn boot(&self) -> Duration;

    /// The minute of the day (0 to 1439) at `at` in the zone with this IANA name; `None` for an unknown zone.
    fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16>;

    /// Whether these hours allow sending at `at`. A zone that nobody knows allows nothing.
    fn allows(&self, hours: &SendingHours, at: Timestamp) -> bool {
        self.minute_of_day(&hours.zone, at).is_some_and(|minute| hours.allow(minute))
    }
}

/// Where random numbers come from: nonces, names of retry packs, jitter.
pub trait Chance: Send + Sync {
    /// The next 64 random bits.
    fn next(&self) -> u64;
}
