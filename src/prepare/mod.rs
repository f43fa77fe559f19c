//! Preparation: from a range of records to packs, and from packs to manifests.
//!
//! Architecture invariant: nothing here knows where records come from or how rows are stored, and nothing is random but the
//! nonces of control rows: the same range read twice makes the same packs (but for the numbers of short links).

pub mod plan;

pub mod column;
pub mod number;
pub mod syntax;
pub mod template;

pub mod chunk;
pub mod recipe;
pub mod samples;
pub mod shelves;
