//! The queues over Apache Kafka, and the mark outside the store.
//!
//! What is in Kafka can be lost without harm: tokens are sent again from the ledgers. It knows neither what tokens mean nor
//! when they are done; it keeps their order, remembers offsets, and moves partitions between members without two owners.

mod config;
mod contact;
pub mod wire;

mod reach;
mod topics;

mod producer;

mod member;

mod lag;
mod mark;

use std::sync::Arc;

use tokio::sync::Mutex;

pub use self::config::{KafkaConfig, Mechanism, Security};
pub use self::lag::Lag;
pub use self::topics::{Report, migrate, remove};

use self::lag::Observer;
use self::mark::KafkaMark;
use self::member::KafkaQueue;
use self::producer::Sender;
use self::topics::Names;
use crate::model::code::{Code, Fault};
use crate::model::limits::DELIVERY_PARTITIONS;
use crate::model::task::{PrepareTask, SmsBatchPartitionTask};
use crate::ports::meta::Outside;
use crate::ports::queue::{DeliveryQueue, PrepareQueue, TaskSender};

/// A process's way to Kafka.
pub struct Kafka {
    config: KafkaConfig,
    client_id: String,
    names: Names,
    prepare_partitions: u16,
    sender: Arc<Sender>,
    prepare: Arc<Observer>,
    delivery: Arc<Observer>,
    /// Held while the lag is asked for.
    asking: Arc<Mutex<()>>,
}

impl Kafka {
    /// One attempt to reach the brokers, with a look at the topics. `client_id` is the name under which they know this
    /// process.
    pub async fn connect(config: &KafkaConfig, client_id: &str) -> Result<Kafka, Fault> {
        let prepare_partitions = topics::check(config, client_id).await?;
        Kafka::over(config, client_id, prepare_partitions)
    }

    /// The same with topics that were looked at.
    fn over(config: &KafkaConfig, client_id: &str, prepare_partitions: u16) -> Result<Kafka, Fault> {
        let names = Names::of(config);
        let sender = Sender::new(config.producer(client_id), names.clone(), prepare_partitions)?;
        Ok(Kafka {
            config: config.clone(),
            client_id: client_id.to_owned(),
            prepare_partitions,
            sender: Arc::new(sender),
            prepare: Arc::new(Observer::new(config, client_id, &names.prepare)),
            delivery: Arc::new(Observer::new(config, client_id, &names.delivery)),
            names,
            asking: Arc::default(),
        })
    }

    /// Where tokens are sent.
    pub fn sender(&self) -> Arc<dyn TaskSender> {
        self.sender.clone()
    }

    /// Joins the group of the delivery topic.
    pub fn join_delivery(&self) -> Result<Arc<DeliveryQueue>, Fault> {
        let settings = self.config.member(&self.client_id, &self.names.delivery);
        Ok(Arc::new(KafkaQueue::<SmsBatchPartitionTask>::join(&self.names.delivery, "delivery", settings)?))
    }

    /// Joins the group of the preparation topic.
    pub fn join_prepare(&self) -> Result<Arc<PrepareQueue>, Fault> {
        let settings = self.config.member(&self.client_id, &self.names.prepare);
        Ok(Arc::new(KafkaQueue::<PrepareTask>::join(&self.names.prepare, "prepare", settings)?))
    }

    /// Tokens that were not committed yet. One question at a time: whoever gives up waiting ends only the waiting, and while the
    /// brokers are away each question would keep a thread until its own time is over.
    ///
    /// # Errors
    /// What the brokers say; [`Code::ServerUnavailable`] at once while the last question is not answered.
    pub async fn lag(&self) -> Result<Lag, Fault> {
        let (prepare, delivery, partitions) = (self.prepare.clone(), self.delivery.clone(), self.prepare_partitions);
        let Ok(asking) = self.asking.clone().try_lock_owned() else {
            let at = self.config.addresses();
            let context = format!("Kafka at {at}: the last question about its lag is not answered yet (kafka.brokers)");
            return Err(Fault::new(Code::ServerUnavailable, context));
        };
        let lags = move || {
            let _asking = asking;
            Ok((prepare.lag(partitions)?, delivery.lag(DELIVERY_PARTITIONS)?))
        };
        let (prepare, by_partition) = self.ask(lags).await?;
        Ok(Lag { prepare: prepare.iter().sum(), delivery: by_partition.iter().sum(), by_partition })
    }

    /// The mark of the store with this identity, such as its keyspace's.
    pub fn mark(&self, identity: impl Into<String>) -> Box<dyn Outside> {
        Box::new(KafkaMark {
            config: self.config.clone(),
            client_id: self.client_id.clone(),
            sender: self.sender.clone(),
            identity: identity.into(),
        })
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T, rdkafka::error::KafkaError> + Send + 'static,
    ) -> Result<T, Fault> {
        let at = self.config.addresses();
        let fault = move |error| Fault::new(Code::ServerUnavailable, format!("Kafka at {at}: {error} (kafka.brokers)"));
        blocking(move || question().map_err(fault)).await
    }
}

/// Closes a client of the library on a thread of its own: it may have to wait for a broker, and whoever lets go of it must not.
fn close_beside<T: Send + 'static>(client: T) {
    let closing = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(client));
    if let Err(error) = closing {
        tracing::warn!(%error, "a client of Kafka was closed where it stood");
    }
}

/// Runs a call that blocks beside the tasks.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let called = tokio::task::spawn_blocking(call).await;
    called.map_err(|error| Fault::new(Code::Internal, format!("a call to Kafka broke off: {error}")))?
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn brokers_that_are_away_are_asked_for_the_lag_once_at_a_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = KafkaConfig { brokers: vec!["127.0.0.1:1".into()], ..KafkaConfig::default() };
            let kafka = Kafka::over(&config, "w1", 16).expect("its settings are right");
            let asked = Instant::now();
            let mut answers = vec![];
            for _ in 0..20 {
                answers.push(tokio::time::timeout(Duration::from_millis(100), kafka.lag()).await);
            }
            assert!(answers[0].is_err(), "it waits for the brokers: {:?}", answers[0]);
            let at_once = |answer: &Result<Result<Lag, Fault>, _>| {
                answer.as_ref().is_ok_and(|lag| lag.as_ref().is_err_and(|fault| fault.code == Code::ServerUnavailable))
            };
            assert!(answers[1..].iter().all(at_once), "{answers:?}");
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        });
        // The question goes on for as long as it may, and is not waited for.
        runtime.shutdown_background();
    }
}
