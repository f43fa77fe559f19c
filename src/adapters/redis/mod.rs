//! The leader's lock, the accounts' rates, the live counts and the store's write budget over Redis or Valkey, on one server,
//! behind Sentinel or on a Cluster.
//!
//! Every command is one named script of the folder `lua/`, so that what it does happens as a whole, and by the server's clock
//! where time counts. All keys of one script carry the same hash tag. Commands travel over one multiplexed connection that is
//! made again when it breaks: none of them blocks, and a pool would pay a PING for each loan; deadpool's pools for Sentinel
//! and Cluster take no certificate authorities either.
//!
//! Architecture invariant: Redis holds nothing that cannot be rebuilt. It knows nothing of batches' states, tokens or
//! recipients; whoever flushes it costs the fleet a moment of waiting and a few figures on a screen.

pub mod config;

pub mod client;
mod trouble;

pub mod scripts;

pub mod lease;

mod credit;
pub mod rates;

pub mod tallies;

pub mod budget;
