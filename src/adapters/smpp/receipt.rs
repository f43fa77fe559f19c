//! Receipts of SMPP: parameters first, then the text of appendix B, read leniently.
//!
//! The text is "vendor specific" by the standard's own words. Its fields are found by name, in any order and any case. A
//! `stat` word that nobody knows, without a `message_state` beside it, stands for the ending UNKNOWN: it is final for want of
//! better, and a later DELIVRD still wins; in an intermediate notification it stands for ENROUTE.

use super::lenient::{Delivered, latin1};
use crate::adapters::vendor::number;
use crate::model::limits::{MESSAGE_ID_MAX, RECEIPT_CHARS_MAX};
use crate::model::receipt::{Ending, Report, Rung};
use crate::model::text::beginning;
use crate::model::time::Timestamp;

/// The report that a receipt makes. Its id is empty when the receipt has none: it will match nothing, and stays visible.
pub fn report(delivered: &Delivered, received: Timestamp) -> Report {
    let text = decode(delivered);
    let fields = Fields::read(&text);
    let rung = delivered
        .message_state
        .and_then(Rung::from_message_state)
        .or_else(|| fields.stat.and_then(Rung::from_stat))
        .unwrap_or(if delivered.is_intermediate() { Rung::EnRoute } else { Rung::Ended(Ending::Unknown) });
    let message_id = delivered.receipted_message_id.as_deref().or(fields.id).unwrap_or_default();
    let error = match delivered.network_error {
        Some((Some(kind), code)) => format!("{kind}:{code}"),
        Some((None, code)) => code.to_string(),
        None => beginning(fields.err.unwrap_or_default(), MESSAGE_ID_MAX).to_owned(),
    };
    Report {
        message_id: beginning(message_id.trim(), MESSAGE_ID_MAX).to_owned(),
        number: number(&delivered.source),
        reference: None,
        rung,
        done: fields.done.and_then(seconds),
        error,
        raw: raw(&text, delivered),
        received,
    }
}

fn decode(delivered: &Delivered) -> String {
    let octets = &delivered.text[..];
    // Some SMSCs send receipts in UCS-2; others say so and send ASCII all the same.
    let wide = delivered.data_coding & 0x0C == 0x08 && octets.len() >= 2 && octets[0] == 0;
    if wide {
        let units: Vec<u16> = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return String::from_utf16_lossy(&units);
    }
    match std::str::from_utf8(octets) {
        Ok(text) => text.trim_end_matches('\0').to_owned(),
        Err(_) => latin1(octets),
    }
}

/// The text, with what the parameters say behind it. A PDU may be a hundred times longer than any receipt, and thousands of
/// receipts wait for a slow store: what no receipt has is not kept.
fn raw(text: &str, delivered: &Delivered) -> String {
    let mut text = beginning(text, RECEIPT_CHARS_MAX).to_owned();
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&format!("[{name}={value}]"));
    };
    if let Some(id) = &delivered.receipted_message_id {
        add("receipted_message_id", &beginning(id, RECEIPT_CHARS_MAX));
    }
    if let Some(state) = delivered.message_state {
        add("message_state", &state);
    }
    text
}

#[derive(Debug, Default)]
struct Fields<'a> {
    id: Option<&'a str>,
    stat: Option<&'a str>,
    done: Option<&'a str>,
    err: Option<&'a str>,
}

/// Names of fields, as SMSCs spell them, in lower case; the longer before the shorter.
const NAMES: [(&str, Name); 12] = [
    ("submit date", Name::Other),
    ("submit_date", Name::Other),
    ("submitdate", Name::Other),
    ("done date", Name::Done),
    ("done_date", Name::Done),
    ("donedate", Name::Done),
    ("dlvrd", Name::Other),
    ("stat", Name::Stat),
    ("text", Name::Text),
    ("sub", Name::Other),
    ("err", Name::Err),
    ("id", Name::Id),
];

