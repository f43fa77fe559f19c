//! Whose turn it is to declare a window, at which account, and how large it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::id::BatchId;
use crate::model::ledger::Leg;
use crate::model::limits::WINDOW_RECIPIENTS_MAX;
use crate::model::turn::{Claim, Served, lanes_at_once, open_bound, window_size};
use crate::ports::clock::Clock;
use crate::ports::provider::{Route, Routes};
use crate::ports::rates::Rates;

/// How long a waiting lane sleeps before it looks again whether an account came up.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Turns of one worker.
pub struct Turns {
    routes: Routes,
    rates: Arc<dyn Rates>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// By provider type: what a tenant is sent through a fast one says nothing of its share of a slow one.
    served: BTreeMap<String, Served>,
    /// Lanes being served: what they compete as, and through which provider type.
    lanes: BTreeMap<u64, (Claim, String)>,
    /// Those of them that wait for a turn, and the only account that each can have it at, if there is such a one.
    waiting: BTreeMap<u64, Option<String>>,
    next_ticket: u64,
    open: BTreeMap<String, u32>,
}

/// A lane that is being served. Dropping it leaves the competition.
pub struct Seat {
    turns: Arc<Turns>,
    ticket: u64,
}

/// A turn: so many recipients may be declared for this account. Dropping it gives back what no window took.
pub struct Turn {
    /// The account.
    pub account: String,
    /// Recipients at most.
    pub size: u32,
    /// Whether it was taken to say of recipients that they have expired, whatever the account does.
    pub is_to_expire: bool,
    /// As what it was counted, at which provider type.
    counted: Option<(Claim, String)>,
    turns: Arc<Turns>,
}

impl Turn {
    /// A window took so many recipients of it, and says itself when it has closed.
    pub fn taken(mut self, recipients: u32) {
        self.size = self.size.saturating_sub(recipients);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.size > 0 {
            if let Some((claim, provider_type)) = &self.counted
                && let Some(served) = self.turns.state().served.get_mut(provider_type)
            {
                served.take_back(claim, self.size);
            }
            self.turns.closed(&self.account, self.size);
        }
    }
}

