//! Calls to users' own servers: webhooks.

use std::time::Duration;

use crate::model::code::Fault;

/// One call: a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Where to.
    pub url: String,
    /// Headers, beside those that HTTP itself needs.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as `application/json`.
    pub body: Vec<u8>,
}

/// What came back. The answer's body means nothing and is thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    /// HTTP status.
    pub status: u16,
    /// How long the target asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Calls users' servers, and only those that the operator allows.
///
/// Contract: the rules are checked at each call, names are resolved by the implementation, the connection goes to an address
/// that was checked, redirects are not followed, and a call ends within the configured time.
#[async_trait::async_trait]
pub trait Caller: Send + Sync {
    /// Whether a URL may be called. The fault says what is wrong, and which key of the configuration decides it.
    async fn check(&self, url: &str) -> Result<(), Fault>;

    /// Calls once. The error says why nothing came back, and never names the URL.
    async fn post(&self, call: Call) -> Result<Called, String>;
}
