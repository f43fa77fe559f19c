//! Accounts that speak HTTP, described by configuration.
//!
//! A message (or several, where the provider takes several) becomes a request by templates ([`template`]); what came of each
//! is read from the answer by JSON pointers ([`answer`]); receipts and messages of people that the provider pushes are read the same way
//! ([`receipt`], [`inbound`]). The endpoint that takes the pushes is not here: it stands in `serve`.
//!
//! Architecture invariant: a request that may have reached the provider is sent again only under the same idempotency key,
//! within the key's lifetime, and only here.

pub mod account;
pub mod answer;
pub mod config;
mod connect;
mod inbound;
mod receipt;
mod request;
mod template;
mod value;

pub use account::HttpAccount;
pub use config::HttpConfig;

#[cfg(test)]
pub(crate) mod hostile_tests;
#[cfg(test)]
mod tests;
