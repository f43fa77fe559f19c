//! An erasure over the store in memory.