#[derive(Clone, Copy, PartialEq)]
enum Name {
    Id,
    Stat,
    Done,
    Err,
    Text,
    Other,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Fields<'a> {
        let mut fields = Fields::default();
        let mut rest = text;
        let mut seen = false;
        while !rest.is_empty() {
            let Some((name, after)) = field(rest) else {
                rest = next_word(rest);
                continue;
            };
            // The text of the message comes last, and may hold anything, also what looks like a field.
            if name == Name::Text && seen {
                break;
            }
            seen = true;
            let after = after.trim_start();
            // An empty value is followed by the next name.
            let value = if field(after).is_some() { "" } else { word(after) };
            let slot = match name {
                Name::Id => &mut fields.id,
                Name::Stat => &mut fields.stat,
                Name::Done => &mut fields.done,
                Name::Err => &mut fields.err,
                Name::Text | Name::Other => &mut None,
            };
            if slot.is_none() && !value.is_empty() {
                *slot = Some(value);
            }
            rest = &after[value.len()..];
            rest = rest.trim_start_matches([' ', ',', ';', '\t', '\r', '\n']);
        }
        fields
    }
}

/// The field that begins here, and what follows its colon.
fn field(text: &str) -> Option<(Name, &str)> {
    NAMES.iter().find_map(|(name, kind)| {
        let head = text.get(..name.len())?;
        let after = text[name.len()..].trim_start_matches(' ').strip_prefix([':', '='])?;
        head.eq_ignore_ascii_case(name).then_some((*kind, after))
    })
}

fn word(text: &str) -> &str {
    &text[..text.find([' ', ',', ';', '\t', '\r', '\n', '\0']).unwrap_or(text.len())]
}

fn next_word(text: &str) -> &str {
    match text.find([' ', ',', ';', '\t', '\r', '\n', '\0']) {
        Some(at) => text[at..].trim_start_matches([' ', ',', ';', '\t', '\r', '\n', '\0']),
        None => "",
    }
}