impl Turns {
    /// Turns over these accounts.
    pub fn new(routes: Routes, rates: Arc<dyn Rates>, clock: Arc<dyn Clock>) -> Arc<Turns> {
        Arc::new(Turns { routes, rates, clock, state: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a seat for a lane whose batch goes through `provider_type`.
    pub fn enter(self: &Arc<Self>, claim: Claim, provider_type: String) -> Seat {
        let mut state = self.state();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let here = state.lanes.values().filter(|(_, other)| *other == provider_type);
        let competing: Vec<Claim> = here.map(|(claim, _)| claim.clone()).chain([claim.clone()]).collect();
        let wanted: BTreeSet<String> = state.lanes.values().map(|(_, other)| other.clone()).collect();
        state.served.retain(|other, _| wanted.contains(other));
        state.served.entry(provider_type.clone()).or_default().join(&claim, &competing);
        state.lanes.insert(ticket, (claim, provider_type));
        drop(state);
        Seat { turns: self.clone(), ticket }
    }

    /// Recipients of a window are no longer open.
    pub fn closed(&self, account: &str, recipients: u32) {
        let mut state = self.state();
        if let Some(open) = state.open.get_mut(account) {
            *open = open.saturating_sub(recipients);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Recipients in open windows of an account.
    pub fn open(&self, account: &str) -> u32 {
        self.state().open.get(account).copied().unwrap_or(0)
    }

    /// Lanes of one batch that are worth serving at once: as many as leave each a window that pays for its bookkeeping.
    pub fn lanes_at_once(&self) -> usize {
        let rate = self.routes.keys().map(|name| self.rates.view(name).share()).fold(0.0, f64::max);
        lanes_at_once(rate)
    }

    /// Provider types that lanes being served go through, or wait for.
    pub fn wanted(&self) -> BTreeSet<String> {
        self.state().lanes.values().map(|(_, provider_type)| provider_type.clone()).collect()
    }

    /// Whose the batches are of which lanes are served.
    pub fn tenants(&self) -> BTreeMap<BatchId, String> {
        self.state().lanes.values().map(|(claim, _)| (claim.batch, claim.tenant.clone())).collect()
    }

    /// Whether an account of this provider type is up and may send now; `only` this one, if it is named.
    pub fn is_open(&self, provider_type: &str, only: Option<&str>) -> bool {
        let mut of_type = self.routes.iter().filter(|(_, route)| route.account.provider_type == provider_type);
        of_type
            .any(|(name, route)| only.is_none_or(|only| only == name) && route.provider.health().up && self.within_hours(route))
    }

    /// The account through which alone a leg of a batch of this provider type may go. `None` also when that account is not
    /// there any more: whoever declares it finds out that the rest of these messages cannot be sent.
    pub fn only<'a>(&self, provider_type: &str, leg: &'a Leg) -> Option<&'a str> {
        let name = leg.account.as_deref().filter(|_| !leg.foreign)?;
        self.routes.get(name).is_some_and(|route| route.account.provider_type == provider_type).then_some(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of `ticket`, if an account has room and it is its turn there.
    fn try_take(self: &Arc<Self>, ticket: u64, most: u32, only: Option<&str>) -> Option<Turn> {
        let mut state = self.state();
        let (claim, provider_type) = state.lanes.get(&ticket)?.clone();
        let sharing = state.lanes.values().filter(|(_, other)| *other == provider_type).count();
        let (account, size) = self.room(&state, &provider_type, sharing, most, only)?;
        // Everybody who waits looks at everybody who waits, at each change: it is for the worker to serve few at once. Whoever
        // can only go through another account keeps nobody from this one.
        let goes_here = |only: &Option<String>| only.as_ref().is_none_or(|only| *only == account);
        let here = state.waiting.iter().filter(|(_, only)| goes_here(only));
        let lane = |(rival, _): (&u64, _)| state.lanes.get(rival).map(|lane| (*rival, lane));
        let rivals: Vec<_> = here.filter_map(lane).filter(|(_, (_, other))| *other == provider_type).collect();
        let next = state.served.get(&provider_type)?.next(rivals.iter().map(|(_, (claim, _))| claim))?;
        if rivals.get(next).is_none_or(|(rival, _)| *rival != ticket) {
            return None;
        }
        *state.open.entry(account.clone()).or_default() += size;
        state.served.entry(provider_type.clone()).or_default().add(&claim, size);
        state.waiting.remove(&ticket);
        drop(state);
        self.changed.notify_waiters();
        Some(Turn { account, size, is_to_expire: false, counted: Some((claim, provider_type)), turns: self.clone() })
    }

    /// A turn at once for recipients who have expired. Nothing is handed over, so no account need be up for it; the window is
    /// declared for one all the same, if there is any: of the batch's provider type, or of another.
    pub fn to_expire(self: &Arc<Self>, provider_type: &str, most: u32) -> Option<Turn> {
        let of_type = self.routes.iter().find(|(_, route)| route.account.provider_type == provider_type);
        let account = of_type.or_else(|| self.routes.iter().next()).map(|(name, _)| name.clone())?;
        let size = most.clamp(1, WINDOW_RECIPIENTS_MAX);
        *self.state().open.entry(account.clone()).or_default() += size;
        Some(Turn { account, size, is_to_expire: true, counted: None, turns: self.clone() })
    }

    /// The account with the most room, of those that are up and may send now, and the size of a window of up to `most` there.
    /// Room for less than the whole window is waited with: a window of the few that fit would leave room for a few again when
    /// it closes, and each costs its two conditional writes.
    fn room(&self, state: &State, provider_type: &str, sharing: usize, most: u32, only: Option<&str>) -> Option<(String, u32)> {
        let mut best: Option<(u32, String, u32)> = None;
        for (name, route) in self.routes.iter().filter(|(_, route)| route.account.provider_type == provider_type) {
            if only.is_some_and(|only| only != name) || !route.provider.health().up || !self.within_hours(route) {
                continue;
            }
            let view = self.rates.view(name);
            let rate = view.share().max(1.0);
            let window = window_size(rate, sharing);
            let open = state.open.get(name).copied().unwrap_or(0);
            let room = open_bound(rate, view.answer_time, window).saturating_sub(open);
            let size = window.min(most).max(1);
            if room >= size && best.as_ref().is_none_or(|(best, ..)| room > *best) {
                best = Some((room, name.clone(), size));
            }
        }
        best.map(|(_, name, size)| (name, size))
    }

    fn within_hours(&self, route: &Route) -> bool {
        route
            .account
            .hours
            .as_ref()
            .is_none_or(|hours| self.clock.minute_of_day(&hours.zone, self.clock.now()).is_some_and(|minute| hours.allow(minute)))
    }
}

impl Seat {
    /// Waits for this lane's turn to declare up to `most` recipients, at `only` this account if it is named. Cancel safe.
    pub async fn turn(&self, most: u32, only: Option<&str>) -> Turn {
        let waiting = Waiting::begin(&self.turns, self.ticket, only);
        loop {
            let changed = self.turns.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(turn) = self.turns.try_take(self.ticket, most, only) {
                drop(waiting);
                return turn;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.lanes.remove(&self.ticket);
        state.waiting.remove(&self.ticket);
        drop(state);
        self.turns.changed.notify_waiters();
    }
}

/// A place among the waiting, given up when the wait is.
struct Waiting<'a>(&'a Turns, u64);

impl<'a> Waiting<'a> {
    fn begin(turns: &'a Turns, ticket: u64, only: Option<&str>) -> Waiting<'a> {
        turns.state().waiting.insert(ticket, only.map(str::to_owned));
        Waiting(turns, ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.state().waiting.remove(&self.1).is_some() {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::fake_ports::{Desk, Pace};
    use super::*;
    use crate::adapters::memory::clock::SimClock;
    use crate::model::account::Account;
    use crate::model::time::Timestamp;

    /// Turns over an account of each of two provider types, both at 500 a second.
    fn turns() -> Arc<Turns> {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(Timestamp(1_800_000_000_000)));
        let route = |name: &str| {
            let account = Account { provider_type: name.into(), ..crate::roles::config::AccountConfig::default().account(name) };
            let provider = Arc::new(Desk {
                name: name.into(),
                long: account.capabilities.long_message,
                clock: clock.clone(),
                up: AtomicBool::new(true),
                manner: Mutex::new(Box::new(|_| unreachable!("nothing is sent"))),
                got: Arc::default(),
            });
            (name.to_owned(), Route { account, provider })
        };
        Turns::new(Arc::new(["fast", "slow"].map(route).into()), Arc::new(Pace::default()), clock)
    }

    fn claim(tenant: &str, batch: u128) -> Claim {
        Claim { tenant: tenant.into(), priority: 5, batch: BatchId(batch) }
    }

    /// Both wait all the time for the one place that there is; returns how often each had it.
    async fn take_turns(turns: &Arc<Turns>, one: &Seat, other: &Seat, times: usize) -> [usize; 2] {
        let mut had = [0; 2];
        for _ in 0..times {
            turns.state().open.insert("slow".into(), 1_000);
            let makes_room = async {
                turns.closed("slow", 950);
                std::future::pending::<()>().await;
            };
            let (which, turn) = tokio::select! {
                biased;
                turn = one.turn(1_000, None) => (0, turn),
                turn = other.turn(1_000, None) => (1, turn),
                () = makes_room => continue,
            };
            had[which] += 1;
            let size = turn.size;
            turn.taken(size);
            turns.closed("slow", size);
        }
        had
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_tenant_is_sent_through_one_provider_type_costs_it_no_turn_at_another() {
        let turns = turns();
        let fast = turns.enter(claim("a", 1), "fast".into());
        let one = turns.enter(claim("a", 2), "slow".into());
        let other = turns.enter(claim("b", 3), "slow".into());
        for _ in 0..1_000 {
            let turn = fast.turn(1_000, None).await;
            let size = turn.size;
            turn.taken(size);
            turns.closed("fast", size);
        }
        assert_eq!(take_turns(&turns, &one, &other, 20).await, [10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_no_window_took_is_not_counted() {
        let turns = turns();
        let one = turns.enter(claim("a", 2), "slow".into());
        let other = turns.enter(claim("b", 3), "slow".into());
        for _ in 0..10 {
            drop(one.turn(1_000, None).await);
        }
        assert_eq!(take_turns(&turns, &one, &other, 20).await, [10, 10]);
    }
}
