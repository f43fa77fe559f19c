//! End to end: the binary as a user runs it, against providers that listen on a port of this machine.

mod alongside;
mod clicks;
mod drill;
pub mod fixture;
mod folder;
mod http;
mod inbound;
pub mod inside;
mod killed;
mod late;
mod load;
mod masked;
mod others;
mod plan;
mod quickstart;
mod refusals;
pub mod service;
mod stopped;
mod told;
pub mod traced;
