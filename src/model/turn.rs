//! Whose turn it is: fairness between tenants, priorities and batches, and how much one window takes.
//!
//! Fair queueing by service received: among those that wait, the tenant that got least goes first; within a tenant the
//! highest priority; within a priority the batch that got least. Who comes back after idling starts level with the others,
//! so nobody saves up. (This does what deficit round robin does, with no rounds to tune: a batch of a hundred is served at
//! once beside ten million.)

use std::collections::BTreeMap;
use std::time::Duration;

use super::id::BatchId;
use super::limits::{LANE_WINDOWS_MAX, OPEN_RECIPIENTS_MAX, WINDOW_RECIPIENTS_MAX, WINDOW_SPAN};

/// What a waiting lane competes as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose batch it is.
    pub tenant: String,
    /// Larger goes first within the tenant.
    pub priority: u8,
    /// The batch.
    pub batch: BatchId,
}

/// How much each tenant and batch was served.
#[derive(Clone, Debug, Default)]
pub struct Served {
    tenants: BTreeMap<String, u64>,
    batches: BTreeMap<BatchId, u64>,
}

impl Served {
    /// Which of the waiting goes next, as an index; `None` when none waits. The first of equals wins.
    pub fn next<'a>(&self, waiting: impl Iterator<Item = &'a Claim>) -> Option<usize> {
        let key = |claim: &'a Claim| {
            let tenant = self.tenants.get(&claim.tenant).copied().unwrap_or(0);
            let batch = self.batches.get(&claim.batch).copied().unwrap_or(0);
            (tenant, claim.tenant.as_str(), std::cmp::Reverse(claim.priority), batch)
        };
        waiting.enumerate().map(|(index, claim)| (key(claim), index)).min().map(|(_, index)| index)
    }

    /// Counts that a claim was served.
    pub fn add(&mut self, claim: &Claim, recipients: u32) {
        *self.tenants.entry(claim.tenant.clone()).or_default() += u64::from(recipients);
        *self.batches.entry(claim.batch).or_default() += u64::from(recipients);
    }

    /// Takes back what was counted for a claim that was not served after all.
    pub fn take_back(&mut self, claim: &Claim, recipients: u32) {
        // Who left meanwhile, and came back, is counted afresh.
        if let Some(served) = self.tenants.get_mut(&claim.tenant) {
            *served = served.saturating_sub(u64::from(recipients));
        }
        if let Some(served) = self.batches.get_mut(&claim.batch) {
            *served = served.saturating_sub(u64::from(recipients));
        }
    }

    /// Lets a batch join the competition level with the least served of those that compete now, and forgets the counts of
    /// everybody else.
    pub fn join(&mut self, claim: &Claim, competing: &[Claim]) {
        let keep_tenant = |tenant: &String| competing.iter().any(|other| other.tenant == *tenant);
        let keep_batch = |batch: &BatchId| competing.iter().any(|other| other.batch == *batch);
        self.tenants.retain(|tenant, _| keep_tenant(tenant));
        self.batches.retain(|batch, _| keep_batch(batch));
        let level = self.tenants.values().min().copied().unwrap_or(0);
        self.tenants.entry(claim.tenant.clone()).or_insert(level);
        let level = self.batches.values().min().copied().unwrap_or(0);
        self.batches.entry(claim.batch).or_insert(level);
    }
}

/// Recipients of the next window: about 200 ms of the lane's share of the route's rate.
pub fn window_size(rate: f64, lanes_sharing: usize) -> u32 {
    let share = rate * WINDOW_SPAN.as_secs_f64() / lanes_sharing.max(1) as f64;
    (share.ceil() as u32).clamp(1, WINDOW_RECIPIENTS_MAX)
}

/// Recipients of a window that is worth its two conditional writes.
const WINDOW_WORTH: f64 = 256.0;
/// Lanes of one batch that a worker serves at once: never one alone, since a lane that waits for its last answers declares
/// nothing, and never so many that the worker's rate, spread over them, makes windows of a few.
const LANES_LEAST: usize = 2;
const LANES_MOST: usize = 8;

