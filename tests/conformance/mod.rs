//! One suite for each port, run over every implementation: whatever holds here, the stages may rest on.
//!
//! The store's suites run over the embedded folder and over memory. The queue's run over memory in
//! simulated time and over Kafka in real time. The lease has one implementation so far.

mod fixture;

mod control;
mod packs;
mod windows;

mod index;
mod receipts;

mod lists;
mod service;

mod disk;
mod erasure;
mod folder;
mod meta;

mod kafka;
mod lease;
mod queue;
