//! Rates of a fleet: exact over many workers, fair between them, and never above the ceiling, whatever is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smsfleet::adapters::redis::client::Redis;
use smsfleet::adapters::redis::rates::RedisRates;
use smsfleet::model::rate_shared::LEASE;
use smsfleet::ports::World;
use smsfleet::ports::rates::{Grant, Rates};
use smsfleet::runtime::task::Tasks;

use super::server::{Server, ask};
use super::{config, connect, until, world};

const RATE: u32 = 5_000;
/// What the governor's bucket holds at most: 40 ms of its rate.
const DEPTH: f64 = RATE as f64 * 0.04;

struct Worker {
    rates: Arc<RedisRates>,
    world: World,
    tasks: Tasks,
}

/// A worker with its own connection, as a process of its own has.
async fn worker(config: &smsfleet::adapters::redis::config::RedisConfig, ceiling: Option<u32>) -> Worker {
    worker_over(connect(config).await, ceiling)
}

fn worker_over(redis: Redis, ceiling: Option<u32>) -> Worker {
    let (world, tasks) = (world(), Tasks::default());
    let rates = RedisRates::new(redis, world.clone(), [("a".to_owned(), ceiling)], &tasks);
    Worker { rates, world, tasks }
}

impl Worker {
    fn take(&self, want: u32) -> Grant {
        self.rates.take("a", want, self.world.clock.boot())
    }

    /// Always wants more, uses all but a few, and has its answers a moment later. Returns what it used.
    async fn press(&self, for_time: Duration) -> u64 {
        let (began, mut used) = (Instant::now(), 0);
        while began.elapsed() < for_time {
            match self.take(400) {
                Grant::Take(granted) => {
                    let back = u32::from(granted > 10);
                    self.rates.give_back("a", back);
                    self.rates.answered("a", granted - back, 0, self.world.clock.boot());
                    used += u64::from(granted - back);
                }
                Grant::Wait(wait) => tokio::time::sleep(wait).await,
            }
        }
        used
    }

    fn end(&self) {
        self.tasks.abort_all();
    }
}

/// All workers press at once. Returns what each used.
async fn press(workers: &[Arc<Worker>], for_time: Duration) -> Vec<u64> {
    let pressing: Vec<_> = workers
        .iter()
        .map(|worker| {
            let worker = worker.clone();
            tokio::spawn(async move { worker.press(for_time).await })
        })
        .collect();
    let mut used = Vec::new();
    for pressing in pressing {
        used.push(pressing.await.expect("it ends"));
    }
    used
}

async fn eight() -> (smsfleet::adapters::redis::config::RedisConfig, Vec<Arc<Worker>>) {
    let config = config(&crate::servers::redis());
    let mut workers = Vec::new();
    for _ in 0..8 {
        workers.push(Arc::new(worker(&config, Some(RATE)).await));
    }
    (config, workers)
}

