//! The store over CQL: ScyllaDB, or Apache Cassandra.
//!
//! Control rows (batch, range, ledger) change by conditional writes alone, each decided at SERIAL; data rows are written at
//! QUORUM without conditions and may be written twice. A request that was not answered is `Unknown` unless it certainly never
//! began. Bodies of rows are [`crate::adapters::rows`]', the same bytes as in a folder.
//!
//! Architecture invariant: what CQL is, and which server speaks it, is known in this folder only. It must not know what
//! the rows mean, nor wait for a server that is away: it makes one attempt and says precisely what failed.

pub mod config;
mod error;
mod tls;

pub mod session;
pub mod statement;

pub mod schema;
mod tables;
mod tables_service;

pub mod store;

mod key;

mod batch_list;
mod control;

mod bucket;
mod packs;
mod windows;

mod index;

mod meta;
mod retention;

mod merge;

mod parked;
mod receipts;
mod uncertain;

mod documents;
mod erasure;
mod journal;
mod links;
mod suppressions;

pub use self::config::ScyllaConfig;
pub use self::schema::{Report, check_schema, migrate, remove};
pub use self::session::Cql;
pub use self::store::{CqlOptions, CqlStore};
