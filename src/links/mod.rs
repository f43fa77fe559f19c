//! Short links: which code a recipient gets, where an opened one leads, and who opened it.
//!
//! Codes need no coordination per message. Numbers are handed out in blocks, so a number is unique; a keyed permutation of
//! the numbers makes the codes unguessable, and being a permutation it keeps them unique. An opened code goes the same way
//! back ([`redirect`]): code, number, block, batch, and there the long link with the campaign's parameters ([`target`]). The
//! opening is kept ([`clicks`]) behind the visitor's back: nobody waits for the store to be redirected.
//!
//! Architecture invariant: where a link leads is made from the batch and the configuration alone; nothing of a request ever
//! becomes part of it.

pub mod clicks;
pub mod redirect;
#[cfg(test)]
mod tests;

/// Where they lead, which is looked at when a batch is made; and the permutation, which preparation uses as well. What others use lives
/// with what all roles share.
pub use crate::runtime::link_target as target;
pub use crate::runtime::short_code as code;
pub use clicks::{ClickLog, ClickWriter};
pub use redirect::{Opened, Redirector, Settings, Visit};
pub use target::is_web_address;
