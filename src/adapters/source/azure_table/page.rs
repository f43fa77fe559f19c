//! One page of an answer: its entities, and where the next page begins.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::adapters::source::json_fields;
use crate::model::record::RecordKey;

/// The properties that every entity has: they are read with every record, and come first among the columns.
pub const SYSTEM: [&str; 3] = ["PartitionKey", "RowKey", "Timestamp"];

/// Where the next page begins, in the service's own words. It may come with any page, an empty one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `x-ms-continuation-NextPartitionKey`.
    pub partition: String,
    /// `x-ms-continuation-NextRowKey`; it may be missing.
    pub row: Option<String>,
}

/// A page of entities.
#[derive(Debug)]
pub struct Page {
    /// The entities, each a JSON object.
    pub entities: Vec<Box<RawValue>>,
    /// Whether there is more.
    pub next: Option<Token>,
}

/// The entities of a body; `None` when it is no answer to a query.
pub fn entities(body: &[u8]) -> Option<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Body {
        value: Vec<Box<RawValue>>,
    }
    serde_json::from_slice::<Body>(body).ok().map(|body| body.value)
}

/// The key of an entity, and when it was last written; `None` when it has none.
pub fn key(entity: &RawValue) -> Option<(RecordKey, String)> {
    let mut values = json_fields::values(entity.get(), &SYSTEM.map(str::to_string)).ok()?.into_iter();
    let (partition, row, written) = (values.next()?, values.next()?, values.next()?);
    // Both keys may be empty texts; that they are there at all is seen by the time, which is not.
    (!written.is_empty()).then_some((RecordKey { partition, row }, written))
}

/// The names of an entity's properties. Notes about them (`x@odata.type`, `odata.etag`) are none.
pub fn properties(entity: &RawValue) -> Vec<String> {
    let mut names = json_fields::keys(entity.get()).unwrap_or_default();
    names.retain(|name| !name.contains('@') && !name.starts_with("odata."));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_are_read_with_and_without_notes_on_their_types() {
        let body = br#"{"odata.metadata":"x","value":[
            {"PartitionKey":"p","RowKey":"","Timestamp":"2024-01-01T00:00:00Z","phone":"4915","n@odata.type":"Edm.Int64","n":"9007199254740993",
             "odata.etag":"W/x","x":9.90,"b":true,"none":null},
            {"RowKey":"1"}]}"#;
        let found = entities(body).expect("a page");
        let key_of_first = (RecordKey { partition: "p".into(), row: String::new() }, "2024-01-01T00:00:00Z".to_string());
        assert_eq!(found.iter().map(|entity| key(entity)).collect::<Vec<_>>(), [Some(key_of_first), None]);
        let names = properties(&found[0]);
        assert_eq!(names, ["PartitionKey", "RowKey", "Timestamp", "phone", "n", "x", "b", "none"]);
        let values = json_fields::values(found[0].get(), &names).expect("an object");
        assert_eq!(values[3..], ["4915", "9007199254740993", "9.90", "true", ""], "no digit changes, and null is empty");
        for wrong in ["", "{}", "<html>", r#"{"value":1}"#, r#"{"value":[{}]"#] {
            assert!(entities(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
