//! SmsBatchService: creating batches, and the commands an operator gives.
//!
//! A command is a compare-and-set of the batch row, repeated safely: done before is no error. Pause and cancel are fences: they
//! succeed only after every lane was fenced, so what they report as unsent stays unsent. What needs more than one write, a
//! change of provider ([`change`]) or a retry ([`retry`]), is an order: pending in the row until it is carried out in every
//! lane ([`orders`]), by the command or, should it die, by the leader. Both show first what they would come to
//! ([`estimate`]).
//!
//! Architecture invariant: this stage never talks to a provider and never sends a token; it changes rows, and the leader
//! and the workers follow.

pub mod change;
pub mod estimate;
pub mod orders;
pub mod pause;
pub mod retry;
pub mod select;
pub mod service;

pub use change::{ChangeCounts, ChangePlan, Conflict, ConflictKind};
pub use estimate::{Estimate, Offer, Price};
pub use orders::OrderCompletion;
pub use pause::{PauseEnd, PauseReceipt};
pub use retry::{RetryPlan, RetryRequest};
pub use select::Select;
pub use service::{Answer, Created, SmsBatchService};

#[cfg(test)]
mod change_tests;
#[cfg(test)]
mod fences_tests;
