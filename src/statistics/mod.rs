//! What became of a batch, read from the store alone: the recount that is the truth, the list of all recipients with their
//! history, and the facts that explain a batch or a number.
//!
//! Everything goes lane by lane, so memory is bounded by the largest lane and not by the batch.
//!
//! Architecture invariant: nothing here writes, and live counters are never read; a cache cannot make a count wrong.

pub mod clicks;
pub mod explain;
pub mod line;
pub mod number;
pub mod progress;
pub mod recipients;
pub mod recount;
pub mod select;
pub mod settle;
pub mod steps;
pub mod syncer;
pub mod walk;

pub use crate::model::fleet::LiveAccount;
pub use clicks::{BatchClicks, batch_clicks};
pub use explain::{BatchFacts, explain_batch, explain_number, verdict};
pub use line::{Event, RecipientFilter, RecipientLine};
pub use number::{BatchOfNumber, NumberExport, NumberHistory, number_history};
pub use progress::{Progress, progress};
pub use recipients::RecipientPages;
pub use recount::recount;
pub use select::select;

#[cfg(test)]
pub(crate) mod fakes;
#[cfg(test)]
mod settle_tests;
#[cfg(test)]
pub(crate) mod tests;
