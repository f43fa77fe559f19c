//! What an HTTP answer means for each message of its request.

use std::collections::HashMap;

use serde_json::Value;

use super::config::AnswerConfig;
use super::value::{text_at, text_of};
use crate::model::answer::{Answer, Class, http_class};
use crate::model::code::Code;
use crate::model::limits::MESSAGE_ID_MAX;
use crate::model::text::beginning;
use crate::ports::provider::Submit;

/// An HTTP answer, read whole.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Whether it says when to come back.
    pub has_retry_after: bool,
    /// The body; null when it is no JSON.
    pub body: Value,
}

impl Reply {
    /// Reads an answer whose body is these octets.
    pub fn read(status: u16, has_retry_after: bool, octets: &[u8]) -> Reply {
        Reply { status, has_retry_after, body: serde_json::from_slice(octets).unwrap_or(Value::Null) }
    }
}

/// What the answer means for each message, in the order of the messages. Whatever it does not say is unknown.
pub fn answers(config: &AnswerConfig, reply: &Reply, messages: &[&Submit]) -> Vec<Answer> {
    if !(200..300).contains(&reply.status) {
        let answer = refused_whole(config, reply);
        return vec![answer; messages.len()];
    }
    let Some(items) = &config.items else {
        let answer = item(config, &reply.body, reply.status);
        return vec![answer; messages.len()];
    };
    match reply.body.pointer(items).and_then(Value::as_array) {
        Some(items) => {
            let found = found(config, items, messages).into_iter();
            found.map(|found| found.map_or(Answer::NoAnswer, |found| item(config, found, reply.status))).collect()
        }
        // Some providers leave the items out when they refuse the whole request.
        None => match text_of(&reply.body, config.error.as_ref()) {
            Some(error) => vec![refusal(config, &error, reply.status); messages.len()],
            None => vec![Answer::NoAnswer; messages.len()],
        },
    }
}

/// The item of each message: the first that names its key or its number, or the one at its place. Each item is looked at once,
/// because an answer may have a million of them, and a request a thousand messages.
fn found<'a>(config: &AnswerConfig, items: &'a [Value], messages: &[&Submit]) -> Vec<Option<&'a Value>> {
    let Some(pointer) = &config.item_of else {
        return (0..messages.len()).map(|at| items.get(at)).collect();
    };
    let names: Vec<Option<String>> = items.iter().map(|item| text_at(item, pointer)).collect();
    let (mut by_key, mut by_number) = (HashMap::new(), HashMap::new());
    for (at, name) in names.iter().enumerate().filter_map(|(at, name)| Some((at, name.as_deref()?))) {
        by_key.entry(name).or_insert(at);
        by_number.entry(name.trim_start_matches('+')).or_insert(at);
    }
    let first = |message: &&Submit| {
        let found = [by_key.get(message.key.as_str()), by_number.get(message.number.digits().as_str())];
        found.into_iter().flatten().min().and_then(|at| items.get(*at))
    };
    messages.iter().map(first).collect()
}

fn item(config: &AnswerConfig, value: &Value, status: u16) -> Answer {
    let id = text_of(value, config.id.as_ref());
    let error = text_of(value, config.error.as_ref());
    let accepted = |id: Option<String>| Answer::Accepted { id: beginning(&id.unwrap_or_default(), MESSAGE_ID_MAX).into() };
    if let Some(success) = &config.success {
        let Some(said) = text_at(value, &success.pointer) else { return Answer::NoAnswer };
        return if said == success.equals { accepted(id) } else { refusal(config, &error.unwrap_or(said), status) };
    }
    match (error, id) {
        (Some(error), _) => refusal(config, &error, status),
        (None, Some(id)) => accepted(Some(id)),
        // A provider whose ids are not configured says yes by its status alone; one whose id is missing said nothing.
        (None, None) if config.id.is_none() => accepted(None),
        (None, None) => Answer::NoAnswer,
    }
}

fn refusal(config: &AnswerConfig, error: &str, status: u16) -> Answer {
    let class = config.codes.get(error).map_or(Class::Permanent, |class| class.class());
    classified(class, status, error)
}

/// A status that is no success.
fn refused_whole(config: &AnswerConfig, reply: &Reply) -> Answer {
    let error = text_of(&reply.body, config.error.as_ref()).unwrap_or_default();
    let vendor = config.codes.get(&error).or_else(|| config.codes.get(&reply.status.to_string()));
    let class = vendor.map_or_else(|| http_class(reply.status, reply.has_retry_after), |class| class.class());
    classified(class, reply.status, &error)
}

