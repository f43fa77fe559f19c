//! The composers: which stages run in a process, over which adapters.

pub mod edges;
pub mod coordinator;
pub mod config;
pub mod config_load;
pub mod reach;
