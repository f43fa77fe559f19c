//! Texts as the network counts them: the alphabet they fit, the parts they take, and the octets of each part.
//!
//! Counting is packing: an escape pair of GSM 03.38 and a surrogate pair of UTF-16 never straddle two parts, so the number of
//! parts is not a division.

mod cut;
pub mod gsm;
pub mod split;

pub use cut::beginning;
pub use split::{Encoded, Encoding, Part, Split, encode, split};

use super::pack::LinkSpot;

/// Puts a message together: the signature 【…】 once, the recipient's link at its spot, then the body. `signature` is given
/// without brackets and is left out when it is empty, when the provider adds it, or when the body begins with it already.
pub fn compose(body: &str, link: Option<(&LinkSpot, &str)>, signature: &str, add_signature: bool) -> String {
    let mut text = String::with_capacity(body.len() + signature.len() + 40);
    compose_into(&mut text, body, link, signature, add_signature);
    text
}

/// [`compose`] behind what `text` holds already: preparation counts millions of texts in one buffer.
pub fn compose_into(text: &mut String, body: &str, link: Option<(&LinkSpot, &str)>, signature: &str, add_signature: bool) {
    if add_signature && !signature.is_empty() && !begins_with_signature(body, signature) {
        text.push('【');
        text.push_str(signature);
        text.push('】');
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
}

fn begins_with_signature(body: &str, signature: &str) -> bool {
    let inner = body.trim_start().strip_prefix('【').and_then(|rest| rest.strip_prefix(signature));
    inner.is_some_and(|rest| rest.starts_with('】'))
}
