//! Short links: which code a recipient gets, and which recipient a code is.
//!
//! Codes need no coordination per message. Numbers are handed out in blocks, so a number is unique; a keyed permutation of
//! the numbers makes the codes unguessable, and being a permutation it keeps them unique.

/// The permutation, which preparation uses as well and which therefore lives with what all roles share.
pub use crate::runtime::short_code as code;

/// Whether a text is an address of the web: `http` or `https`, with a host. Nothing else is ever redirected to.
pub fn is_web_address(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
