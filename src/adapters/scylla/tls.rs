//! TLS towards the nodes, by OpenSSL.
//!
//! OpenSSL is built in, so it does not know where this system keeps its authorities: they are looked for where systems keep
//! them.

use std::path::{Path, PathBuf};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use scylla::client::session::OpenSsl010Config;

use super::config::ScyllaTls;
use crate::model::code::{Code, Fault};

/// Where systems keep the public authorities: Debian, Alpine and others, Fedora, SUSE, macOS and the BSDs.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// OpenSSL's numbers for a certificate that does not name the host, and one that does not name the address.
const ANOTHER_HOST: [i32; 2] = [62, 64];

/// The TLS of a configuration.
pub(super) fn context(config: &ScyllaTls) -> Result<OpenSsl010Config, Fault> {
    let broken = |error: openssl::error::ErrorStack| Fault::new(Code::ServerTls, format!("TLS cannot be used: {error}"));
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken)?;
    let mut store = X509StoreBuilder::new().map_err(broken)?;
    for authority in authorities(&bundle(config)?)? {
        store.add_cert(authority).map_err(broken)?;
    }
    builder.set_cert_store(store.build());
    if let (Some(certificate), Some(key)) = (&config.certificate, &config.key) {
        let unfit = |key: &str, path: &Path, error: openssl::error::ErrorStack| {
            Fault::new(Code::ServerTls, format!("scylla.tls.{key} {} cannot be used: {error}", path.display()))
        };
        builder.set_certificate_chain_file(certificate).map_err(|error| unfit("certificate", certificate, error))?;
        builder.set_private_key_file(key, SslFiletype::PEM).map_err(|error| unfit("key", key, error))?;
        builder.check_private_key().map_err(|error| unfit("key", key, error))?;
    }
    if !config.verify_host {
        // The driver always asks for the node's address in the certificate; only this one complaint is passed over.
        builder
            .set_verify_callback(SslVerifyMode::PEER, |is_fit, chain| is_fit || ANOTHER_HOST.contains(&chain.error().as_raw()));
    }
    Ok(OpenSsl010Config::new(builder))
}

fn bundle(config: &ScyllaTls) -> Result<PathBuf, Fault> {
    if let Some(path) = &config.ca_file {
        return Ok(path.clone());
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = BUNDLES.iter().map(PathBuf::from);
    named.into_iter().chain(usual).find(|path| path.is_file()).ok_or_else(|| {
        Fault::new(
            Code::ServerTls,
            "this system has no list of authorities where one is looked for: name one in scylla.tls.ca_file",
        )
    })
}

fn authorities(path: &Path) -> Result<Vec<X509>, Fault> {
    let fault = |why: &dyn std::fmt::Display| {
        Fault::new(Code::ServerTls, format!("the authorities in {} (scylla.tls.ca_file) cannot be used: {why}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| fault(&error))?;
    let found = X509::stack_from_pem(&text).map_err(|error| fault(&error))?;
    if found.is_empty() { Err(fault(&"there is no certificate in it")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_list_of_authorities_is_named_with_its_setting() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "nothing").expect("it is written");
        for path in [file.path(), Path::new("/no/such/file")] {
            let tls = ScyllaTls { enabled: true, ca_file: Some(path.to_owned()), ..ScyllaTls::default() };
            let fault = context(&tls).err().expect("it is refused");
            assert_eq!(fault.code, Code::ServerTls);
            assert!(fault.context.contains("scylla.tls.ca_file") && fault.context.contains(&*path.to_string_lossy()));
        }
    }
}