fn classified(class: Class, status: u16, error: &str) -> Answer {
    let detail = format!("HTTP {status} {}", beginning(error, MESSAGE_ID_MAX)).trim_end().into();
    match class {
        Class::NotNow(kind) => Answer::NotNow { kind, detail },
        Class::Permanent => Answer::Failed { code: Code::ProviderRefused, detail },
        Class::Unknown | Class::Accepted => Answer::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::adapters::http::config::Success;
    use crate::adapters::vendor::VendorClass;
    use crate::model::answer::NotNow;
    use crate::model::id::Msisdn;

    fn message(seq: u32) -> Submit {
        let number = Msisdn(4_400 + u64::from(seq));
        let (ext_code, text, key) = (String::new(), "t".into(), format!("k-{seq}"));
        Submit { seq, number, ext_code, text, parts: 0, reference: 0, key }
    }

    fn config() -> AnswerConfig {
        AnswerConfig {
            id: Some("/id".into()),
            error: Some("/code".into()),
            codes: [("BUSY".into(), VendorClass::Throttled), ("503".into(), VendorClass::QueueFull)].into(),
            ..AnswerConfig::default()
        }
    }

    fn read(config: &AnswerConfig, status: u16, body: Value, count: u32) -> Vec<Answer> {
        let messages: Vec<Submit> = (0..count).map(message).collect();
        let reply = Reply { status, has_retry_after: false, body };
        answers(config, &reply, &messages.iter().collect::<Vec<_>>())
    }

    fn accepted(id: &str) -> Answer {
        Answer::Accepted { id: id.into() }
    }

    fn failed(detail: &str) -> Answer {
        Answer::Failed { code: Code::ProviderRefused, detail: detail.into() }
    }

    fn not_now(kind: NotNow, detail: &str) -> Answer {
        Answer::NotNow { kind, detail: detail.into() }
    }

    #[test]
    fn one_answer_for_one_message() {
        let cases = [
            (200, json!({"id": 77}), accepted("77")),
            (202, json!({"id": "a-1", "code": null}), accepted("a-1")),
            (200, json!({"code": "BAD"}), failed("HTTP 200 BAD")),
            (200, json!({"code": "BUSY", "id": "x"}), not_now(NotNow::Throttled, "HTTP 200 BUSY")),
            (200, Value::Null, Answer::NoAnswer),
            (200, json!({}), Answer::NoAnswer),
            (400, json!({"code": "bad_number"}), failed("HTTP 400 bad_number")),
            (400, json!({"code": "BUSY"}), not_now(NotNow::Throttled, "HTTP 400 BUSY")),
            (401, Value::Null, not_now(NotNow::Session, "HTTP 401")),
            (429, Value::Null, not_now(NotNow::Throttled, "HTTP 429")),
            (500, json!({"code": "oops"}), Answer::NoAnswer),
            (503, Value::Null, not_now(NotNow::QueueFull, "HTTP 503")),
            (302, Value::Null, Answer::NoAnswer),
        ];
        for (status, body, expected) in cases {
            assert_eq!(read(&config(), status, body.clone(), 1), [expected], "{status} {body}");
        }
    }

    #[test]
    fn a_success_condition_has_the_last_word() {
        let success = Some(Success { pointer: "/code".into(), equals: "OK".into() });
        let config = AnswerConfig { success, ..config() };
        assert_eq!(read(&config, 200, json!({"code": "OK", "id": "1"}), 2), [accepted("1"), accepted("1")]);
        assert_eq!(read(&config, 200, json!({"code": "OK"}), 1), [accepted("")]);
        assert_eq!(read(&config, 200, json!({"code": "NO", "id": "1"}), 1), [failed("HTTP 200 NO")]);
        assert_eq!(read(&config, 200, json!({"id": "1"}), 1), [Answer::NoAnswer]);
    }

    #[test]
    fn items_find_their_messages() {
        let in_order = AnswerConfig { items: Some("/m".into()), ..config() };
        let body = json!({"m": [{"id": "1"}, {"code": "BAD"}]});
        assert_eq!(read(&in_order, 200, body, 3), [accepted("1"), failed("HTTP 200 BAD"), Answer::NoAnswer]);
        let named = AnswerConfig { item_of: Some("/to".into()), ..in_order.clone() };
        let body = json!({"m": [{"to": "+4401", "id": "b"}, {"to": "k-0", "id": "a"}]});
        assert_eq!(read(&named, 200, body, 3), [accepted("a"), accepted("b"), Answer::NoAnswer]);
        assert_eq!(read(&named, 200, json!({"code": "BAD"}), 1), [failed("HTTP 200 BAD")]);
        assert_eq!(read(&named, 200, json!({"m": {}}), 1), [Answer::NoAnswer]);
        let body = json!({"m": [{}, {"to": "++4400", "id": "first"}, {"to": "k-0", "id": "second"}, {"to": "4400", "id": "third"},
            {"to": "+k-1", "id": "no key"}, {"to": "4402", "id": "c"}, {"to": "k-2", "id": "too late"}]});
        assert_eq!(
            read(&named, 200, body, 3),
            [accepted("first"), Answer::NoAnswer, accepted("c")],
            "the first has the last word"
        );
    }

    #[test]
    fn an_answer_of_many_items_is_read_once_and_not_for_each_message() {
        let named = AnswerConfig { items: Some("/m".into()), item_of: Some("/to".into()), ..config() };
        // Ten milliards of comparisons, were each message to look for its own.
        let count = 100_000;
        let mut items = vec![json!({}); count as usize];
        items.push(json!({"to": format!("k-{}", count - 1), "id": "last"}));
        let answers = read(&named, 200, json!({"m": items}), count);
        assert_eq!(answers.last(), Some(&accepted("last")));
        assert_eq!(answers.iter().filter(|answer| **answer == Answer::NoAnswer).count(), count as usize - 1);
    }
}
