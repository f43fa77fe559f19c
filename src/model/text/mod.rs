//! Texts as the network counts them: the alphabet they fit, the parts they take, and the octets of each part.
//!
//! Counting is packing: an escape pair of GSM 03.38 and a surrogate pair of UTF-16 never straddle two parts, so the number of
//! parts is not a division.

pub mod gsm;
pub mod split;

pub use split::{Encoded, Encoding, Part, Split, encode, split};

use super::pack::LinkSpot;

/// Puts a message together: the signature 【…】 once, the recipient's link at its spot, then the body. `signature` is given
/// without brackets and is left out when it is empty, when the provider adds it, or when the body begins with it already.
pub fn compose(body: &str, link: Option<(&LinkSpot, &str)>, signature: &str, add_signature: bool) -> String {
    let mut text = String::with_capacity(body.len() + signature.len() + 40);
    if add_signature && !signature.is_empty() {
        let placed = format!("【{signature}】");
        if !body.trim_start().starts_with(&placed) {
            text.push_str(&placed);
        }
    }
    match link {
        Some((spot, base)) if body.is_char_boundary(spot.at as usize) => {
            let (before, after) = body.split_at(spot.at as usize);
            text.push_str(before);
            text.push_str(base);
            text.push_str(&spot.code);
            text.push_str(after);
        }
        _ => text.push_str(body),
    }
    text
}
