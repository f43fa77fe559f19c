//! How accounts and lists are reached: the adapters' own configuration types, named in one place for the configuration.

pub use crate::adapters::http::HttpConfig;
pub use crate::adapters::kafka::KafkaConfig;
pub use crate::adapters::redis::config::RedisConfig;
pub use crate::adapters::scylla::ScyllaConfig;
pub use crate::adapters::secret::{FILE_KEYS, Secret, first_line};
pub use crate::adapters::secure::client_config;
pub use crate::adapters::smpp::SmppConfig;
pub use crate::adapters::source::{AzureTableConfig, EXPANDED_BYTES_MAX, ObjectStoreConfig, is_store};
pub use crate::adapters::webhook::WebhookConfig;
