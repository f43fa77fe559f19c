//! Privacy: taking one person out of everything that is stored.
//!
//! [`erase`] empties what names a number wherever it stands, and leaves places, counts and outcomes as they are: a report
//! of a batch says the same before and after. What cannot be erased from here is named in its report, never passed over in
//! silence. What is stored about a number is found by `statistics::number`.
//!
//! Architecture invariant: this is the only stage that changes data rows of others, and only through `ports::erasure`.

pub mod erase;

pub use erase::{Eraser, ErasureReport, Left};
