//! Reports in, matched to their recipient, kept.
//!
//! Reports are written to the store by whoever received them, then acknowledged: no queue between ([`intake`]). The key is
//! our own reference where the protocol carries one ([`reference`]), else account, message id and number ([`matching`]); a
//! report that matches nothing is parked as a row and looked for again ([`parking`]). Messages of people come the same way ([`inbox`]): they
//! are matched to the batch they answer ([`campaigns`]), and who asks to be left alone is suppressed ([`opt_out`]).
//!
//! Architecture invariant: an acknowledgement follows a durable write, always.

pub mod campaigns;
pub mod inbox;
pub mod intake;
pub mod matching;
pub mod opt_out;
pub mod parking;
pub mod reference;

pub use intake::Intake;

#[cfg(test)]
mod listener_tests;
#[cfg(test)]
mod meeting_tests;
#[cfg(test)]
mod tests;
