//! Live counts as a cache, and the recount that is the truth.
