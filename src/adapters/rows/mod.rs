//! How rows are written: a version byte, then the row. Shared by every store adapter.
//!
//! Control rows are JSON behind a fixed head, so that people can read them and fields may be added at any depth. Data rows
//! are postcard, large ones compressed and checksummed. Each stored form is a struct of its own, apart from the model's, so
//! that a change of the model cannot change what is on disk without anybody noticing; the golden bytes in the tests hold
//! the forms in place.
//!
//! Version N reads what N + 1 adds: fields behind the last one of a data row, any field of a control row. A row of an older
//! form than the oldest known is an error, never a guess.
//!
//! A checksum says that a row is what was written, and JSON has none: so what a row says is compared with what can be. A length, a
//! place, a part or a count that nobody writes is refused here, or by the model's own reading of a control row, and whoever works
//! with what was read may add, shift, index and make room by it.
//!
//! With the feature `next-formats` rows are written as the next version might write them, for the test that rolls a fleet from this
//! one to that one and back.
//!
//! Architecture invariant: no store is named here. The functions are pure; they run on whoever calls, in parallel.

pub mod key;

pub mod control;
pub mod frame;
#[cfg(any(test, feature = "next-formats"))]
pub mod next;

pub mod manifest;
pub mod pack;
pub mod reject;

pub mod receipt;
pub mod window;

pub mod code;
pub mod column;
