//! The life of a process: its components run until they are told to stop, each within a budget; one that ends early, or
//! panics, takes the others down in order.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How a component ended.
pub type Ended = Result<(), String>;

/// Why a process ended otherwise than it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifeError {
    /// A component ended though nobody asked it to.
    #[error("component {0} ended by itself{1}")]
    Early(&'static str, String),
    /// A component failed or panicked while it stopped.
    #[error("component {0} failed: {1}")]
    Failed(&'static str, String),
    /// A component did not stop within its budget and was aborted.
    #[error("component {0} did not stop within {1:?}")]
    Late(&'static str, Duration),
}

/// The components of a process, stopped in the reverse order of their registration: what was built last is torn down
/// first, so nobody loses what it stands on.
pub struct Lifecycle {
    stop: CancellationToken,
    components: Vec<Component>,
    running: JoinSet<Ended>,
    names: HashMap<Id, usize>,
}

struct Component {
    name: &'static str,
    budget: Duration,
    stop: CancellationToken,
    ended: bool,
}

impl Lifecycle {
    /// A process that stops when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Lifecycle {
        Lifecycle { stop, components: vec![], running: JoinSet::new(), names: HashMap::new() }
    }

    /// Starts a component. It is given its own token and has `budget` to end after the token is cancelled.
    pub fn start<F, Fut>(&mut self, name: &'static str, budget: Duration, run: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = Ended> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let future = run(stop.clone()).instrument(tracing::info_span!("component", name));
        let handle = self.running.spawn(future);
        self.names.insert(handle.id(), self.components.len());
        self.components.push(Component { name, budget, stop, ended: false });
    }

    /// The longest an orderly stop can take: to be compared with what the supervisor allows.
    pub fn budget(&self) -> Duration {
        self.components.iter().map(|component| component.budget).sum()
    }

    /// Runs until the process is told to stop or a component ends, then stops them all. All that went wrong, in the order
    /// of time; empty when it went as asked.
    pub async fn run(mut self) -> Vec<LifeError> {
        let mut wrong = vec![];
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(joined) = self.running.join_next_with_id() => {
                let (at, ended) = self.ended(joined);
                let why = ended.err().map(|text| format!(": {text}")).unwrap_or_default();
                tracing::error!(component = self.components[at].name, why, "a component ended by itself; the process stops");
                wrong.push(LifeError::Early(self.components[at].name, why));
            }
        }
        self.stop.cancel();
        for at in (0..self.components.len()).rev() {
            self.stop_one(at, &mut wrong).await;
        }
        self.running.abort_all();
        while self.running.join_next().await.is_some() {}
        wrong
    }

    async fn stop_one(&mut self, at: usize, wrong: &mut Vec<LifeError>) {
        self.components[at].stop.cancel();
        let deadline = Instant::now() + self.components[at].budget;
        while !self.components[at].ended {
            match tokio::time::timeout_at(deadline, self.running.join_next_with_id()).await {
                Ok(Some(joined)) => {
                    let (ended_at, ended) = self.ended(joined);
                    if let Err(text) = ended {
                        wrong.push(LifeError::Failed(self.components[ended_at].name, text));
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    wrong.push(LifeError::Late(self.components[at].name, self.components[at].budget));
                    return;
                }
            }
        }
    }

    fn ended(&mut self, joined: Result<(Id, Ended), JoinError>) -> (usize, Ended) {
        let (id, ended) = match joined {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let at = self.names.remove(&id).expect("every task of the set was registered when it was spawned");
        self.components[at].ended = true;
        (at, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Order = Arc<Mutex<Vec<&'static str>>>;

    fn waiting(
        order: &Order,
        name: &'static str,
    ) -> impl FnOnce(CancellationToken) -> futures::future::BoxFuture<'static, Ended> {
        let order = order.clone();
        move |stop| {
            Box::pin(async move {
                stop.cancelled().await;
                order.lock().expect("no test panics while it holds the list").push(name);
                Ok(())
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn components_stop_in_reverse_order() {
        let (stop, order) = (CancellationToken::new(), Order::default());
        let mut life = Lifecycle::new(stop.clone());
        for name in ["store", "sessions", "workers"] {
            life.start(name, Duration::from_secs(1), waiting(&order, name));
        }
        assert_eq!(life.budget(), Duration::from_secs(3));
        stop.cancel();
        assert_eq!(life.run().await, vec![]);
        assert_eq!(*order.lock().expect("unpoisoned"), ["workers", "sessions", "store"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_end_stops_the_process_and_is_told() {
        let order = Order::default();
        let mut life = Lifecycle::new(CancellationToken::new());
        life.start("store", Duration::from_secs(1), waiting(&order, "store"));
        life.start("worker", Duration::from_secs(1), |_| async { Err("the disk is gone".to_owned()) });
        assert_eq!(life.run().await, vec![LifeError::Early("worker", ": the disk is gone".into())]);
        assert_eq!(*order.lock().expect("unpoisoned"), ["store"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_stop_is_aborted_and_a_panic_is_told() {
        let stop = CancellationToken::new();
        let mut life = Lifecycle::new(stop.clone());
        life.start("stuck", Duration::from_secs(2), |_| std::future::pending());
        life.start("wild", Duration::from_secs(2), |stop| async move {
            stop.cancelled().await;
            panic!("on purpose")
        });
        stop.cancel();
        let wrong = life.run().await;
        assert!(matches!(&wrong[..], [LifeError::Failed("wild", _), LifeError::Late("stuck", _)]), "{wrong:?}");
    }
}
