//! Live counts over Redis: told five times a second, read once a second for batches that somebody watches.
//!
//! The keys carry the original system's names. What is lost here is seen for a moment and never missed: the truth is counted
//! in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::Redis;
use super::scripts::{TALLY_ADD, TALLY_CLEAR, TALLY_READ, TALLY_SET};
use crate::model::id::BatchId;
use crate::ports::StoreError;
use crate::ports::tallies::{TALLIES, Tallies, Tally};
use crate::runtime::task::Tasks;

/// How often changes are told.
const FLUSH: Duration = Duration::from_millis(200);
/// How often what is watched is read.
const REFRESH: Duration = Duration::from_secs(1);
/// A batch that nobody read for this long is not watched any more.
const WATCHED: Duration = Duration::from_secs(30);
/// How long counts are kept after their last change.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// What the leader says of running steps is told again after this long, and kept for a minute: a fleet without a leader runs
/// nothing that anybody could know of.
const RUNNING_AGAIN: Duration = Duration::from_secs(5);
const RUNNING_KEPT: Duration = Duration::from_secs(60);
/// Batches whose changes wait for Redis at most; changes of more are dropped.
const WAITING_MAX: usize = 10_000;
/// The names of the running steps' counts.
const RUNNING: [&str; 2] = ["running_prepare_step", "running_delivery_step"];

/// The name of a count.
fn field(tally: Tally) -> &'static str {
    match tally {
        Tally::Prepared => "prepare_batch_num",
        Tally::Accepted => "delivery_batch_num",
        Tally::Failed => "failed_batch_num",
        Tally::FinalReceipts => "final_receipt_num",
        Tally::DeliveredReceipts => "delivered_receipt_num",
    }
}

fn place(tally: Tally) -> usize {
    TALLIES.iter().position(|other| *other == tally).unwrap_or_default()
}

type Counts = [u64; TALLIES.len()];

/// Counters by batch, shared by a fleet.
pub struct RedisTallies(Arc<Shared>);

struct Shared {
    redis: Redis,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Changes that are not told yet.
    deltas: BTreeMap<BatchId, Counts>,
    cleared: BTreeSet<BatchId>,
    /// What Redis last said, and when somebody last asked.
    watched: BTreeMap<BatchId, (Counts, Option<Instant>)>,
    running: (u64, u64),
    /// What this process, leading, has to say of running steps.
    to_say: Option<(u64, u64)>,
    said: Option<((u64, u64), Instant)>,
}

impl RedisTallies {
    /// Counters of this server; a task of `tasks` tells and reads.
    pub fn new(redis: Redis, tasks: &Tasks) -> Arc<RedisTallies> {
        let shared = Arc::new(Shared { redis, state: Mutex::default(), wake: Notify::new() });
        tasks.spawn("tallies", sync(shared.clone()));
        Arc::new(RedisTallies(shared))
    }
}

