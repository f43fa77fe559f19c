//! The only place that knows a technology.

pub mod elsewhere;
pub mod embedded;
pub mod http;
pub mod kafka;
pub mod lent;
pub mod memory;
pub mod redis;
pub mod rows;
pub mod scylla;
pub mod secret;
pub mod secure;
pub mod smpp;
pub mod source;
pub mod system;
pub mod vendor;
pub mod waiting;
pub mod webhook;
