//! Facts and decisions.
//!
//! Everything here is a pure function over plain values: no input or output, no clock, no randomness, no async. What a
//! function needs to know of the world comes in as an argument, so every decision of the fleet can be tested as a table.
//!
//! Architecture invariant: nothing in this folder names a technology, and nothing outside `std` and `serde` is used.

pub mod access;
pub mod account;
pub mod answer;
pub mod backlog;
pub mod batch;
pub mod click;
pub mod code;
pub mod fence;
pub mod fleet;
pub mod growing;
pub mod hex;
pub mod id;
pub mod idform;
pub mod inbound;
pub mod lane;
pub mod ledger;
pub mod let_go;
pub mod limits;
pub mod order;
pub mod outcome;
pub mod outgoing;
pub mod pack;
pub mod rate;
pub mod rate_shared;
pub mod receipt;
pub mod record;
pub mod report;
pub mod schedule;
pub mod seat;
pub mod slot;
pub mod state;
pub mod step;
pub mod task;
pub mod text;
pub mod throughput;
pub mod time;
pub mod trace;
pub mod turn;
pub mod webhook;
pub mod window;
