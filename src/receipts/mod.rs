//! Reports in, matched to their recipient, kept.
//!
//! Reports are written to the store by whoever received them, then acknowledged: no queue between ([`intake`]). The key is
//! our own reference where the protocol carries one, else account, message id and number ([`matching`]); a report that
//! matches nothing is parked as a row and looked for again ([`parking`]).
//!
//! Architecture invariant: an acknowledgement follows a durable write, always.

pub mod intake;
pub mod matching;
pub mod parking;

pub use intake::Intake;

#[cfg(test)]
mod tests;
