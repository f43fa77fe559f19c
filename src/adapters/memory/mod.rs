//! Ports in memory: the embedded fleet's queue, lock, rates and counters, and what tests run on.
//!
//! Everything here behaves the same on every run: ordered maps, tokio's clock, no threads.

pub mod store;

pub mod queue;

pub mod budget;
pub mod caller;
pub mod lease;
pub mod rates;
pub mod tallies;

pub mod clock;
