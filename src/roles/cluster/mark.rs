//! The mark beside the store, for commands that seldom need it: Kafka is reached when it is asked for.

use tokio::sync::OnceCell;

use crate::adapters::kafka::{Kafka, KafkaConfig};
use crate::ports::StoreError;
use crate::ports::meta::{Left, Outside};

/// A mark in Kafka that is reached at its first use.
pub struct LateMark {
    config: KafkaConfig,
    identity: String,
    reached: OnceCell<Box<dyn Outside>>,
}

impl LateMark {
    /// The mark of the store with this identity.
    pub fn new(config: &KafkaConfig, identity: &str) -> LateMark {
        LateMark { config: config.clone(), identity: identity.to_owned(), reached: OnceCell::new() }
    }

    async fn reach(&self) -> Result<&dyn Outside, StoreError> {
        let connect = || async {
            let kafka = Kafka::connect(&self.config, "smsfleet-command").await;
            kafka.map(|kafka| kafka.mark(self.identity.clone())).map_err(|fault| StoreError::Unavailable(fault.context))
        };
        self.reached.get_or_try_init(connect).await.map(|mark| &**mark)
    }
}

#[async_trait::async_trait]
impl Outside for LateMark {
    async fn read(&self) -> Result<Option<Left>, StoreError> {
        self.reach().await?.read().await
    }

    async fn write(&self, left: Left) -> Result<(), StoreError> {
        self.reach().await?.write(left).await
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}
