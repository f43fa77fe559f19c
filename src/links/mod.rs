//! Short links: which code a recipient gets, and which recipient a code is.
//!
//! Codes need no coordination per message. Numbers are handed out in blocks, so a number is unique; a keyed permutation of
//! the numbers makes the codes unguessable, and being a permutation it keeps them unique.

/// The permutation, which preparation uses as well and which therefore lives with what all roles share.
pub use crate::runtime::short_code as code;
