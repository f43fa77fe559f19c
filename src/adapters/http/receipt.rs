//! Receipts that an HTTP provider pushes.

use reqwest::Url;
use serde_json::Value;

use super::config::ReceiptConfig;
use super::value::{check_pointer, text_at, text_of};
use crate::adapters::vendor::number;
use crate::model::code::{Code, Fault};
use crate::model::limits::{MESSAGE_ID_MAX, RECEIPT_CHARS_MAX};
use crate::model::receipt::{Report, Rung};
use crate::model::text::beginning;
use crate::model::time::Timestamp;

/// Refuses places and words that cannot be.
pub fn check(config: &ReceiptConfig) -> Result<(), Fault> {
    let places =
        [Some(&config.items), config.id.as_ref(), config.reference.as_ref(), config.number.as_ref(), Some(&config.status)];
    for place in places.into_iter().chain([config.done.as_ref(), config.error.as_ref()]).flatten() {
        check_pointer(place, "receipts")?;
    }
    let refuse = |what: String| Err(Fault::new(Code::ConfigInvalid, format!("http account: receipts: {what}")));
    if config.token.is_empty() {
        return refuse("a token is needed, else anybody could say what was delivered".into());
    }
    if config.id.is_none() && config.reference.is_none() {
        return refuse("the place of the id or of the reference is needed".into());
    }
    match config.statuses.iter().find(|(_, meaning)| Rung::from_stat(meaning).is_none()) {
        Some((word, meaning)) => refuse(format!("{word:?} means {meaning:?}, which is no word of SMPP")),
        None => Ok(()),
    }
}

/// The receipts of one push: all of them, or a fault that says which one cannot be read.
pub fn read(config: &ReceiptConfig, body: &[u8], content_type: &str, received: Timestamp) -> Result<Vec<Report>, Fault> {
    let refuse = |what: String| Fault::new(Code::InputInvalid, format!("receipts: {what}"));
    let value = parse(body, content_type).map_err(&refuse)?;
    let items = match value.pointer(&config.items) {
        Some(Value::Array(items)) => items.as_slice(),
        Some(item @ Value::Object(_)) => std::slice::from_ref(item),
        _ => return Err(refuse("they are not where they should be".into())),
    };
    let read = |(at, item)| report(config, item, received).map_err(|what| refuse(format!("{what} in receipt {at}")));
    items.iter().enumerate().map(read).collect()
}

/// Characters of a reference that are kept: far more than any of ours has.
const REFERENCE_MAX: usize = 128;

fn report(config: &ReceiptConfig, item: &Value, received: Timestamp) -> Result<Report, &'static str> {
    let id = text_of(item, config.id.as_ref());
    let reference = text_of(item, config.reference.as_ref());
    if id.is_none() && reference.is_none() {
        return Err("no id");
    }
    let word = text_at(item, &config.status).ok_or("no status")?;
    let meaning = config.statuses.get(&word).unwrap_or(&word);
    Ok(Report {
        message_id: beginning(&id.unwrap_or_default(), MESSAGE_ID_MAX).to_owned(),
        number: text_of(item, config.number.as_ref()).and_then(|text| number(&text)),
        reference: reference.map(|reference| beginning(&reference, REFERENCE_MAX).to_owned()),
        rung: Rung::from_stat(meaning).unwrap_or(Rung::EnRoute),
        done: text_of(item, config.done.as_ref()).and_then(|text| seconds(&text)),
        error: beginning(&text_of(item, config.error.as_ref()).unwrap_or_default(), MESSAGE_ID_MAX).to_owned(),
        raw: beginning(&item.to_string(), RECEIPT_CHARS_MAX).to_owned(),
        received,
    })
}

/// What was pushed, as JSON; or what is wrong with it.
pub(super) fn parse(body: &[u8], content_type: &str) -> Result<Value, String> {
    if content_type.to_ascii_lowercase().contains("form-urlencoded") {
        return form(body).ok_or_else(|| "the form cannot be read".into());
    }
    serde_json::from_slice(body).map_err(|error| format!("no JSON at line {}, column {}", error.line(), error.column()))
}

/// A form as a JSON object.
fn form(body: &[u8]) -> Option<Value> {
    let mut url = Url::parse("form://form").ok()?;
    url.set_query(Some(std::str::from_utf8(body).ok()?));
    Some(Value::Object(url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()))
}

