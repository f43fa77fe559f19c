//! Messages of people that an HTTP provider pushes.

use serde_json::Value;

use super::config::InboundConfig;
use super::receipt::parse;
use super::value::{check_pointer, text_at, text_of};
use crate::model::code::{Code, Fault};
use crate::model::inbound::Inbound;
use crate::model::limits::{ADDRESS_CHARS_MAX, INBOUND_CHARS_MAX, MESSAGE_ID_MAX};
use crate::model::text::beginning;
use crate::model::time::Timestamp;

/// Refuses places that cannot be.
pub fn check(config: &InboundConfig) -> Result<(), Fault> {
    for place in [Some(&config.items), Some(&config.from), config.to.as_ref(), Some(&config.text), config.id.as_ref()] {
        place.map_or(Ok(()), |place| check_pointer(place, "inbound"))?;
    }
    if config.token.is_empty() {
        let what = "http account: inbound: a token is needed, else anybody could say what people wrote";
        return Err(Fault::new(Code::ConfigInvalid, what));
    }
    Ok(())
}

/// The messages of one push: all of them, or a fault that says which one cannot be read.
pub fn read(config: &InboundConfig, body: &[u8], content_type: &str, received: Timestamp) -> Result<Vec<Inbound>, Fault> {
    let refuse = |what: String| Fault::new(Code::InputInvalid, format!("inbound: {what}"));
    let value = parse(body, content_type).map_err(&refuse)?;
    let items = match value.pointer(&config.items) {
        Some(Value::Array(items)) => items.as_slice(),
        Some(item @ Value::Object(_)) => std::slice::from_ref(item),
        _ => return Err(refuse("they are not where they should be".into())),
    };
    let cut = |text: String, most: usize| beginning(&text, most).to_owned();
    let read = |(at, item): (usize, &Value)| {
        let from = text_of(item, Some(&config.from)).ok_or_else(|| refuse(format!("no sender in message {at}")))?;
        let text = text_at(item, &config.text).ok_or_else(|| refuse(format!("no text in message {at}")))?;
        Ok(Inbound {
            from: cut(from, ADDRESS_CHARS_MAX),
            to: cut(text_of(item, config.to.as_ref()).unwrap_or_default(), ADDRESS_CHARS_MAX),
            text: cut(text, INBOUND_CHARS_MAX),
            id: cut(text_of(item, config.id.as_ref()).unwrap_or_default(), MESSAGE_ID_MAX),
            received,
        })
    };
    items.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::secret::Secret;

    fn config() -> InboundConfig {
        InboundConfig { token: Secret::new("t"), ..InboundConfig::default() }
    }

    #[test]
    fn forms_objects_and_arrays_are_read() {
        let form = "application/x-www-form-urlencoded";
        let cases = [
            (form, "from=%2B8613800138000&to=10690001007&text=%E9%80%80%E8%AE%A2+&id=7&token=x", 1),
            ("application/json", r#"{"from":"+8613800138000","to":10690001007,"text":"退订 ","id":7}"#, 1),
            (
                "application/json; charset=utf-8",
                r#"[{"from":"+8613800138000","to":"10690001007","text":"退订 ","id":"7"},{"from":"1","text":""}]"#,
                2,
            ),
        ];
        for (kind, body, count) in cases {
            let read = read(&config(), body.as_bytes(), kind, Timestamp(5)).expect(body);
            assert_eq!(read.len(), count, "{body}");
            let first = Inbound {
                from: "+8613800138000".into(),
                to: "10690001007".into(),
                text: "退订 ".into(),
                id: "7".into(),
                received: Timestamp(5),
            };
            assert_eq!(read[0], first, "{body}");
        }
    }

    #[test]
    fn all_or_nothing() {
        let bad = [r#"[{"from":"1","text":"a"},{"text":"a"}]"#, r#"{"from":"1"}"#, r#"[7]"#, "7", "{"];
        for body in bad {
            let fault = read(&config(), body.as_bytes(), "application/json", Timestamp(0)).expect_err(body);
            assert_eq!(fault.code, Code::InputInvalid);
        }
        assert!(check(&config()).is_ok());
        assert!(check(&InboundConfig::default()).is_err(), "no token");
        assert!(check(&InboundConfig { text: "text".into(), ..config() }).is_err(), "no pointer");
    }
}
