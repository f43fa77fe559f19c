//! The governor of an account's rate, shared by all workers of a fleet: they come by turns, give back what they did not use,
//! tell what answers said, and take a slice of the budget. All times are those of one clock, the keeper's.
//!
//! The state may be lost at any moment. A new one grants nothing for one [`LEASE`], which is longer than anybody may use what
//! the lost one granted; so the loss never grants twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rate::Governor;

/// How long a slice may be handed out by the worker that took it, counted on its own clock from before it asked.
pub const CREDIT: Duration = Duration::from_millis(100);
/// How long a new state grants nothing: a slice's credit, the 100 ms in which a grant of it is used or given back, and as
/// much again for clocks and machines that are not in step.
pub const LEASE: Duration = Duration::from_millis(300);
const _: () = assert!(LEASE.as_millis() >= 3 * CREDIT.as_millis());

/// The form of the stored state. A later form that only adds fields keeps the number.
const VERSION: u32 = 1;
/// Workers that asked within this time share the budget.
const RIVALS: Duration = Duration::from_millis(100);
/// What a worker that was silent for this long has outstanding is not waited for any more.
const SILENT: Duration = Duration::from_secs(30);

/// The shared state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedRate {
    version: u32,
    /// When this state began: the name of its life.
    born: Duration,
    /// The latest visit.
    at: Duration,
    /// The ceiling that a worker last began with. One that begins with the same changes nothing, so that it does not undo
    /// what was set live since.
    begun_with: Option<u32>,
    governor: Governor,
    holders: BTreeMap<u64, Holder>,
}

/// A worker that has something outstanding, or asked a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Holder {
    #[serde(rename = "o")]
    outstanding: u32,
    /// Milliseconds of the keeper's clock.
    #[serde(rename = "s")]
    seen: u64,
    #[serde(rename = "a")]
    asked: u64,
}

/// What a worker comes with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Visit {
    /// Who comes.
    pub holder: u64,
    /// Segments it could use at once.
    pub want: u32,
    /// Segments it took in the life of the state named, and did not use.
    pub unused: u32,
    /// The life that `unused` was taken in.
    pub life: Option<Duration>,
    /// Segments answered since its last visit, without those that said "slow down".
    pub others: u32,
    /// Segments answered with "slow down".
    pub throttled: u32,
    /// Segments it handed over that are not answered yet.
    pub outstanding: u32,
    /// The ceiling it began with, at its first visit.
    pub begun_with: Option<Option<u32>>,
    /// The ceiling that was set live, if it was since its last visit.
    pub ceiling: Option<Option<u32>>,
}

/// What a worker goes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Segments.
    pub granted: u32,
    /// When there are none: how long until there may be.
    pub wait: Duration,
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl SharedRate {
    /// A new state, from what a worker knows: the governor it last saw, when it saw one, the ceiling it began with, and the
    /// ceiling now.
    pub fn begin(seen: Option<&Governor>, begun_with: Option<u32>, ceiling: Option<u32>, now: Duration) -> SharedRate {
        let from = now + LEASE;
        let governor = match seen {
            Some(seen) if seen.ceiling() == ceiling => seen.again(from),
            _ => Governor::new(ceiling, from).again(from),
        };
        SharedRate { version: VERSION, born: now, at: now, begun_with, governor, holders: BTreeMap::new() }
    }

    /// Whether it can be gone on with: of this version, not from a future that the clock left again, and with nothing in it that
    /// a damage alone explains. Whatever it holds is reckoned with.
    pub fn is_usable(&self, now: Duration) -> bool {
        // Holders are of the latest visit at most, which a clock that was set back may have before it.
        let latest = ms(now + LEASE);
        self.version == VERSION
            && self.at <= now + LEASE
            && self.born <= self.at
            && self.governor.is_usable(self.at + LEASE)
            && self.holders.values().all(|holder| holder.seen <= latest && holder.asked <= latest)
    }

    /// When it began.
    pub fn life(&self) -> Duration {
        self.born
    }

    /// The governor as it is now.
    pub fn governor(&self) -> &Governor {
        &self.governor
    }

    /// Workers that share the rate: those that asked a moment ago, or wait for answers. At least 1.
    pub fn sharers(&self) -> u32 {
        (self.holders.len() as u32).max(1)
    }

    /// A worker comes by at `now`.
    pub fn visit(&mut self, visit: &Visit, now: Duration) -> Slice {
        self.at = self.at.max(now);
        if let Some(ceiling) = visit.begun_with
            && self.begun_with != ceiling
        {
            self.begun_with = ceiling;
            self.set_ceiling(ceiling, now);
        }
        if let Some(ceiling) = visit.ceiling {
            self.set_ceiling(ceiling, now);
        }
        // What another life granted was never taken from this bucket.
        if visit.life == Some(self.born) {
            self.governor.give_back(visit.unused);
        }
        let rivals = self.note(visit, now);
        self.governor.set_outstanding(self.outstanding());
        if visit.others > 0 || visit.throttled > 0 {
            self.governor.answered(visit.others, visit.throttled, now);
        }
        let slice = self.slice(visit.want, rivals, now);
        // A slice is not outstanding before it is handed over.
        self.governor.set_outstanding(self.outstanding());
        slice
    }

    fn slice(&mut self, want: u32, rivals: u32, now: Duration) -> Slice {
        let from = self.born + LEASE;
        if now < from {
            return Slice { granted: 0, wait: from - now };
        }
        if want == 0 {
            return Slice { granted: 0, wait: Duration::ZERO };
        }
        // Twice the even share: who comes late in a round still finds something. But a bucket that is more than half full has
        // too few visitors, and would run over.
        let available = self.governor.available(now);
        let even = available.saturating_mul(2).div_ceil(rivals.max(1));
        let share = even.max(available.saturating_sub(self.governor.depth() / 2)).max(1);
        match self.governor.take(want.min(share), now) {
            Ok(granted) => Slice { granted, wait: Duration::ZERO },
            Err(wait) => Slice { granted: 0, wait },
        }
    }

    /// Writes down who came, forgets who is gone, and counts who asked a moment ago.
    fn note(&mut self, visit: &Visit, now: Duration) -> u32 {
        let asked = if visit.want > 0 { ms(now) } else { self.holders.get(&visit.holder).map_or(0, |holder| holder.asked) };
        self.holders.insert(visit.holder, Holder { outstanding: visit.outstanding, seen: ms(now), asked });
        let asks = |holder: &Holder| holder.asked + ms(RIVALS) >= ms(now);
        self.holders.retain(|_, holder| asks(holder) || holder.outstanding > 0 && holder.seen + ms(SILENT) >= ms(now));
        self.holders.values().filter(|holder| asks(holder)).count() as u32
    }

    fn outstanding(&self) -> f64 {
        self.holders.values().map(|holder| f64::from(holder.outstanding)).sum()
    }

    /// Every worker follows a live change and tells it here: only the first changes anything.
    fn set_ceiling(&mut self, ceiling: Option<u32>, now: Duration) {
        if self.governor.ceiling() != ceiling {
            self.governor.set_ceiling(ceiling, now);
        }
    }
}

#[cfg(test)]
#[path = "rate_shared_tests.rs"]
mod tests;
