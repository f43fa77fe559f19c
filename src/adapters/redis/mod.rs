//! The lease, the rates, the live counts and the write budget over Redis.
