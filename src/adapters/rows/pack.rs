//! Packs as columns: the small ones in a row of their own, so that the seal and the windows never read the texts.

use serde::{Deserialize, Serialize};

use super::column::{Texts, bit, bits, deltas, sums};
use super::frame::{block, corrupt, read_block};
use crate::model::id::Msisdn;
use crate::model::limits::PACK_RECIPIENTS_MAX;
use crate::model::pack::{LinkSpot, Message, PackHead, SmsDeliveryPack};
use crate::ports::StoreError;

const HEAD: &str = "pack head";
const TEXTS: &str = "pack";
/// A pack with more messages than this was never written: in memory each is a hundred times larger than an empty one is here.
const MESSAGES_MAX: usize = 64 * PACK_RECIPIENTS_MAX;

#[derive(Serialize, Deserialize)]
struct HeadColumns {
    numbers: Vec<i64>,
    records: Vec<i64>,
    segments: Vec<u8>,
    ucs2: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct TextColumns {
    lines: Vec<i64>,
    bodies: Texts,
    links: Vec<LinkColumn>,
    codes: Texts,
}

#[derive(Serialize, Deserialize)]
struct LinkColumn {
    message: u32,
    at: u32,
}

/// Writes a pack: its head and its texts.
pub fn write(pack: &SmsDeliveryPack) -> (Vec<u8>, Vec<u8>) {
    let messages = &pack.messages;
    let head = HeadColumns {
        numbers: deltas(messages.iter().map(|m| m.number.0)),
        records: deltas(messages.iter().map(|m| m.record)),
        segments: messages.iter().map(|m| m.segments).collect(),
        ucs2: bits(messages.iter().map(|m| m.ucs2)),
    };
    let linked = || messages.iter().enumerate().filter_map(|(at, m)| m.link.as_ref().map(|link| (at, link)));
    let texts = TextColumns {
        // A line follows its record closely: their distance is nearly always the same.
        lines: deltas(messages.iter().map(|m| m.line.wrapping_sub(m.record))),
        bodies: messages.iter().map(|m| m.body.as_str()).collect(),
        links: linked().map(|(at, link)| LinkColumn { message: at as u32, at: link.at }).collect(),
        codes: linked().map(|(_, link)| link.code.as_str()).collect(),
    };
    (block(&head), block(&texts))
}

/// Reads the head of a pack.
pub fn read_head(bytes: &[u8]) -> Result<PackHead, StoreError> {
    let columns: HeadColumns = read_block(HEAD, bytes)?;
    let count = columns.numbers.len();
    if count > MESSAGES_MAX {
        return Err(corrupt(HEAD, "it holds more messages than a pack does"));
    }
    if columns.records.len() != count || columns.segments.len() != count || columns.ucs2.len() != count.div_ceil(8) {
        return Err(corrupt(HEAD, "its columns differ in length"));
    }
    Ok(PackHead {
        numbers: sums(&columns.numbers),
        records: sums(&columns.records),
        segments: columns.segments,
        ucs2: (0..count).filter_map(|at| bit(&columns.ucs2, at)).collect(),
    })
}

/// Reads a whole pack from its two rows.
pub fn read(head: &[u8], texts: &[u8]) -> Result<SmsDeliveryPack, StoreError> {
    let head = read_head(head)?;
    let texts: TextColumns = read_block(TEXTS, texts)?;
    let lines = sums(&texts.lines);
    let count = head.numbers.len();
    let bodies: Vec<&str> = texts.bodies.iter().collect();
    if lines.len() != count || bodies.len() != count || texts.links.len() != texts.codes.len() {
        return Err(corrupt(TEXTS, "its columns differ in length"));
    }
    let mut messages: Vec<Message> = (0..count)
        .map(|at| Message {
            number: Msisdn(head.numbers[at]),
            record: head.records[at],
            line: lines[at].wrapping_add(head.records[at]),
            body: bodies[at].to_owned(),
            link: None,
            segments: head.segments[at],
            ucs2: head.ucs2[at],
        })
        .collect();
    for (link, code) in texts.links.iter().zip(texts.codes.iter()) {
        let message = messages.get_mut(link.message as usize).ok_or_else(|| corrupt(TEXTS, "a link has no message"))?;
        message.link = Some(LinkSpot { at: link.at, code: code.to_owned() });
    }
    Ok(SmsDeliveryPack { messages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64, record: u64, body: &str, link: Option<(u32, &str)>) -> Message {
        Message {
            number: Msisdn(number),
            record,
            line: record + 2,
            body: body.into(),
            link: link.map(|(at, code)| LinkSpot { at, code: code.into() }),
            segments: 1,
            ucs2: !body.is_ascii(),
        }
    }

    fn some() -> SmsDeliveryPack {
        SmsDeliveryPack {
            messages: vec![
                message(8_613_800_138_000, 5, "hello", None),
                message(8_613_800_138_007, 2, "数字", Some((3, "Ab3"))),
                message(8_613_800_138_007, 9, "", None),
            ],
        }
    }

    #[test]
    fn packs_read_back() {
        for pack in [SmsDeliveryPack::default(), some()] {
            let (head, texts) = write(&pack);
            assert_eq!(read_head(&head), Ok(pack.head()));
            assert_eq!(read(&head, &texts), Ok(pack));
        }
    }

    #[test]
    fn the_form_is_the_one_that_is_stored() {
        let (head, texts) = write(&some());
        assert_eq!(hex(&head[9..]), "001400000003a0d4fae7b1f5030e00030a050e030101010102");
        let lines_and_bodies = "0304000003050600".to_owned() + "0b" + &hex("hello数字".as_bytes());
        let links = "010103".to_owned() + "0103" + "03" + &hex(b"Ab3");
        assert_eq!(hex(&texts[9..]), "001d000000".to_owned() + &lines_and_bodies + &links);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_pack_with_more_messages_than_any_is_damaged() {
        let most = SmsDeliveryPack { messages: vec![message(1, 1, "", None); MESSAGES_MAX] };
        assert_eq!(read_head(&write(&most).0), Ok(most.head()));
        let more = SmsDeliveryPack { messages: vec![message(1, 1, "", None); MESSAGES_MAX + 1] };
        assert!(matches!(read_head(&write(&more).0), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn rows_of_two_packs_do_not_go_together() {
        let (head, _) = write(&some());
        let (_, texts) = write(&SmsDeliveryPack::default());
        assert!(matches!(read(&head, &texts), Err(StoreError::Corrupt(_))));
    }
}
