//! One suite for each port, run over every implementation: whatever holds here, the stages may rest on.
//!
//! The store's suites run over the embedded folder, over memory and over CQL, the queue's over memory in simulated time and over
//! Kafka in real time, the lease's over memory and Redis.

pub mod fixture;
mod keyspace;

mod control;
pub mod packs;
pub mod windows;

mod index;
mod receipts;

mod lists;
mod service;

pub mod cql;
mod disk;
mod erasure;
mod folder;
mod meta;
mod reclaimed;
mod troubled;

mod kafka;
mod lease;
mod queue;

pub mod redis;
