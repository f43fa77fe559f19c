//! SmsBatchService: creating batches, and the commands an operator gives.
//!
//! A command is a compare-and-set of the batch row, repeated safely: done before is no error. Cancel is a fence: it succeeds
//! only after every lane was fenced, so what it reports as unsent stays unsent.
//!
//! Architecture invariant: this stage never talks to a provider and never sends a token; it changes rows, and the leader
//! and the workers follow.

pub mod pause;
pub mod service;

pub use pause::{PauseEnd, PauseReceipt};
pub use service::{Answer, Created, SmsBatchService};
