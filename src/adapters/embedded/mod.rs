//! The embedded store: one durable folder over redb, with group commit.
