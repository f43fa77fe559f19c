//! Reaching the servers: one that is away is waited for, and whoever asks is told for which; one that refuses is an error that
//! says what to change.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::adapters::kafka::Kafka;
use crate::adapters::redis::client::Redis;
use crate::adapters::scylla::CqlStore;
use crate::model::code::{Code, Fault};
use crate::ports::World;
use crate::roles::config::Config;
use crate::roles::opened;
use crate::runtime::retry::Schedule;
use crate::serve::health::Health;

/// The delay before a server is tried a second time, and the longest between two tries.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_MOST: Duration = Duration::from_secs(5);

/// The servers of a cluster.
pub struct Servers {
    /// The store.
    pub store: Arc<CqlStore>,
    /// The queues.
    pub kafka: Arc<Kafka>,
    /// Lock, rates, live counts.
    pub redis: Redis,
}

/// How servers are waited for.
pub struct Wait {
    /// Where it is said for which.
    pub health: Health,
    /// Ends the wait.
    pub stop: CancellationToken,
    /// Of the jitter.
    pub seed: u64,
}

impl Servers {
    /// Reaches all three. `name` is how they know this process.
    ///
    /// # Errors
    /// What one of them refuses for good; or the last trouble when the wait was ended.
    pub async fn reach(config: &Config, name: &str, world: &World, wait: &Wait) -> Result<Servers, Fault> {
        let kafka = reach("Kafka", wait, || Kafka::connect(&config.kafka, name)).await?;
        let kafka = Arc::new(kafka);
        let mark: Arc<dyn crate::ports::meta::Outside> = Arc::from(kafka.mark(config.scylla.keyspace.clone()));
        let store = reach("ScyllaDB", wait, || opened::store(config, world, mark.clone())).await?;
        let seed = world.chance.next();
        let redis = reach("Redis", wait, || Redis::connect(&config.redis, seed)).await?;
        Ok(Servers { store, kafka, redis })
    }
}

/// Tries until it is reached.
///
/// # Errors
/// As for [`Servers::reach`].
pub async fn reach<T, F, Fut>(server: &'static str, wait: &Wait, mut attempt: F) -> Result<T, Fault>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Fault>>,
{
    let mut schedule = Schedule::new(AGAIN_FIRST, AGAIN_MOST, wait.seed);
    let mut told = false;
    loop {
        let tried = tokio::select! {
            biased;
            () = wait.stop.cancelled() => Err(Fault::new(Code::ServerUnavailable, format!("{server} was not reached before the stop"))),
            tried = attempt() => tried,
        };
        let fault = match tried {
            Ok(reached) => {
                if told {
                    tracing::info!(server, "the server is reached");
                }
                return Ok(reached);
            }
            Err(fault) if fault.code.retryable() && !wait.stop.is_cancelled() => fault,
            Err(fault) => return Err(fault),
        };
        if !told {
            tracing::warn!(server, code = %fault.code, "waits for a server: {}", fault.context);
            told = true;
        }
        wait.health.fails("start", format!("it waits for {server}: {}", fault.context));
        let delay = schedule.delay_for_ever();
        tokio::select! {
            biased;
            () = wait.stop.cancelled() => return Err(fault),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
        let health = Health::starting("it begins");
        let wait = Wait { health: health.clone(), stop: CancellationToken::new(), seed: 1 };
        let mut tries = 0;
        let reached = reach("Redis", &wait, || {
            tries += 1;
            let answer =
                if tries < 5 { Err(Fault::new(Code::ServerUnavailable, "redis.nodes: r:6379 refuses")) } else { Ok(tries) };
            let health = health.clone();
            async move {
                assert!(tries == 1 || health.ready().is_err_and(|why| why.contains("redis.nodes")));
                answer
            }
        });
        assert_eq!(reached.await, Ok(5));
        let refused = reach("Redis", &wait, || async { Err::<(), _>(Fault::new(Code::ServerLogin, "redis.password")) }).await;
        assert_eq!(refused.map_err(|fault| fault.code), Err(Code::ServerLogin));
        wait.stop.cancel();
        let stopped = reach("Redis", &wait, || async { Err::<(), _>(Fault::new(Code::ServerUnavailable, "away")) }).await;
        assert!(stopped.is_err(), "nobody waits behind a stop");
    }
}
