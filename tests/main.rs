//! The one integration test binary. Each folder is a kind of proof; see `tests/README` lines in each `mod.rs`.

mod conformance;
mod endtoend;
mod hostile;
mod layout;
mod power;
mod processes;
mod properties;
#[allow(dead_code)]
mod servers;
mod simulation;
mod sources;
mod text;
