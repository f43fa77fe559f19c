//! The composers: which stages run in a process, over which adapters.

pub mod accounts;
pub mod callbacks;
pub mod cluster;
pub mod config;
mod config_check;
pub mod config_load;
pub mod coordinator;
pub mod edges;
pub mod embedded;
pub mod fleet;
mod gauges;
pub mod opened;
pub mod reach;
pub mod selection;
mod serving;
pub mod sources;
pub mod surface;
