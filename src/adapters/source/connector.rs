//! The HTTP client of object stores: the library's own choices, but that nobody is led elsewhere.
//!
//! An address of a list names a bucket of a configured endpoint. A redirect would let whoever answers there have this machine
//! ask any place that it reaches, and read what comes back as a list.

use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Certificate, Client, redirect};

/// Makes clients that follow no redirect.
#[derive(Clone, Debug)]
pub(super) struct Straight {
    certificates: Vec<Certificate>,
    timeouts: [std::time::Duration; 2],
}

impl Straight {
    /// Clients that trust the authorities of a PEM text too, with their time for connecting and for a request.
    pub fn new(
        authorities: Option<&[u8]>,
        connect: std::time::Duration,
        request: std::time::Duration,
    ) -> Result<Straight, String> {
        let certificates = authorities.map(Certificate::from_pem_bundle).transpose().map_err(|error| error.to_string())?;
        if certificates.as_ref().is_some_and(Vec::is_empty) {
            return Err("it has no certificate".into());
        }
        Ok(Straight { certificates: certificates.unwrap_or_default(), timeouts: [connect, request] })
    }
}

impl HttpConnector for Straight {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // The library asks for two kinds: for the store, and for the machine's own identity, which has no TLS.
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let [connect, request] = self.timeouts;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .tls_certs_merge(self.certificates.iter().cloned())
            .connect_timeout(connect)
            .timeout(request)
            .https_only(!allow_http)
            .build();
        let generic = |error: reqwest::Error| object_store::Error::Generic { store: "HTTP client", source: Box::new(error) };
        Ok(HttpClient::new(client.map_err(generic)?))
    }
}
