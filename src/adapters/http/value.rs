//! Places in JSON.

use serde_json::Value;

use crate::model::code::{Code, Fault};

/// Checks a JSON pointer (RFC 6901): empty, or beginning with a slash.
pub fn check_pointer(pointer: &str, what: &str) -> Result<(), Fault> {
    if pointer.is_empty() || pointer.starts_with('/') {
        return Ok(());
    }
    Err(Fault::new(Code::ConfigInvalid, format!("http account: {what}: a place is written as /name, not {pointer:?}")))
}

/// What stands at a place, as text: strings as they are, numbers and truth values as written; `None` for nothing, null and
/// whatever has places of its own.
pub fn text_at(value: &Value, pointer: &str) -> Option<String> {
    match value.pointer(pointer)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The same for a place that may not be configured; an empty text is nothing.
pub fn text_of(value: &Value, pointer: Option<&String>) -> Option<String> {
    text_at(value, pointer?).filter(|text| !text.is_empty())
}
