//! How leadership moves when a leader is stopped, killed, or loses its lease in the middle of a job that does not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::JobScheduler;
use super::leader::{self, NAME, Terms};
use crate::adapters::memory::lease::MemoryLease;
use crate::ports::StoreError;
use crate::ports::lease::Lease;
use crate::runtime::job::Job;

const SECOND: Duration = Duration::from_secs(1);

/// A job that waits for a store that never comes back, and whether it is under way.
#[derive(Default)]
struct Endless(AtomicBool);

struct UnderWay<'a>(&'a AtomicBool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Job for Endless {
    fn name(&self) -> &'static str {
        "endless"
    }

    async fn run_once(&self) -> Result<bool, StoreError> {
        self.0.store(true, Ordering::Relaxed);
        let _under_way = UnderWay(&self.0);
        std::future::pending().await
    }
}

/// A lock that may fail or fall silent; what it is asked to release it releases.
#[derive(Default)]
struct Away {
    lease: MemoryLease,
    silent: AtomicBool,
    fails: AtomicBool,
}

#[async_trait::async_trait]
impl Lease for Away {
    async fn acquire(&self, name: &str, token: u64, ttl: Duration) -> Result<bool, StoreError> {
        if self.silent.load(Ordering::Relaxed) && token == 1 {
            std::future::pending::<()>().await;
        }
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".into()));
        }
        self.lease.acquire(name, token, ttl).await
    }

    async fn release(&self, name: &str, token: u64) -> Result<(), StoreError> {
        self.lease.release(name, token).await
    }
}

/// A process that leads, and is in the middle of its job.
struct Leader {
    lease: Arc<Away>,
    job: Arc<Endless>,
    stop: CancellationToken,
    process: JoinHandle<()>,
}

impl Leader {
    /// `farewell` is how long it waits for other things at the end of its term.
    fn start(farewell: Duration) -> Leader {
        let (lease, job, stop) = (Arc::new(Away::default()), Arc::new(Endless::default()), CancellationToken::new());
        let scheduler = Arc::new(JobScheduler::new(vec![job.clone()], SECOND, Arc::new(Notify::new())));
        let process = leader::run(lease.clone(), 1, Terms::default(), stop.clone(), move |term| {
            let scheduler = scheduler.clone();
            async move {
                scheduler.term(term).await;
                tokio::time::sleep(farewell).await;
            }
        });
        Leader { lease, job, stop, process: tokio::spawn(process) }
    }

    fn works(&self) -> bool {
        self.job.0.load(Ordering::Relaxed)
    }

    /// How long it takes from now until another process leads.
    async fn until_another_leads(&self) -> Duration {
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let led = leader::run(self.lease.clone(), 2, Terms::default(), stop.clone(), |term| {
            stop.cancel();
            async move { term.cancelled().await }
        });
        tokio::time::timeout(60 * SECOND, led).await.expect("somebody leads");
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_told_to_stop_in_the_middle_of_a_job_hands_over_within_a_second() {
    let leader = Leader::start(Duration::ZERO);
    tokio::time::sleep(7 * SECOND).await;
    assert!(leader.works());
    leader.stop.cancel();
    let after = leader.until_another_leads().await;
    assert!(after < SECOND, "{after:?}");
    tokio::time::timeout(60 * SECOND, leader.process).await.expect("it ends").expect("in order");
    assert!(!leader.job.0.load(Ordering::Relaxed), "its job was dropped");
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_that_stops_still_waits_for_keeps_the_lease_from_nobody() {
    let leader = Leader::start(3 * SECOND);
    tokio::time::sleep(SECOND).await;
    leader.stop.cancel();
    let after = leader.until_another_leads().await;
    assert!(after < SECOND, "{after:?}");
    assert!(!leader.process.is_finished(), "it says good-bye still");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_does_not_delay_a_stop() {
    let leader = Leader::start(3 * SECOND);
    tokio::time::sleep(SECOND).await;
    leader.lease.silent.store(true, Ordering::Relaxed);
    tokio::time::sleep(SECOND).await;
    leader.stop.cancel();
    let after = leader.until_another_leads().await;
    assert!(after < SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn another_leads_within_ten_seconds_of_a_leaders_death() {
    let leader = Leader::start(Duration::ZERO);
    tokio::time::sleep(7 * SECOND).await;
    leader.process.abort();
    let after = leader.until_another_leads().await;
    assert!(after > SECOND && after < 10 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn what_runs_beside_the_jobs_of_a_term_is_told_when_the_leader_is_dropped() {
    let (lease, told) = (Arc::new(MemoryLease::new()), Arc::new(AtomicBool::default()));
    let telling = told.clone();
    let process = tokio::spawn(leader::run(lease, 1, Terms::default(), CancellationToken::new(), move |term| {
        let (telling, beside) = (telling.clone(), term.clone());
        tokio::spawn(async move {
            beside.cancelled().await;
            telling.store(true, Ordering::Relaxed);
        });
        async move { term.cancelled().await }
    }));
    tokio::time::sleep(SECOND).await;
    process.abort();
    tokio::time::sleep(SECOND).await;
    assert!(told.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_job_under_way_is_dropped_when_the_lease_is_lost() {
    let leader = Leader::start(Duration::ZERO);
    tokio::time::sleep(SECOND).await;
    assert!(leader.works());
    leader.lease.lease.flush();
    assert_eq!(leader.lease.acquire(NAME, 2, 60 * SECOND).await, Ok(true));
    tokio::time::sleep(2 * SECOND).await;
    assert!(!leader.works() && !leader.process.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lock_fails_works_no_longer_than_it_trusts_its_lease() {
    for silent in [false, true] {
        let leader = Leader::start(Duration::ZERO);
        tokio::time::sleep(SECOND).await;
        let away = if silent { &leader.lease.silent } else { &leader.lease.fails };
        away.store(true, Ordering::Relaxed);
        // Taken in the first moment, for five seconds of which four are trusted.
        tokio::time::sleep(Duration::from_millis(2_900)).await;
        assert!(leader.works(), "silent: {silent}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!leader.works(), "silent: {silent}");
        leader.process.abort();
    }
}