/// A date as seconds since 1970; without a zone it is taken as UTC.
fn seconds(text: &str) -> Option<i64> {
    use jiff::civil::DateTime;
    let utc = |date: DateTime| jiff::tz::TimeZone::UTC.to_timestamp(date).ok().map(jiff::Timestamp::as_second);
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return match text.len() {
            14 => DateTime::strptime("%Y%m%d%H%M%S", text).ok().and_then(utc),
            13 => text.parse::<i64>().ok().map(|milliseconds| milliseconds / 1_000),
            _ => text.parse().ok(),
        };
    }
    let with_zone = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second);
    with_zone.or_else(|| text.parse::<DateTime>().ok().and_then(utc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::secret::Secret;
    use crate::model::id::Msisdn;
    use crate::model::receipt::Ending;

    fn config() -> ReceiptConfig {
        ReceiptConfig {
            token: Secret::new("t"),
            number: Some("/to".into()),
            reference: Some("/ref".into()),
            done: Some("/at".into()),
            error: Some("/err".into()),
            statuses: [("sent".into(), "ACCEPTD".into()), ("bounced".into(), "UNDELIV".into())].into(),
            ..ReceiptConfig::default()
        }
    }

    #[test]
    fn json_and_forms_one_and_many() {
        let json = "application/json; charset=utf-8";
        let cases = [
            (
                json,
                r#"[{"id":1,"status":"delivered","to":"+44771234","at":1767367860,"err":0}]"#,
                Rung::Delivered,
                Some(1_767_367_860),
                "0",
            ),
            (
                json,
                r#"{"id":"1","status":"bounced","to":"44771234","at":"2026-01-02T16:31:00+01:00"}"#,
                Rung::Ended(Ending::Failed),
                Some(1_767_367_860),
                "",
            ),
            (
                json,
                r#"{"id":"1","status":"sent","to":"44771234","at":"2026-01-02 15:31:00"}"#,
                Rung::AcceptedByNetwork,
                Some(1_767_367_860),
                "",
            ),
            (
                json,
                r#"{"id":"1","status":"whatever","to":"44771234","at":"20260102153100"}"#,
                Rung::EnRoute,
                Some(1_767_367_860),
                "",
            ),
            (
                "application/x-www-form-urlencoded",
                "id=1&status=DELIVRD&to=%2B44771234&at=1767367860123&err=E+1",
                Rung::Delivered,
                Some(1_767_367_860),
                "E 1",
            ),
        ];
        for (kind, body, rung, done, error) in cases {
            let reports = read(&config(), body.as_bytes(), kind, Timestamp(5)).expect(body);
            assert_eq!(reports.len(), 1);
            let report = &reports[0];
            assert_eq!((report.message_id.as_str(), report.number, report.rung), ("1", Some(Msisdn(44_771_234)), rung), "{body}");
            assert_eq!((report.done, report.error.as_str(), report.received), (done, error, Timestamp(5)), "{body}");
        }
    }

    #[test]
    fn all_or_nothing() {
        let bad = [
            r#"[{"id":"1","status":"DELIVRD"},{"status":"DELIVRD"}]"#,
            r#"[{"id":"1","status":"DELIVRD"},{"id":"2"}]"#,
            r#"[{"id":"1","status":"DELIVRD"},7]"#,
            r#"{"id":"1","status":"DELIVRD""#,
            "7",
        ];
        for body in bad {
            let fault = read(&config(), body.as_bytes(), "application/json", Timestamp(0)).expect_err(body);
            assert_eq!(fault.code, Code::InputInvalid);
        }
        assert_eq!(read(&config(), b"[]", "application/json", Timestamp(0)), Ok(vec![]));
        let by_reference =
            read(&config(), br#"{"ref":"k-1","status":"DELIVRD"}"#, "application/json", Timestamp(0)).expect("it is enough");
        assert_eq!(by_reference[0].reference.as_deref(), Some("k-1"));
    }

    #[test]
    fn what_is_kept_of_a_receipt_is_bounded() {
        let long = "é".repeat(1 << 20);
        let body = serde_json::json!({ "id": long, "ref": long, "status": "DELIVRD", "err": long, "to": long }).to_string();
        let report = read(&config(), body.as_bytes(), "application/json", Timestamp(0)).expect("it can be read").remove(0);
        let reference = report.reference.as_deref().map(|reference| reference.chars().count());
        assert_eq!(
            (report.message_id.chars().count(), reference, report.error.chars().count(), report.raw.chars().count()),
            (MESSAGE_ID_MAX, Some(REFERENCE_MAX), MESSAGE_ID_MAX, RECEIPT_CHARS_MAX)
        );
        assert_eq!(report.number, None);
    }

    #[test]
    fn mistakes_are_found_before_anything_is_taken() {
        assert!(check(&config()).is_ok());
        let bad: [fn(&mut ReceiptConfig); 4] = [
            |c| c.token = Secret::default(),
            |c| c.status = "status".into(),
            |c| (c.id, c.reference) = (None, None),
            |c| _ = c.statuses.insert("x".into(), "ARRIVED".into()),
        ];
        for (at, change) in bad.iter().enumerate() {
            let mut config = config();
            change(&mut config);
            assert_eq!(check(&config).map_err(|fault| fault.code), Err(Code::ConfigInvalid), "case {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_octets_stop_the_reader(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&config(), &body, "application/json", Timestamp(0));
            let _ = read(&config(), &body, "application/x-www-form-urlencoded", Timestamp(0));
        }
    }
}
