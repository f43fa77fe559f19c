//! The store over CQL: ScyllaDB, or Apache Cassandra.
