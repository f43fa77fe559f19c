//! From records to sealed lanes: ranges, read, render, pack, store, seal.
