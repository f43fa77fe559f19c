//! Finding what names a person in stored JSON, whatever its form: by the number's digits, or by a code of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::account::Account;
use crate::model::id::Msisdn;
use crate::model::inbound::{OptOutRules, number_of};

/// What stands where something was erased.
pub const ERASED: &str = "erased";

/// What a person is known by.
#[derive(Clone, Debug)]
pub struct Person {
    digits: String,
    /// Short codes of their links.
    codes: Vec<String>,
    /// Accounts that pass on what they write, each with the sender in its own form.
    accounts: Arc<BTreeMap<String, Account>>,
}

impl Person {
    /// Whoever has this number, and these codes. An empty code is none: every text ends in it.
    pub fn new(number: Msisdn, mut codes: Vec<String>) -> Person {
        codes.retain(|code| !code.is_empty());
        Person { digits: number.digits(), codes, accounts: Arc::default() }
    }

    /// The same, known also by the senders of messages that came through these accounts.
    pub fn through(self, accounts: Arc<BTreeMap<String, Account>>) -> Person {
        Person { accounts, ..self }
    }

    /// Whether a JSON text names the person. One that is damaged names whoever its characters may name: to erase too much of
    /// it loses nothing that anybody could read.
    pub fn is_in(&self, body: &str) -> bool {
        // Most texts do not even hold the characters.
        let may = body.contains(&self.digits) || self.codes.iter().any(|code| body.contains(code.as_str()));
        if !may && !body.contains("\"from\"") {
            return false;
        }
        serde_json::from_str(body).map_or(may, |value: Value| self.is_in_value(&value))
    }

    fn is_in_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.is_in_text(text),
            Value::Number(number) => number.to_string() == self.digits,
            Value::Array(items) => items.iter().any(|item| self.is_in_value(item)),
            Value::Object(fields) => {
                self.wrote(fields) || fields.iter().any(|(key, item)| self.is_in_text(key) || self.is_in_value(item))
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// Whether it is a message that the person wrote, however its account writes the sender.
    fn wrote(&self, fields: &Map<String, Value>) -> bool {
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let Some(from) = text("from") else { return false };
        let number = match text("account").and_then(|account| self.accounts.get(account)) {
            Some(account) => number_of(from, &account.opt_out),
            None => number_of(from, &OptOutRules::default()),
        };
        number.is_some_and(|number| number.digits() == self.digits)
    }

    /// Whether a text holds the number as a number of its own (not as a part of a longer one), or is a code or ends in one.
    pub fn is_in_text(&self, text: &str) -> bool {
        let number = text.split(|c: char| !c.is_ascii_digit()).any(|run| run.trim_start_matches("00") == self.digits);
        let ends = |code: &String| text.strip_suffix(code.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('/'));
        number || self.codes.iter().any(ends)
    }

    /// A JSON text in which every text that names the person was replaced; `None` when none does. Nothing is kept of one that is
    /// damaged.
    pub fn taken_out(&self, body: &str) -> Option<String> {
        if !self.is_in(body) {
            return None;
        }
        let mut value: Value = serde_json::from_str(body).unwrap_or_else(|_| ERASED.into());
        self.take_out(&mut value);
        Some(value.to_string())
    }

    fn take_out(&self, value: &mut Value) {
        match value {
            Value::String(_) | Value::Number(_) if self.is_in_value(value) => *value = ERASED.into(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.take_out(item)),
            Value::Object(fields) => {
                if self.wrote(fields) {
                    fields.insert("from".into(), ERASED.into());
                }
                let named: Vec<String> = fields.keys().filter(|key| self.is_in_text(key)).cloned().collect();
                for key in named {
                    fields.remove(&key);
                }
                fields.values_mut().for_each(|item| self.take_out(item));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_as_itself_and_never_inside_another() {
        let person = Person::new(Msisdn(4_915_112_345_678), vec!["aB3xY9zQ".into()]);
        for (body, named) in [
            (r#"{"from":"+4915112345678"}"#, true),
            (r#"{"from":"004915112345678"}"#, true),
            (r#"{"a":[{"b":4915112345678}]}"#, true),
            (r#"{"text":"call 4915112345678 now"}"#, true),
            (r#"{"4915112345678":1}"#, true),
            (r#"{"code":"aB3xY9zQ"}"#, true),
            (r#"{"url":"https://s.example/aB3xY9zQ"}"#, true),
            (r#"{"from":"+49151123456789"}"#, false),
            (r#"{"from":"+14915112345678"}"#, false),
            (r#"{"code":"aB3xY9zQ1"}"#, false),
            (r#"{"n":15112345678}"#, false),
        ] {
            assert_eq!(person.is_in(body), named, "{body}");
            assert_eq!(person.taken_out(body).is_some(), named, "{body}");
            assert!(person.taken_out(body).is_none_or(|body| !person.is_in(&body)), "{body}");
        }
        for (damaged, named) in
            [(r#"{"from":"+4915112345678","te"#, true), (r#"{"id":"x","from":"+49151123"#, false), (r#"{"code":"aB3xY9zQ"#, true)]
        {
            assert_eq!(person.is_in(damaged), named, "{damaged}");
            assert_eq!(person.taken_out(damaged), named.then(|| "\"erased\"".to_owned()), "{damaged}");
        }
        let mut account = crate::roles::config::AccountConfig::default().account("cn");
        account.opt_out.country_code = "49".into();
        let through = person.clone().through(Arc::new(BTreeMap::from([("national".to_owned(), account)])));
        for (body, named) in [
            (r#"{"account":"national","from":"015112345678","text":"stop"}"#, true),
            (r#"{"event":{"account":"national","from":"15112345678"}}"#, true),
            (r#"{"account":"other","from":"+49 (151) 1234-5678"}"#, true),
            (r#"{"account":"other","from":"15112345678"}"#, false),
            (r#"{"account":"national","to":"15112345678"}"#, false),
            (r#"{"account":"national","from":"15112345678"#, false),
        ] {
            assert_eq!(through.is_in(body), named, "{body}");
            assert_eq!(through.taken_out(body).is_some(), named, "{body}");
            assert!(through.taken_out(body).is_none_or(|body| !through.is_in(&body)), "{body}");
        }
        let nameless = Person::new(Msisdn(4_915_112_345_678), vec![String::new()]);
        assert!(!nameless.is_in(r#"{"url":"https://s.example/"}"#) && !nameless.is_in(r#"{"text":""}"#));
        let left = person.taken_out(r#"{"id":"e","number":"+4915112345678"}"#).expect("it was in it");
        assert_eq!(left, r#"{"id":"e","number":"erased"}"#);
    }
}
