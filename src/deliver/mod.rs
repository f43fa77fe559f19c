//! From tokens to answers: partitions, lanes, windows, outcomes.
//!
//! The worker owns the queue's `recv` and never waits for work ([`worker`]). For each lane it serves it runs one task
//! ([`lane`]) that owns the lane's ledger: it waits for its turn ([`turns`]), loads the next recipients ([`loader`]),
//! declares them as a window ([`declaring`]), and only then lets them be sent ([`window`]). A window that has ended is sorted out and
//! closed ([`ending`]); one that a dead owner left open is judged ([`judge`]).
//!
//! Architecture invariant: nothing is handed to an account but by [`window::run`], and that runs only after the declare
//! was applied. Answers are written by the window's own task, whoever owns the lane by then.

pub mod context;
mod counts;
pub mod declare;
mod declaring;
pub mod ending;
mod followed;
pub mod judge;
pub mod lane;
pub mod loader;
pub mod readings;
pub mod turns;
pub mod window;
pub mod worker;

pub use context::Delivery;
pub use worker::run;

#[cfg(test)]
mod checks_tests;
#[cfg(test)]
mod fake_ports;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod owners_tests;
#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod stops_tests;