/// A date of a receipt as seconds since 1970, taken as UTC: `YYMMDDhhmm`, with seconds, or with the century.
fn seconds(date: &str) -> Option<i64> {
    if !date.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| date.get(at..at + 2)?.parse::<i8>().ok();
    let instant = |year: i16, at: usize, seconds: i8| {
        let date = jiff::civil::DateTime::new(year, two(at)?, two(at + 2)?, two(at + 4)?, two(at + 6)?, seconds, 0).ok()?;
        Some(jiff::tz::TimeZone::UTC.to_timestamp(date).ok()?.as_second())
    };
    let short_year = || Some(2_000 + i16::from(two(0)?));
    let long_year = || date.get(..4)?.parse::<i16>().ok();
    match date.len() {
        10 => instant(short_year()?, 2, 0),
        12 => instant(short_year()?, 2, two(10)?).or_else(|| instant(long_year()?, 4, 0)),
        14 => instant(long_year()?, 4, two(12)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Msisdn;

    fn text_receipt(text: &str) -> Delivered {
        Delivered { esm_class: 4, source: "4915112345678".into(), text: text.as_bytes().to_vec(), ..Delivered::default() }
    }

    #[test]
    fn receipts_of_many_smscs_are_read() {
        let delivered = Rung::Delivered;
        let ended = Rung::Ended;
        let cases = [
            (
                "id:0123456789 sub:001 dlvrd:001 submit date:2601021530 done date:2601021531 stat:DELIVRD err:000 text:Hello",
                ("0123456789", delivered, Some(1_767_367_860), "000"),
            ),
            (
                "id:0a1b2c3d-44 sub:001 dlvrd:001 submit date:260102153000 done date:260102153105 stat:DELIVRD err:000 Text:",
                ("0a1b2c3d-44", delivered, Some(1_767_367_865), "000"),
            ),
            (
                "id:77 submit date:20260102153000 done date:20260102153105 stat:EXPIRED err:EC_ABSENT",
                ("77", ended(Ending::Expired), Some(1_767_367_865), "EC_ABSENT"),
            ),
            (
                "ID:77 SUB:001 DLVRD:000 SUBMIT DATE:202601021530 DONE DATE:202601021531 STAT:undeliv ERR:1B",
                ("77", ended(Ending::Failed), Some(1_767_367_860), "1B"),
            ),
            ("stat:DELIVRD id:77 done date:0 err:", ("77", delivered, None, "")),
            ("id:77 stat:REJECTD err: text:id:88 stat:DELIVRD", ("77", ended(Ending::Rejected), None, "")),
            ("id: 77 stat: ACCEPTD err: 5", ("77", Rung::AcceptedByNetwork, None, "5")),
            ("id:77,sub:1,stat:DELETED,err:69", ("77", ended(Ending::Deleted), None, "69")),
            ("id:77 donedate:2601021531 stat:MA:0001 err:0", ("77", ended(Ending::Unknown), Some(1_767_367_860), "0")),
            ("id=77 stat=ENROUTE", ("77", Rung::EnRoute, None, "")),
            ("message 12 id:77 stat:DELIVRD", ("77", delivered, None, "")),
            ("id:77 dlvrd:001 done date:2699999999 stat:DELIVRD\0", ("77", delivered, None, "")),
            ("nothing that anybody knows", ("", ended(Ending::Unknown), None, "")),
            ("", ("", ended(Ending::Unknown), None, "")),
        ];
        for (text, (id, rung, done, error)) in cases {
            let report = report(&text_receipt(text), Timestamp(9));
            assert_eq!(
                (report.message_id.as_str(), report.rung, report.done, report.error.as_str()),
                (id, rung, done, error),
                "{text}"
            );
            assert_eq!(report.number, Some(Msisdn(4_915_112_345_678)));
        }
    }

    #[test]
    fn parameters_win_over_the_text() {
        let mut receipt = text_receipt("id:77 stat:UNDELIV err:001");
        receipt.receipted_message_id = Some("4d".into());
        receipt.message_state = Some(2);
        receipt.network_error = Some((Some(3), 0x0C));
        let read = report(&receipt, Timestamp(0));
        assert_eq!((read.message_id.as_str(), read.rung, read.error.as_str()), ("4d", Rung::Delivered, "3:12"));
        assert!(read.raw.starts_with("id:77") && read.raw.contains("4d"), "all of it is kept: {}", read.raw);
        receipt.message_state = Some(99);
        assert_eq!(report(&receipt, Timestamp(0)).rung, Rung::Ended(Ending::Failed), "an unknown state is no state");
    }

    #[test]
    fn a_receipt_that_is_none_by_its_length_is_cut_between_characters() {
        let mut receipt = text_receipt("");
        receipt.data_coding = 8;
        let text = format!("id:77 err:{} stat:DELIVRD {}", "9".repeat(5_000), "短".repeat(30_000));
        receipt.text = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        receipt.receipted_message_id = Some("é".repeat(60_000));
        receipt.message_state = Some(2);
        let read = report(&receipt, Timestamp(0));
        assert_eq!((read.rung, read.error.len()), (Rung::Delivered, MESSAGE_ID_MAX));
        assert_eq!(read.message_id.chars().count(), MESSAGE_ID_MAX);
        let kept = read.raw.chars().count();
        assert!(kept <= 2 * RECEIPT_CHARS_MAX + 64, "{kept} characters are kept");
        assert!(read.raw.starts_with("id:77 err:999") && read.raw.ends_with("[message_state=2]"), "all kinds of it are kept");
    }

    #[test]
    fn an_intermediate_notification_is_never_the_last_word() {
        let mut receipt = text_receipt("id:77 stat:WHATEVER");
        receipt.esm_class = 0x20;
        assert_eq!(report(&receipt, Timestamp(0)).rung, Rung::EnRoute);
    }

    #[test]
    fn wide_and_accented_texts_are_read() {
        let mut receipt = text_receipt("");
        receipt.text = "id:77 stat:DELIVRD text:短信".encode_utf16().flat_map(u16::to_be_bytes).collect();
        receipt.data_coding = 8;
        assert_eq!(report(&receipt, Timestamp(0)).message_id, "77");
        receipt.text = b"id:77 stat:DELIVRD text:\xE9t\xE9".to_vec();
        assert_eq!(report(&receipt, Timestamp(0)).raw, "id:77 stat:DELIVRD text:été");
    }

    proptest::proptest! {
        #[test]
        fn no_text_stops_the_reader(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200), words in "(id|stat|done date|text|:| |é|0|9){0,30}") {
            let mut receipt = text_receipt(&words);
            report(&receipt, Timestamp(0));
            receipt.text = octets;
            report(&receipt, Timestamp(0));
        }
    }
}
