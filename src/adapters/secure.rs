//! TLS, for the adapters that speak to strangers.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::model::code::{Code, Fault};

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
    fn a_file_without_authorities_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(client_config(Some(file.path())).err().map(|fault| fault.code), Some(Code::ProviderTls));
        assert!(client_config(None).is_ok());
    }
}
