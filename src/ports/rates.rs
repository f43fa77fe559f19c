//! The governor of each account's rate.

use std::time::Duration;

/// What may be handed over now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// This many segments, at once.
    Take(u32),
    /// None yet; ask again after this long.
    Wait(Duration),
}

/// An account's rate as people see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateView {
    /// Segments a second that the governor allows now.
    pub rate: f64,
    /// How long an answer takes, smoothed.
    pub answer_time: Duration,
    /// The ceiling, when one is set.
    pub ceiling: Option<u32>,
    /// "Slow down" answers so far.
    pub throttled: u64,
    /// Workers that share the rate now, this one included: at least 1.
    pub sharers: u32,
}

impl RateView {
    /// This worker's part of the rate.
    pub fn share(&self) -> f64 {
        self.rate / f64::from(self.sharers.max(1))
    }
}

/// Hands out an account's budget in segments, exact over the fleet, and follows what its answers say.
pub trait Rates: Send + Sync {
    /// Asks for up to `want` segments at `now` (the boot clock). A grant is used within 100 ms or given back.
    fn take(&self, account: &str, want: u32, now: Duration) -> Grant;

    /// Gives back what was not used.
    fn give_back(&self, account: &str, segments: u32);

    /// Tells what answers said: segments answered with "slow down", and all others. Every granted segment is either given
    /// back or told here.
    fn answered(&self, account: &str, others: u32, throttled: u32, now: Duration);

    /// Sets the ceiling, live; `None` is learned.
    fn set_ceiling(&self, account: &str, ceiling: Option<u32>, now: Duration);

    /// The rate now.
    fn view(&self, account: &str) -> RateView;
}
