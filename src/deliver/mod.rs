//! From tokens to answers: partitions, lanes, windows, outcomes.