/// See [`LANES_MOST`]; `rate` is this worker's.
pub fn lanes_at_once(rate: f64) -> usize {
    ((rate * WINDOW_SPAN.as_secs_f64() / WINDOW_WORTH) as usize).clamp(LANES_LEAST, LANES_MOST)
}

/// Recipients of one batch that a worker with this rate has in open windows at most: of the lanes that it serves at once, each
/// with as many windows as a lane may have, each as large as if no other lane shared the rate.
pub fn open_most(rate: f64) -> u64 {
    lanes_at_once(rate) as u64 * LANE_WINDOWS_MAX as u64 * u64::from(window_size(rate, 1))
}

/// What a declare and the close of its window take, about: the time that a window is open without being answered.
const BOOKKEEPING: Duration = Duration::from_millis(50);

/// Recipients that may be in open windows of an account at once: twice its rate times the time an answer takes, so that a
/// crash makes few people uncertain and the pipe never runs dry; never less than two windows. The time is that of the
/// account alone: what waits in our own windows must not make room for more of them.
pub fn open_bound(rate: f64, answer_time: Duration, window: u32) -> u32 {
    let twice = 2.0 * rate * (answer_time + BOOKKEEPING).as_secs_f64();
    (twice.min(f64::from(OPEN_RECIPIENTS_MAX)) as u32).max(window * 2).min(OPEN_RECIPIENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(tenant: &str, priority: u8, batch: u128) -> Claim {
        Claim { tenant: tenant.into(), priority, batch: BatchId(batch) }
    }

    /// Serves `rounds` windows of 100 among claims that all wait for ever.
    fn serve(claims: &[Claim], rounds: usize) -> Vec<usize> {
        let mut served = Served::default();
        for claim in claims {
            served.join(claim, claims);
        }
        let mut counts = vec![0; claims.len()];
        for _ in 0..rounds {
            let next = served.next(claims.iter()).expect("somebody waits");
            served.add(&claims[next], 100);
            counts[next] += 1;
        }
        counts
    }

    #[test]
    fn tenants_share_alike_whatever_their_number_of_batches() {
        assert_eq!(serve(&[claim("a", 5, 1), claim("a", 5, 2), claim("a", 5, 3), claim("b", 5, 4)], 60), [10, 10, 10, 30]);
    }

    #[test]
    fn a_higher_priority_goes_first_within_a_tenant() {
        assert_eq!(serve(&[claim("a", 1, 1), claim("a", 9, 2)], 10), [0, 10]);
    }

    #[test]
    fn who_comes_late_starts_level() {
        let (old, new) = (claim("a", 5, 1), claim("b", 5, 2));
        let mut served = Served::default();
        served.join(&old, std::slice::from_ref(&old));
        served.add(&old, 1_000_000);
        let both = [old.clone(), new.clone()];
        served.join(&new, &both);
        let mut counts = [0, 0];
        for _ in 0..10 {
            let next = served.next(both.iter()).expect("both wait");
            served.add(&both[next], 100);
            counts[next] += 1;
        }
        assert_eq!(counts, [5, 5]);
    }

    #[test]
    fn windows_are_sized_by_the_rate() {
        assert_eq!(window_size(0.5, 4), 1);
        assert_eq!(window_size(1_000.0, 4), 50);
        assert_eq!(window_size(1e9, 1), WINDOW_RECIPIENTS_MAX);
        assert_eq!([0.0, 100.0, 2_500.0, 5_000.0, 1e6].map(lanes_at_once), [2, 2, 2, 3, 8]);
        assert_eq!(open_bound(1_000.0, Duration::from_millis(150), 50), 400);
        assert_eq!(open_bound(1_000.0, Duration::from_millis(1), 200), 400);
        assert_eq!(open_bound(1.0, Duration::from_millis(1), 1), 2);
        assert_eq!((open_most(2_000.0), open_most(20.0)), (2 * 4 * 400, 2 * 4 * 4));
    }
}
