//! The drill: a fleet of this machine's own sends a generated list to the simulator while its processes are killed, frozen and
//! stopped, and what the store says of every record is compared with what the list implies and what the simulator saw by number.
//!
//! [`plan`] draws from a seed who is struck when; [`guard`] refuses accounts that are not the drill's own simulator; [`ground`]
//! is where the fleet runs: over a folder, or over a cluster in a namespace of its own; [`worker`] is one of its processes;
//! [`open`] counts whom a strike may leave in doubt; [`run`] lets it all happen; [`verdict`] compares.
//!
//! Architecture invariant: the simulator lives in this process, which nothing strikes, and the verdict takes nothing but what
//! the list implies, what the simulator saw, and what the store says of each record.

pub mod guard;
pub mod plan;

pub mod ground;
pub mod worker;

pub mod open;
pub mod run;

pub mod verdict;

pub use self::run::{Drill, Wish, drill};
