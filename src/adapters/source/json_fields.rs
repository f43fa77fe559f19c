//! From one JSON object to its fields.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why an object gives no fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable(pub String);

/// The keys of an object in their order; `None` when the line is no object.
pub(super) fn keys(line: &str) -> Option<Vec<String>> {
    let mut keys = vec![];
    each_key(line, |key| keys.push(key.to_string()))?;
    Some(keys)
}

/// The same, one by one: there may be more of them than anybody wants to keep.
pub(super) fn each_key(line: &str, mut each: impl FnMut(&str)) -> Option<()> {
    let visited = visit(line, |key, _| {
        each(key);
        Ok(())
    });
    visited.ok()
}

/// Takes the values of objects by columns.
#[derive(Debug)]
pub(super) struct JsonFields {
    columns: Vec<String>,
    /// Where each column is. An object may have many keys that are none, and the search for each would go through all columns.
    places: HashMap<String, usize>,
}

impl JsonFields {
    /// Takes these columns.
    pub fn new(columns: &[String]) -> JsonFields {
        let mut places = HashMap::with_capacity(columns.len());
        for (place, column) in columns.iter().enumerate() {
            places.entry(column.clone()).or_insert(place);
        }
        JsonFields { columns: columns.to_vec(), places }
    }

    /// The values of an object. A key that is no column is left out, a column without a key, and `null`, are empty. Numbers stay
    /// as they are written, so that `9.90` keeps its zero and no digit of a long number changes.
    pub fn values(&self, line: &str) -> Result<Vec<String>, Unusable> {
        let mut values = vec![String::new(); self.columns.len()];
        // Objects mostly have their keys in the order of the columns.
        let mut guess = 0;
        visit(line, |key, value| {
            let column = if self.columns.get(guess).is_some_and(|column| column == key) {
                Some(guess)
            } else {
                self.places.get(key).copied()
            };
            if let Some(column) = column {
                values[column] = scalar(value).map_err(|why| Unusable(format!("the value of \"{key}\" is {why}")))?;
                guess = column + 1;
            }
            Ok(())
        })?;
        Ok(values)
    }
}

/// A value as text, or what it is instead.
fn scalar(value: &RawValue) -> Result<String, &'static str> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') => Err("nested"),
        Some(b'n') => Ok(String::new()),
        // A string may be well-formed and yet hold half a surrogate pair.
        Some(b'"') => serde_json::from_str::<String>(text).map_err(|_| "not text"),
        _ => Ok(text.to_string()),
    }
}

fn visit(line: &str, each: impl FnMut(&str, &RawValue) -> Result<(), Unusable>) -> Result<(), Unusable> {
    let mut json = serde_json::Deserializer::from_str(line);
    let unusable = json.deserialize_map(Fields(each)).map_err(|_| not_an_object())?;
    json.end().map_err(|_| Unusable("there is more than one JSON object in the line".to_string()))?;
    unusable.map_or(Ok(()), Err)
}

// The parser's own words could quote the record, which is personal data.
fn not_an_object() -> Unusable {
    Unusable("is no JSON object".to_string())
}

struct Fields<F>(F);

impl<'de, F: FnMut(&str, &RawValue) -> Result<(), Unusable>> Visitor<'de> for Fields<F> {
    type Value = Option<Unusable>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let value: &RawValue = map.next_value()?;
            if let Err(unusable) = (self.0)(&key.0, value) {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Some(unusable));
            }
        }
        Ok(None)
    }
}

/// A key that is copied only when it holds an escape.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_fields() {
        let fields = JsonFields::new(&["phone".to_string(), "na\"me".to_string(), "x".to_string()]);
        for (line, expected) in [
            (r#"{"phone":"1","na\"me":"a\u4e2d\n","x":"y"}"#, Ok(["1", "a中\n", "y"])),
            (r#" {"x":9.90,"phone":123456789012345678901234567890} "#, Ok(["123456789012345678901234567890", "", "9.90"])),
            (r#"{"x":true,"na\"me":null,"other":[1]}"#, Ok(["", "", "true"])),
            (r#"{"x":-1e3,"x":"last"}"#, Ok(["", "", "last"])),
            (r#"{}"#, Ok(["", "", ""])),
            (r#"{"x":{"a":1},"phone":"1"}"#, Err("the value of \"x\" is nested")),
            (r#"{"x":[]}"#, Err("the value of \"x\" is nested")),
            (r#"{"x":1"#, Err("is no JSON object")),
            (r#"{"x":"\ud800"}"#, Err("the value of \"x\" is not text")),
            ("[1]", Err("is no JSON object")),
            ("7", Err("is no JSON object")),
            ("{} {}", Err("there is more than one JSON object in the line")),
        ] {
            let found = fields.values(line);
            let expected = expected.map(|fields| fields.map(str::to_string).to_vec()).map_err(|why| Unusable(why.to_string()));
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(keys(r#"{"b":1,"a":{}}"#), Some(vec!["b".to_string(), "a".to_string()]));
        assert_eq!(keys("[]"), None);
    }

    /// A thousand million comparisons and a hundred times as many, if each key were looked for among all columns.
    #[test]
    fn keys_that_are_no_columns_cost_little_however_many_columns_there_are() {
        let columns: Vec<String> = (0..200_000).map(|n| format!("column{n:06}")).collect();
        let mut line: String = (0..500_000).map(|n| format!("\"unknown{n:05}\":0,")).collect();
        line = format!("{{{line}\"column199999\":7}}");
        let values = JsonFields::new(&columns).values(&line).expect("an object");
        assert_eq!((values.len(), values.last().map(String::as_str)), (200_000, Some("7")));
        assert!(values[..199_999].iter().all(String::is_empty));
    }
}
