//! The leader's rounds: every job once, in order, then a pause or a wake-up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::runtime::calm::Calm;
use crate::runtime::job::Job;
use crate::runtime::metrics;

/// Runs the jobs of a term.
pub struct JobScheduler {
    jobs: Vec<Arc<dyn Job>>,
    every: Duration,
    wake: Arc<Notify>,
}

impl JobScheduler {
    /// A scheduler of these jobs, at least every `every`, and at once when `wake` is notified.
    pub fn new(jobs: Vec<Arc<dyn Job>>, every: Duration, wake: Arc<Notify>) -> JobScheduler {
        JobScheduler { jobs, every, wake }
    }

    /// Runs rounds until the term ends; a job under way is dropped then, as a crash would drop it. A job that fails is tried
    /// again in the next round; it never keeps the others.
    pub async fn term(&self, term: CancellationToken) {
        for job in &self.jobs {
            job.new_term();
            // See `runtime/zeros`; the jobs are known here.
            metrics::count(&metrics::COORDINATE_TASK_FAILURES, &[job.name()], 0);
        }
        let _over = Over(&self.jobs);
        tokio::select! {
            biased;
            () = term.cancelled() => {}
            () = self.rounds() => {}
        }
    }

    /// Rounds without end.
    async fn rounds(&self) {
        let calm: Vec<Calm> = self.jobs.iter().map(|_| Calm::default()).collect();
        loop {
            let mut changed = false;
            for (job, calm) in self.jobs.iter().zip(&calm) {
                let done = job.run_once().await;
                if done.is_err() {
                    metrics::count(&metrics::COORDINATE_TASK_FAILURES, &[job.name()], 1);
                }
                match done {
                    Ok(more) => {
                        changed |= more;
                        calm.is_over();
                    }
                    Err(error) if !calm.speaks() => {
                        tracing::debug!(job = job.name(), code = %error.code(), "a job of the leader failed again");
                    }
                    Err(error) => {
                        tracing::warn!(job = job.name(), code = %error.code(), %error, "a job of the leader failed; the next round tries again");
                    }
                }
            }
            let pause = if changed { Duration::from_millis(5) } else { self.every };
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Tells the jobs that their term is over, however it ends.
struct Over<'a>(&'a [Arc<dyn Job>]);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|job| job.end_term());
    }
}
