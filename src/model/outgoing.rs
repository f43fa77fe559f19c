//! A prepared message as an account sends it: signature, link and splitting by what the account can do. One function for
//! those who send, and for those who ask beforehand what it would come to.

use super::account::{Capabilities, LongMessage};
use super::batch::SmsBatch;
use super::code::Code;
use super::pack::Message;
use super::text::{compose, split};
use super::window::all_parts;

/// A message in the form of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The whole text.
    pub text: String,
    /// Parts that are handed over, as bits; 0 stands for all of them.
    pub parts: u32,
    /// Segments that the account will bill for these parts.
    pub segments: u32,
}

/// The message as an account with these capabilities sends it. `parts` are the parts still to send, as bits; 0 for all.
///
/// # Errors
/// [`Code::RowLinkForbidden`] and [`Code::NotEncodable`], with what stands against it; [`Code::PartiallySent`] when only some
/// parts are asked for and the account does not make such parts: another account took the others, and this one would send
/// what was taken.
pub fn outgoing(batch: &SmsBatch, can: &Capabilities, message: &Message, parts: u32) -> Result<Outgoing, (Code, &'static str)> {
    if message.link.is_some() && !can.links {
        return Err((Code::RowLinkForbidden, "no link per recipient"));
    }
    if batch.ext_code.len() > usize::from(can.ext_code_max) {
        return Err((Code::NotEncodable, "ext_code too long"));
    }
    let link = message.link.as_ref().map(|spot| (spot, batch.link_base.as_str()));
    let text = compose(&message.body, link, &batch.content_signature, can.add_signature);
    let split = split(&text, can.long_message);
    if split.parts > can.parts_max {
        return Err((Code::NotEncodable, "too many parts"));
    }
    let is_whole = can.long_message == LongMessage::Payload || split.parts < 2;
    if parts != 0 && (is_whole || parts & !all_parts(split.parts) != 0) {
        return Err((Code::PartiallySent, "the other parts went through another account"));
    }
    let segments = if parts == 0 { u32::from(split.parts) } else { parts.count_ones() };
    Ok(Outgoing { text, parts, segments: segments.max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Msisdn;

    #[test]
    fn an_account_makes_its_own_of_a_message() {
        let batch = SmsBatch { content_signature: "Shop".into(), ext_code: "007".into(), ..SmsBatch::new("l", "c", "p") };
        let body = "x".repeat(300);
        let message = Message { number: Msisdn(1), record: 0, line: 0, body, link: None, segments: 2, ucs2: false };
        let with = |change: fn(&mut Capabilities)| {
            let mut can = Capabilities::default();
            change(&mut can);
            can
        };
        // The signature makes it UCS-2: five parts of 67. An account that signs itself sends two of 153.
        let cases = [
            (with(|_| {}), 0, Ok((0, 5))),
            (with(|can| can.add_signature = false), 0, Ok((0, 2))),
            (with(|can| can.add_signature = false), 0b10, Ok((0b10, 1))),
            (with(|can| can.long_message = LongMessage::Payload), 0, Ok((0, 5))),
            // The rest of what another account took in parts: all of it would be sent again, or what it is not.
            (with(|can| can.long_message = LongMessage::Payload), 0b10, Err(Code::PartiallySent)),
            (with(|can| can.add_signature = false), 0b100, Err(Code::PartiallySent)),
            (with(|can| can.ext_code_max = 2), 0, Err(Code::NotEncodable)),
            (with(|can| can.parts_max = 4), 0, Err(Code::NotEncodable)),
        ];
        for (can, parts, expected) in cases {
            let made = outgoing(&batch, &can, &message, parts).map(|made| (made.parts, made.segments)).map_err(|(code, _)| code);
            assert_eq!(made, expected, "{can:?} {parts:b}");
        }
    }
}
