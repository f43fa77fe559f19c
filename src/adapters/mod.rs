//! The only place that knows a technology.

pub mod embedded;
pub mod http;
pub mod memory;
pub mod rows;
pub mod secure;
pub mod smpp;
pub mod source;
pub mod system;
pub mod vendor;
pub mod waiting;
pub mod webhook;
