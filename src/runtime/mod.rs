//! What every role needs of a process.

pub mod control;
pub mod job;
pub mod metrics;
pub mod offsets;
pub mod retry;
pub mod task;
