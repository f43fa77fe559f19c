//! Accounts that speak SMPP 3.4.
//!
//! PDUs are written by crate `rusmpp` and read by a reader of our own ([`lenient`]), because real SMSCs send what a strict
//! codec refuses, and one odd receipt must not end a session. The driver is our own too: it fills the window with as many
//! submits as have room, writes them together, reads whatever is there and hands the answers back in batches.
//!
//! Flow: [`account`] queues chunks ([`super::waiting`]), sessions ([`session`]) take from the queue ([`outgoing`]), remember what they
//! wrote ([`window`]), and read answers, receipts and messages of people
//! ([`lenient`], [`receipt`], [`inbound`]); [`connect`] keeps each session alive.
//!
//! Architecture invariant: a message that was written and has no answer is answered `NoAnswer`, once; nothing here ever
//! sends it again.

pub mod account;
pub mod config;
mod connect;
mod core;
pub mod inbound;
mod incoming;
pub mod lenient;
mod outgoing;
mod pdu;
pub mod receipt;
mod session;
mod window;

pub use account::SmppAccount;
pub use config::SmppConfig;

#[cfg(test)]
mod tests;
