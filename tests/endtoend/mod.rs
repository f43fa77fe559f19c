//! End to end: the binary as a user runs it.
