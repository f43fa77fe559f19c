//! One suite for each port, run over every implementation: whatever holds here, the stages may rest on.
//!
//! The store's suites run over the embedded folder and over memory, the lease over memory and Redis. The queue has one
//! implementation so far; a later one joins by a line in its file.

mod fixture;
mod keyspace;

mod control;
mod packs;
mod windows;

mod index;
mod receipts;

mod lists;
mod service;

mod cql;
mod disk;
mod erasure;
mod folder;
mod meta;

mod kafka;
mod lease;
mod queue;

mod redis;
