//! The leader: one at a time, and its jobs.
