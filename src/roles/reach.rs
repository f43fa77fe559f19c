//! How accounts are reached: the adapters' own configuration types, named in one place for the configuration.

pub use crate::adapters::secure::Secret;
pub use crate::adapters::smpp::SmppConfig;

use serde::{Deserialize, Serialize};

use crate::model::code::Fault;

/// HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address.
    pub url: String,
}

impl HttpConfig {
    /// Checks relations.
    pub fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}