/// How much of the rate a busy machine lets them use is printed; what is asserted is that they never use more, and that nobody
/// is left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_never_exceed_the_rate_and_all_get_of_it() {
    let (_, workers) = eight().await;
    until("the first grant", || matches!(workers[0].take(1), Grant::Take(_))).await;
    let began = Instant::now();
    let used = press(&workers, Duration::from_secs(3)).await;
    let may = f64::from(RATE) * began.elapsed().as_secs_f64();
    let all: u64 = used.iter().sum();
    println!("8 workers: {all} of {may:.0}: {:.1} %, each {used:?}", 100.0 * all as f64 / may);
    assert!(all as f64 <= may + DEPTH, "{all} of {may}");
    assert!(used.iter().all(|used| *used > 0), "{used:?}");
    workers.iter().for_each(|worker| worker.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_lost_in_the_middle_grants_nothing_twice() {
    let (config, workers) = eight().await;
    until("the first grant", || matches!(workers[0].take(1), Grant::Take(_))).await;
    let key = format!("{}:rate:a", config.prefix);
    let losses = tokio::spawn(async move {
        let mut lost = 0;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            lost += u32::from(ask(&crate::servers::redis(), &["DEL", &key]) == "1");
        }
        lost
    });
    let began = Instant::now();
    let all: u64 = press(&workers, Duration::from_millis(2_600)).await.iter().sum();
    let lost = losses.await.expect("it ends");
    assert_eq!(lost, 3, "the state was there, and went");
    // After each loss nothing is granted for one lease, except what was granted before it.
    let may = f64::from(RATE) * (began.elapsed() - LEASE * lost).as_secs_f64();
    println!("lost {lost} times: {all} of {may:.0}");
    assert!(all as f64 <= may + DEPTH, "{all} of {may}");
    assert!(all > 0, "it goes on");
    workers.iter().for_each(|worker| worker.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceiling_is_changed_live_for_all_and_outlives_restarts_and_losses() {
    let config = config(&crate::servers::redis());
    let (one, other) = (worker(&config, Some(900)).await, worker(&config, Some(900)).await);
    let sees = |worker: &Worker, ceiling: u32| {
        let view = worker.rates.view("a");
        view.ceiling == Some(ceiling) && view.rate > 0.9 * f64::from(ceiling)
    };
    until("what was configured", || sees(&one, 900) && sees(&other, 900)).await;
    one.rates.set_ceiling("a", Some(300), Duration::ZERO);
    until("the live ceiling", || sees(&one, 300) && sees(&other, 300)).await;
    let restarted = worker(&config, Some(900)).await;
    until("the live ceiling, still", || sees(&restarted, 300)).await;
    assert!(sees(&one, 300));
    // Everybody follows the store's change, and a lost state is made again from what a worker knows.
    for worker in [&one, &other, &restarted] {
        worker.rates.set_ceiling("a", Some(200), Duration::ZERO);
    }
    until("the next ceiling", || sees(&restarted, 200)).await;
    assert_eq!(ask(&crate::servers::redis(), &["DEL", &format!("{}:rate:a", config.prefix)]), "1");
    until("a grant", || matches!(other.take(1), Grant::Take(_))).await;
    let restarted_again = worker(&config, Some(900)).await;
    until("the lost state was made with the last ceiling", || sees(&restarted_again, 200)).await;
    let reconfigured = worker(&config, Some(100)).await;
    until("a new configuration counts", || sees(&reconfigured, 100)).await;
    until("everybody sees it", || sees(&one, 100)).await;
    [one, other, restarted, restarted_again, reconfigured].iter().for_each(Worker::end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_slow_down_slows_all_down() {
    let config = config(&crate::servers::redis());
    let (one, other) = (worker(&config, Some(1_000)).await, worker(&config, Some(1_000)).await);
    until("a grant", || matches!(one.take(5), Grant::Take(_))).await;
    one.rates.answered("a", 0, 3, one.world.clock.boot());
    until("the cut", || {
        let view = other.rates.view("a");
        view.throttled == 3 && view.rate > 0.0 && view.rate < 980.0
    })
    .await;
    [one, other].iter().for_each(Worker::end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nothing_is_granted_and_with_it_again_all_is_well() {
    let mut server = Server::start(&[]);
    let redis = connect(&config(&server.address())).await;
    let worker = worker_over(redis.clone(), Some(2_000));
    until("a grant", || matches!(worker.take(5), Grant::Take(_))).await;
    server.kill();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        assert!(matches!(worker.take(5), Grant::Wait(_)), "credit is good for 100 ms, and there is no more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("its view says so", || worker.rates.view("a").rate == 0.0).await;
    assert!(redis.trouble().is_some());
    let began = Instant::now();
    let _again = Server::start_at(server.port, &[]);
    until("a grant", || matches!(worker.take(5), Grant::Take(_))).await;
    assert!(began.elapsed() >= LEASE, "a server that remembers nothing grants nothing at first");
    assert!(redis.trouble().is_none());
    worker.end();
}
