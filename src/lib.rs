#![doc = include_str!("ARCHITECTURE.md")]

pub mod access;
pub mod adapters;
pub mod batch;
pub mod cli;
pub mod coordinate;
pub mod deliver;
pub mod dispatch;
pub mod drill;
#[doc = include_str!("GUARANTEES.md")]
pub mod guarantees {}
pub mod links;
pub mod model;
pub mod ports;
pub mod prepare;
pub mod privacy;
pub mod receipts;
pub mod roles;
pub mod runtime;
pub mod serve;
pub mod simulator;
pub mod statistics;
pub mod webhooks;
