//! Webhooks: what happens to batches, recipients and people, told to the servers of users.
//!
//! Events are written into an outbox ([`outbox`]): changes of batches by a job of the leader that follows their rows
//! ([`changes`]), delivery reports by the intake before it acknowledges them, anything else by whoever calls
//! [`outbox::Webhooks::tell`]. The [`sender`] tells them, in order for each batch and webhook, signed ([`signature`]); what
//! is refused for a day goes to the dead ([`dead`]), where people see it and may send it again.
//!
//! Events are told at least once: an event has an id that is derived from what it says, by which a receiver knows it again.
//!
//! Architecture invariant: an event leaves the outbox only after its receiver took it, or into the dead.

pub mod registry;

pub mod outbox;

pub mod changes;

pub mod signature;

pub mod sender;

pub mod dead;

mod stream;

mod told;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod told_tests;

pub use changes::Changes;
pub use dead::{DeadEvent, Replay};
pub use outbox::{Telling, Webhooks};
pub use registry::Added;
pub use sender::Sender;
