//! How accounts are reached: the configuration types of the adapters, until those land (then this file is a `pub use`).

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::code::Fault;

/// A secret text, written as `***`.
#[derive(Clone, Debug, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.expose().is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(|text| Secret(SecretString::from(text)))
    }
}

/// SMPP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmppConfig {
    /// Host.
    pub host: String,
    /// Password.
    pub password: Secret,
    /// Window.
    pub window: u32,
}

/// HTTP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address.
    pub url: String,
}

impl SmppConfig {
    /// Checks relations.
    pub fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl HttpConfig {
    /// Checks relations.
    pub fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}
