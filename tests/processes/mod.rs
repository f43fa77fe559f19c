//! The fleet as processes of their own over real servers: Kafka, Cassandra in ScyllaDB's place, Redis.
//!
//! These tests start several processes each and want the machine for themselves: `tests/run` runs them one after another, after
//! all others.

mod binds;
mod drill;
mod fleet;
mod gateway;
mod kills;
mod leader;
mod starts;
mod stood;
mod traced;
mod upgrade;
