//! The store's write budget over a fleet: the leader publishes it, and the writers that are alive share it evenly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::Redis;
use super::scripts::{BUDGET_GATHER, BUDGET_PUBLISH, BUDGET_REPORT};
use crate::adapters::memory::budget::BudgetedPacks;
use crate::adapters::rows::frame;
use crate::model::throughput::{Load, WriteBudget};
use crate::ports::budget::Budget;
use crate::ports::{StoreError, World};
use crate::runtime::task::Tasks;

/// How often a writer reports.
const REPORT: Duration = Duration::from_millis(500);
/// How long a writer counts as alive after a report.
const ALIVE: Duration = Duration::from_secs(3);
/// How often a leader looks.
const GATHER: Duration = Duration::from_millis(250);
/// Whoever did not ask for the load within this time does not lead, and leaves it to who does.
const LEADS: Duration = Duration::from_secs(2);
/// How long a budget is kept that nobody renews. It is a measurement of the store, and gets old.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The write budget of a fleet.
#[derive(Clone)]
pub struct RedisBudget {
    redis: Redis,
    world: World,
    tasks: Tasks,
}

impl RedisBudget {
    /// The budget of this server's fleet; its tasks are those of `tasks`.
    pub fn new(redis: Redis, world: World, tasks: &Tasks) -> RedisBudget {
        RedisBudget { redis, world, tasks: tasks.clone() }
    }

    /// Keeps `packs` within this process's share, and reports what it meets. While Redis is away the last share holds.
    pub fn writer(&self, packs: Arc<BudgetedPacks>) {
        self.tasks.spawn("budget", write(self.clone(), packs));
    }

    /// The budget as the leader uses it. Every coordinator may have one: only who asks for the load takes it.
    pub fn leader(&self) -> Arc<dyn Budget> {
        let state = State { looked: Instant::now(), ..State::default() };
        let leader = Arc::new(Leader { state: Mutex::new(state), wake: Notify::new() });
        self.tasks.spawn("budget", lead(self.clone(), leader.clone()));
        leader
    }

    /// All keys of a script on one node of a Cluster.
    fn key(&self, name: &str) -> String {
        self.redis.key(&format!("{{budget}}:{name}"))
    }
}

async fn write(budget: RedisBudget, packs: Arc<BudgetedPacks>) {
    let writer = format!("{:016x}", budget.world.chance.next());
    let keys = [budget.key("load"), budget.key("writers"), budget.key("published")];
    let mut load = Load::default();
    loop {
        tokio::time::sleep(REPORT).await;
        load.add(packs.load());
        let (slowest, alive) = (load.slowest.as_micros().to_string(), ALIVE.as_millis().to_string());
        let args = [writer.clone(), load.packs.to_string(), load.overloads.to_string(), slowest, alive];
        match budget.redis.run::<(String, u64)>(&BUDGET_REPORT, &keys, &args).await {
            Ok((published, writers)) => {
                load = Load::default();
                packs.publish(read(&published).share(writers));
            }
            // It may be told twice; not at all would hide an overload.
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_) | StoreError::Full(_)) => {}
            Err(StoreError::Corrupt(text)) => tracing::warn!("the write budget cannot be shared: {text}"),
        }
    }
}

/// A budget as it is stored; without one, with one of another version, or with a damaged one, the one that everything begins
/// with: it is a measurement, and is made again.
pub fn read(published: &str) -> WriteBudget {
    serde_json::from_str(published).ok().filter(|budget: &WriteBudget| budget.is_usable()).unwrap_or_default()
}

struct Leader {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    load: Load,
    /// When the load was last asked for.
    looked: Instant,
    asks: bool,
    current: WriteBudget,
    publish: Option<WriteBudget>,
}

impl Default for State {
    fn default() -> State {
        let current = WriteBudget::default();
        State { load: Load::default(), looked: Instant::now(), asks: false, current, publish: None }
    }
}

impl Leader {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn lead(budget: RedisBudget, leader: Arc<Leader>) {
    let keys = [budget.key("load"), budget.key("published")];
    let mut leads = false;
    loop {
        let publish = leader.state().publish.take();
        if let Some(publish) = publish {
            let text = serde_json::to_string(&publish).unwrap_or_default();
            let args = [frame::text(text), KEPT.as_millis().to_string()];
            if budget.redis.run::<i64>(&BUDGET_PUBLISH, &keys[1..], &args).await.is_err() {
                // A newer one may have come in the meantime, and is the one to publish then.
                leader.state().publish.get_or_insert(publish);
            }
        }
        let led = leads;
        leads = {
            let state = leader.state();
            state.asks && state.looked.elapsed() < LEADS
        };
        let take = if leads { "1" } else { "0" };
        let gathered = budget.redis.run::<(u64, u64, u64, String)>(&BUDGET_GATHER, &keys, &[take.to_owned()]).await;
        if let Ok((packs, overloads, slowest, published)) = gathered {
            let mut state = leader.state();
            // What was met before this process led is of another time.
            if leads && led {
                state.load.add(Load { packs, overloads, slowest: Duration::from_micros(slowest), over: Duration::ZERO });
            }
            if state.publish.is_none() {
                state.current = read(&published);
            }
        }
        let _ = tokio::time::timeout(GATHER, leader.wake.notified()).await;
    }
}

impl Budget for Leader {
    fn load(&self) -> Load {
        let mut state = self.state();
        let over = state.looked.elapsed();
        (state.looked, state.asks) = (Instant::now(), true);
        Load { over, ..std::mem::take(&mut state.load) }
    }

    fn publish(&self, budget: WriteBudget) {
        let mut state = self.state();
        state.current = budget;
        state.publish = Some(budget);
        self.wake.notify_one();
    }

    fn current(&self) -> WriteBudget {
        self.state().current
    }
}
