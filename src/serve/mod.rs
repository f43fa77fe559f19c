//! HTTP for programs and the local socket for the command line: one surface, whoever asks.
//!
//! A process that holds the data folder serves it on a socket in the folder. When no process does, the command line opens
//! the folder and calls the same router in its own process, so there is one set of answers.
//!
//! Architecture invariant: no adapter is named here. What only a composer knows comes in through [`fleet`].

pub mod access;
pub mod api;
pub mod callbacks;
pub mod client;
pub mod extract;
#[cfg(test)]
pub(crate) mod fakes;
pub mod fleet;
mod flight;
pub mod guard;
pub mod health;
mod heard;
pub mod links;
pub mod listen;
pub mod listing;
mod places;
pub mod problem;
mod revoked;
pub mod router;
pub mod socket;
pub mod views;
