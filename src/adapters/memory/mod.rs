//! Ports in memory: the embedded fleet's queue, lock and counters, and what tests run on.

pub mod budget;
pub mod rates;
