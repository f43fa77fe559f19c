//! The machine's own clock and chance.

use std::sync::Mutex;
use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use crate::model::time::Timestamp;
use crate::ports::clock::{Chance, Clock};

/// The machine's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }

    fn boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }

    fn minute_of_day(&self, zone: &str, at: Timestamp) -> Option<u16> {
        minute_of_day(zone, at)
    }
}

/// The minute of the day in a zone; `None` for an unknown zone.
pub fn minute_of_day(zone: &str, at: Timestamp) -> Option<u16> {
    let zone = jiff::tz::TimeZone::get(zone).ok()?;
    let time = jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned_datetime(zone);
    Some(time.hour().unsigned_abs() as u16 * 60 + time.minute().unsigned_abs() as u16)
}

/// Random numbers from a seed: the operating system's when a process starts, a test's own in a test.
pub struct SeededChance(Mutex<ChaCha12Rng>);

impl SeededChance {
    /// Seeded by the operating system.
    pub fn from_system() -> SeededChance {
        SeededChance(Mutex::new(rand::make_rng()))
    }

    /// Seeded by a number: the same seed gives the same run.
    pub fn from_seed(seed: u64) -> SeededChance {
        SeededChance(Mutex::new(ChaCha12Rng::seed_from_u64(seed)))
    }
}

impl Chance for SeededChance {
    fn next(&self) -> u64 {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).random()
    }
}