async fn sync(shared: Arc<Shared>) {
    let mut refreshed: Option<Instant> = None;
    loop {
        shared.clear().await;
        shared.tell().await;
        shared.say_running().await;
        if refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
            refreshed = Some(Instant::now());
            shared.refresh(false).await;
            shared.read_running().await;
        }
        tokio::select! {
            biased;
            () = shared.wake.notified() => shared.refresh(true).await,
            () = tokio::time::sleep(FLUSH) => {}
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, batch: BatchId) -> String {
        self.redis.key(&format!("statistics:{batch}"))
    }

    fn running_key(&self) -> String {
        self.redis.key("statistics:running")
    }

    async fn clear(&self) {
        let cleared = std::mem::take(&mut self.state().cleared);
        for batch in cleared {
            if self.redis.run::<i64>(&TALLY_CLEAR, &[self.key(batch)], &[]).await.is_err() {
                self.state().cleared.insert(batch);
                return;
            }
        }
    }

    /// Tells the changes batch by batch. They stay here until they are told, so that a reader sees no step back.
    async fn tell(&self) {
        let deltas = self.state().deltas.clone();
        for (batch, counts) in deltas {
            let changes: Vec<(usize, u64)> = counts.into_iter().enumerate().filter(|(_, n)| *n > 0).collect();
            let mut args = vec![KEPT.as_millis().to_string()];
            for (at, n) in &changes {
                args.extend([field(TALLIES[*at]).to_owned(), n.to_string()]);
            }
            let told = self.redis.run::<Vec<u64>>(&TALLY_ADD, &[self.key(batch)], &args).await;
            let mut state = self.state();
            match told {
                Ok(now) => {
                    state.told(batch, &counts);
                    if let Some((seen, _)) = state.watched.get_mut(&batch) {
                        for ((at, _), n) in changes.iter().zip(now) {
                            seen[*at] = n;
                        }
                    }
                }
                // Better a few too little than the same few again and again.
                Err(StoreError::Unknown(_) | StoreError::Corrupt(_)) => state.told(batch, &counts),
                Err(StoreError::Unavailable(_) | StoreError::Full(_)) => return,
            }
        }
    }

    async fn say_running(&self) {
        let Some((prepare, delivery)) = self.state().to_say.take() else { return };
        let mut args = vec![RUNNING_KEPT.as_millis().to_string()];
        for (name, steps) in RUNNING.iter().zip([prepare, delivery]) {
            args.extend([(*name).to_owned(), steps.to_string()]);
        }
        // The leader says it again in a moment.
        if self.redis.run::<i64>(&TALLY_SET, &[self.running_key()], &args).await.is_err() {
            self.state().said = None;
        }
    }

    async fn read_running(&self) {
        let names = RUNNING.map(str::to_owned);
        if let Ok((prepare, delivery)) = self.redis.run(&TALLY_READ, &[self.running_key()], &names).await {
            self.state().running = (prepare, delivery);
        }
    }

    /// Reads what is watched; only what was never read before when `new_only`.
    async fn refresh(&self, new_only: bool) {
        let watched: Vec<BatchId> = {
            let mut state = self.state();
            state.watched.retain(|_, (_, asked)| asked.is_none_or(|asked| asked.elapsed() < WATCHED));
            let is_due = |asked: &Option<Instant>| !new_only || asked.is_none();
            state.watched.iter().filter(|(_, (_, asked))| is_due(asked)).map(|(batch, _)| *batch).collect()
        };
        for batch in watched {
            let names = TALLIES.map(|tally| field(tally).to_owned());
            let Ok(counts) = self.redis.run::<Vec<u64>>(&TALLY_READ, &[self.key(batch)], &names).await else { return };
            if let Some((seen, asked)) = self.state().watched.get_mut(&batch) {
                asked.get_or_insert_with(Instant::now);
                for (seen, n) in seen.iter_mut().zip(counts) {
                    *seen = n;
                }
            }
        }
    }
}

impl State {
    fn told(&mut self, batch: BatchId, counts: &Counts) {
        if let Some(left) = self.deltas.get_mut(&batch) {
            for (left, told) in left.iter_mut().zip(counts) {
                *left = left.saturating_sub(*told);
            }
            if left.iter().all(|n| *n == 0) {
                self.deltas.remove(&batch);
            }
        }
    }
}

impl Tallies for RedisTallies {
    fn add(&self, batch: BatchId, tally: Tally, n: u64) {
        let mut state = self.0.state();
        if n > 0 && (state.deltas.len() < WAITING_MAX || state.deltas.contains_key(&batch)) {
            state.deltas.entry(batch).or_default()[place(tally)] += n;
        }
    }

    /// The first reading of a batch knows only this process's own changes; the fleet's follow within a moment.
    fn read(&self, batch: BatchId, tally: Tally) -> u64 {
        let mut state = self.0.state();
        let own = state.deltas.get(&batch).map_or(0, |counts| counts[place(tally)]);
        match state.watched.get_mut(&batch) {
            Some((seen, asked)) => {
                if let Some(asked) = asked {
                    *asked = Instant::now();
                }
                seen[place(tally)] + own
            }
            None => {
                if state.watched.len() < WAITING_MAX {
                    state.watched.insert(batch, (Counts::default(), None));
                    self.0.wake.notify_one();
                }
                own
            }
        }
    }

    fn clear(&self, batch: BatchId) {
        let mut state = self.0.state();
        state.deltas.remove(&batch);
        state.watched.remove(&batch);
        state.cleared.insert(batch);
    }

    fn running(&self) -> (u64, u64) {
        let state = self.0.state();
        match state.said {
            Some((own, at)) if at.elapsed() < RUNNING_AGAIN => own,
            _ => state.running,
        }
    }

    fn set_running(&self, prepare: u64, delivery: u64) {
        let mut state = self.0.state();
        let now = (prepare, delivery);
        if state.said.is_none_or(|(last, at)| last != now || at.elapsed() >= RUNNING_AGAIN) {
            state.said = Some((now, Instant::now()));
            state.to_say = Some(now);
        }
    }
}
