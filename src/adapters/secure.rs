//! Secrets and TLS, for the adapters that speak to strangers.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::model::code::{Code, Fault};

/// A password or token from the configuration. It is written as `***`, in debug output and in a printed configuration.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// TLS for a client: the authorities of a PEM file, or the public ones when none is named. The provider of cryptography is
/// ring, named here, whatever [`install`] did.
pub fn client_config(authorities: Option<&Path>) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let fault = |error: &dyn std::fmt::Display| {
                Fault::new(Code::ProviderTls, format!("the authorities in {} cannot be used: {error}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))? {
                let certificate = certificate.map_err(|error| fault(&error))?;
                roots.add(certificate).map_err(|error| fault(&error))?;
            }
            if roots.is_empty() {
                return Err(fault(&"it has no certificate"));
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::new(Code::ProviderTls, format!("no common TLS version: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Names ring as the process's cryptography, for libraries that make their own TLS and cannot be told otherwise.
pub fn install() {
    // It fails when one is named already, and then there is one.
    let _ = crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).expect("it is written"), "\"***\"");
        assert_eq!(serde_json::from_str::<Secret>("\"x\"").expect("it is read").expose(), "x");
    }

    #[test]
    fn a_file_without_authorities_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(client_config(Some(file.path())).err().map(|fault| fault.code), Some(Code::ProviderTls));
        assert!(client_config(None).is_ok());
    }
}
