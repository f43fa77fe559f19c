//! The accounts' rates, exact over the fleet: the governor of an account is one state in Redis that every worker changes by
//! turns, and what a worker was granted is credit for a moment.
//!
//! A visit reads the state with the server's clock, lets the model work on it, and stores it if nobody was faster; whoever was
//! slower goes on from the newer state. So the arithmetic stays in the model, and no worker's clock matters. A worker without
//! Redis hands nothing out. When a replica takes over, what the old primary granted in its last moments may be granted again:
//! never more than the bucket holds, which is 40 ms of the rate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::Redis;
use super::credit::Credit;
use super::scripts::{RATE_LOAD, RATE_STORE};
use crate::adapters::rows::frame;
use crate::model::rate_shared::{SharedRate, Visit};
use crate::ports::rates::{Grant, RateView, Rates};
use crate::ports::{StoreError, World};
use crate::runtime::task::Tasks;

/// A worker visits an account at most this often, a little less often while many do.
const PACE: Duration = Duration::from_millis(10);
const PACE_MOST: u32 = 4;
/// How often a worker looks whether it has anything to tell.
const TICK: Duration = Duration::from_millis(100);
/// How old its view may get while it has not.
const VIEW: Duration = Duration::from_secs(1);
/// Others that may be faster in one visit before it is put off.
const TRIES: u32 = 16;
/// How long a state is kept that nobody visits: what was learned of an account outlives a quiet week.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// Rates shared by a fleet over Redis.
pub struct RedisRates(Arc<Shared>);

struct Shared {
    redis: Redis,
    world: World,
    tasks: Tasks,
    accounts: Mutex<BTreeMap<String, Arc<Account>>>,
}

struct Account {
    key: String,
    credit: Mutex<Credit>,
    wake: Notify,
}

/// The state as it is stored.
struct Stored {
    sequence: String,
    state: String,
    now: Duration,
}

impl RedisRates {
    /// Rates of these accounts, each with its ceiling: the live one if there is one in the store, else the configured one.
    ///
    /// A worker tells the fleet the ceiling it begins with, and the fleet takes it over if it is another than the last one
    /// that was begun with: so a changed configuration counts, and a restart does not undo a live change. Live changes are
    /// each worker's to follow: it calls [`Rates::set_ceiling`] when, and only when, the stored ceiling changed.
    pub fn new(
        redis: Redis,
        world: World,
        accounts: impl IntoIterator<Item = (String, Option<u32>)>,
        tasks: &Tasks,
    ) -> Arc<RedisRates> {
        let shared = Arc::new(Shared { redis, world, tasks: tasks.clone(), accounts: Mutex::default() });
        let mut all = shared.all();
        for (name, ceiling) in accounts {
            let account = shared.begin(&name, ceiling);
            all.insert(name, account);
        }
        drop(all);
        Arc::new(RedisRates(shared))
    }

    fn account(&self, name: &str) -> Arc<Account> {
        let mut all = self.0.all();
        if let Some(account) = all.get(name) {
            return account.clone();
        }
        let account = self.0.begin(name, None);
        all.insert(name.to_owned(), account.clone());
        account
    }
}

