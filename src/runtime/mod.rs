//! What every role needs of a process.

pub mod control;
pub mod metrics;
pub mod retry;
pub mod task;
pub mod job;
pub mod offsets;
