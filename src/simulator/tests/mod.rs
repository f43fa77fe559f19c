//! The simulator as its clients see it.

mod client;
mod faults;
mod http;
mod receipts;
mod sessions;
mod speed;
