//! The fleet as processes of their own over Kafka, ScyllaDB and Redis: each runs one role, and there may be any number of each.
//!
//! [`process`] is one process from its first attempt to reach the servers ([`servers`]) to its last answer: it serves its health
//! at once, waits for servers that are away, composes its role over the same edges as the embedded fleet ([`super::fleet`]),
//! writes a sheet about itself ([`sheets`]), holds sessions only while it has a slot where an account allows few ([`slots`]),
//! and drains in order. [`gateway`] is what the gateway adds: the API, receipts, short links. [`migrate`] makes tables and
//! topics, [`namespace`] sets a fleet apart from others on the same servers.
//!
//! Architecture invariant: nothing is decided here, and no stage knows that it runs in a cluster.

pub mod mark;
pub mod migrate;
pub mod namespace;
pub mod servers;

pub mod sheets;
pub mod slots;

pub mod gateway;
pub mod process;