impl Shared {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Shared>, name: &str, ceiling: Option<u32>) -> Arc<Account> {
        let credit = Mutex::new(Credit::new(self.world.chance.next(), ceiling));
        let account = Arc::new(Account { key: self.redis.key(&format!("rate:{name}")), credit, wake: Notify::new() });
        self.tasks.spawn("rates", follow(self.clone(), account.clone()));
        account
    }

    /// Visits the shared state. Returns how many were faster.
    async fn visit(&self, account: &Account, visit: Visit) -> u32 {
        let mut stored = match self.load(account).await {
            Ok(stored) => stored,
            Err(_) => {
                account.credit().failed();
                return 0;
            }
        };
        for faster in 0..TRIES {
            let mut shared = stored.read().unwrap_or_else(|| account.credit().begin(stored.now));
            let slice = shared.visit(&visit, stored.now);
            let began = self.world.clock.boot();
            match self.store(account, &stored.sequence, &shared).await {
                Ok(None) => {
                    account.credit().visited(&visit, slice, &shared, began, self.world.clock.boot());
                    return faster;
                }
                Ok(Some(newer)) => stored = newer,
                Err(StoreError::Unknown(_)) => {
                    account.credit().lost(&visit);
                    return faster;
                }
                Err(_) => {
                    account.credit().failed();
                    return faster;
                }
            }
            if faster > 0 {
                // Those who lost together do not come together again.
                let most = 500 * u64::from(faster.min(8));
                tokio::time::sleep(Duration::from_micros(self.world.chance.next() % most)).await;
            }
        }
        account.credit().failed();
        TRIES
    }

    /// Looks at the shared state without changing it.
    async fn look(&self, account: &Account) {
        if let Ok(stored) = self.load(account).await
            && let Some(shared) = stored.read()
        {
            account.credit().looked(&shared, self.world.clock.boot());
        }
    }

    async fn load(&self, account: &Account) -> Result<Stored, StoreError> {
        let (sequence, state, seconds, micros) = self.redis.run(&RATE_LOAD, std::slice::from_ref(&account.key), &[]).await?;
        Ok(Stored { sequence, state, now: time(seconds, micros) })
    }

    /// Stores a state that was read under `sequence`; gives back the newer one when somebody was faster.
    async fn store(&self, account: &Account, sequence: &str, shared: &SharedRate) -> Result<Option<Stored>, StoreError> {
        let state = serde_json::to_string(shared).map_err(|error| StoreError::Corrupt(format!("an account's rate: {error}")))?;
        let args = [sequence.to_owned(), frame::text(state), KEPT.as_millis().to_string()];
        let answer = self.redis.run(&RATE_STORE, std::slice::from_ref(&account.key), &args).await?;
        let (is_stored, sequence, state, seconds, micros): (u8, String, String, u64, u64) = answer;
        Ok((is_stored == 0).then(|| Stored { sequence, state, now: time(seconds, micros) }))
    }
}

impl Stored {
    fn read(&self) -> Option<SharedRate> {
        read(&self.state, self.now)
    }
}

/// The state as it is stored, at the server's `now`; `None` when there is none, or none that can be gone on with: a new one is
/// begun then, as after any loss.
pub fn read(state: &str, now: Duration) -> Option<SharedRate> {
    serde_json::from_str::<SharedRate>(state).ok().filter(|shared| shared.is_usable(now))
}

fn time(seconds: u64, micros: u64) -> Duration {
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

impl Account {
    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Visits the account's state while anybody waits for more, and now and then to tell what there is to tell.
async fn follow(shared: Arc<Shared>, account: Arc<Account>) {
    loop {
        let began = Instant::now();
        let now = shared.world.clock.boot();
        let visit = account.credit().visit(now);
        let faster = match visit {
            Some(visit) => shared.visit(&account, visit).await,
            None => {
                if !account.credit().is_fresh(now, VIEW) {
                    shared.look(&account).await;
                }
                0
            }
        };
        // Each at its own pace, so that nobody always comes first; more slowly while there is a crowd.
        let jitter = Duration::from_micros(shared.world.chance.next() % 4_000);
        tokio::time::sleep_until(began + PACE * (1 + faster).min(PACE_MOST) + jitter).await;
        let _ = tokio::time::timeout_at(began + TICK, account.wake.notified()).await;
    }
}

impl Rates for RedisRates {
    fn take(&self, account: &str, want: u32, now: Duration) -> Grant {
        let account = self.account(account);
        let mut credit = account.credit();
        let grant = credit.take(want, now);
        if credit.is_wanted() {
            account.wake.notify_one();
        }
        grant
    }

    fn give_back(&self, account: &str, segments: u32) {
        self.account(account).credit().give_back(segments);
    }

    fn answered(&self, account: &str, others: u32, throttled: u32, _now: Duration) {
        let account = self.account(account);
        account.credit().answered(others, throttled);
        if throttled > 0 {
            account.wake.notify_one();
        }
    }

    fn set_ceiling(&self, account: &str, ceiling: Option<u32>, _now: Duration) {
        let account = self.account(account);
        account.credit().set_ceiling(ceiling);
        account.wake.notify_one();
    }

    fn view(&self, account: &str) -> RateView {
        let now = self.0.world.clock.boot();
        self.0.all().get(account).map(|account| account.credit().view(now)).unwrap_or(RateView {
            rate: 0.0,
            answer_time: Duration::ZERO,
            ceiling: None,
            throttled: 0,
            sharers: 1,
        })
    }
}
