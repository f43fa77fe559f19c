//! The governors of one process: exact, because nobody else sends for its accounts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::rate::Governor;
use crate::ports::rates::{Grant, RateView, Rates};

/// Governors by account. An account without an entry begins with an unknown limit.
#[derive(Default)]
pub struct LocalRates(Mutex<BTreeMap<String, Governor>>);

impl LocalRates {
    /// Governors for accounts with the limits their configuration names.
    pub fn new(accounts: impl IntoIterator<Item = (String, Option<u32>)>, now: Duration) -> LocalRates {
        LocalRates(Mutex::new(accounts.into_iter().map(|(name, limit)| (name, Governor::new(limit, now))).collect()))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Governor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, account: &str, now: Duration, act: impl FnOnce(&mut Governor) -> T) -> T {
        let mut all = self.all();
        if !all.contains_key(account) {
            all.insert(account.to_owned(), Governor::new(None, now));
        }
        act(all.get_mut(account).expect("it was just put in"))
    }
}

impl Rates for LocalRates {
    fn take(&self, account: &str, want: u32, now: Duration) -> Grant {
        match self.with(account, now, |governor| governor.take(want, now)) {
            Ok(granted) => Grant::Take(granted),
            Err(wait) => Grant::Wait(wait),
        }
    }

    fn give_back(&self, account: &str, segments: u32) {
        if let Some(governor) = self.all().get_mut(account) {
            governor.give_back(segments);
        }
    }

    fn answered(&self, account: &str, others: u32, throttled: u32, now: Duration) {
        self.with(account, now, |governor| governor.answered(others, throttled, now));
    }

    fn set_ceiling(&self, account: &str, ceiling: Option<u32>, now: Duration) {
        self.with(account, now, |governor| governor.set_ceiling(ceiling, now));
    }

    fn view(&self, account: &str) -> RateView {
        match self.all().get(account) {
            Some(governor) => RateView {
                rate: governor.rate(),
                answer_time: governor.answer_time(),
                ceiling: governor.ceiling(),
                throttled: governor.throttled(),
                sharers: 1,
            },
            None => RateView { rate: 0.0, answer_time: Duration::ZERO, ceiling: None, throttled: 0, sharers: 1 },
        }
    }
}
