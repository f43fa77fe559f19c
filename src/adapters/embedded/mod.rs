//! The embedded store: one durable folder over redb, with group commit.
//!
//! The ports are written once, over a small key-value engine (`engine`), and serve both the folder and the memory store.
//!
//! Architecture invariant: only `engine` knows redb.

pub mod store;

pub mod folder;

pub mod keyed;

pub mod index;

pub mod engine;

pub use self::store::{EmbeddedStore, StoreOptions};
