//! Who asks, what they may do, what they did, and what they were answered.
//!
//! Keys open the API ([`keys`]); every command leaves entries in the audit trail ([`audit`]); a command that is sent twice
//! under one idempotency key is carried out once and answered alike ([`answers`]). Rates that
//! are changed live are kept here too ([`rates`]).
//!
//! Architecture invariant: nothing here changes a batch.

pub mod answers;
pub mod audit;
pub mod keys;
pub mod rates;
