//! Short links: which code a recipient gets, and which recipient a code is.
//!
//! Codes need no coordination per message. Numbers are handed out in blocks, so a number is unique; a keyed permutation of
//! the numbers makes the codes unguessable, and being a permutation it keeps them unique.
//!
//! Architecture invariant: a leaf. `prepare` and the server of links use it; it uses no other stage.

pub mod code;
