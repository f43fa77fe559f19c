//! What every role needs of a process.

pub mod calm;
pub mod control;
pub mod digest;
pub mod document;
pub mod erased;
pub mod fence;
pub mod freezer;
pub mod handed;
pub mod job;
pub mod kept;
pub mod link_target;
pub mod logging;
pub mod mention;
pub mod metrics;
pub mod moment;
pub mod mutation;
pub mod offsets;
pub mod passed;
mod process;
pub mod pulse;
pub mod retry;
pub mod short_code;
pub mod signals;
pub mod task;
pub mod trace;
pub mod zeros;
