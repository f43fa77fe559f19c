//! Preparation: from a range of records to packs, and from packs to manifests.
//!
//! Architecture invariant: nothing here knows where records come from or how rows are stored, and nothing is random but the
//! nonces of control rows: the same range read twice makes the same packs (but for the numbers of short links).

// What is known before a record is read.
pub mod plan;

pub mod column;
pub mod flat;
pub mod number;
pub mod syntax;
pub mod template;

// From records to messages, and from messages to packs: pure.
pub mod recipe;

pub mod chunk;
pub mod samples;
pub mod shelves;

// The tasks.
pub mod tools;

pub mod range;
pub mod reading;
pub mod seal;
pub mod worker;
pub mod writes;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod tests;
