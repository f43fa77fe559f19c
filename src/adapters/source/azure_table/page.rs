//! One page of an answer: its entities, and where the next page begins.

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::adapters::source::json_fields::{self, JsonFields};
use crate::model::record::RecordKey;

/// Entities of a page at most: the service gives no more than this, whatever it is asked for.
pub const ENTITIES_MAX: usize = 1_000;

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

/// Why a body is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// It is no answer to a query.
    NoEntities,
    /// It holds more than [`ENTITIES_MAX`].
    TooMany,
}

/// The entities of a body. No more of them are kept than a page may have.
pub fn entities(body: &[u8]) -> Result<Vec<Box<RawValue>>, NoPage> {
    #[derive(Deserialize)]
    struct Body {
        value: Entities,
    }
    let body: Body = serde_json::from_slice(body).map_err(|_| NoPage::NoEntities)?;
    body.value.0.ok_or(NoPage::TooMany)
}

/// The entities, unless there are too many.
struct Entities(Option<Vec<Box<RawValue>>>);

impl<'de> Deserialize<'de> for Entities {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Entities, D::Error> {
        input.deserialize_seq(EntitiesOf)
    }
}

struct EntitiesOf;

impl<'de> Visitor<'de> for EntitiesOf {
    type Value = Entities;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entities")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entities, A::Error> {
        let mut entities = vec![];
        while entities.len() < ENTITIES_MAX {
            match list.next_element()? {
                Some(entity) => entities.push(entity),
                None => return Ok(Entities(Some(entities))),
            }
        }
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(Entities((!more).then_some(entities)))
    }
}

/// The key of an entity, and when it was last written; `None` when it has none.
pub fn key(entity: &RawValue) -> Option<(RecordKey, String)> {
    static KEY: LazyLock<JsonFields> = LazyLock::new(|| JsonFields::new(&SYSTEM.map(str::to_string)));
    let mut values = KEY.values(entity.get()).ok()?.into_iter();
    let (partition, row, written) = (values.next()?, values.next()?, values.next()?);
    // Both keys may be empty texts; that they are there at all is seen by the time, which is not.
    (!written.is_empty()).then_some((RecordKey { partition, row }, written))
}

/// The names of an entity's properties, one by one. Notes about them (`x@odata.type`, `odata.etag`) are none.
pub fn each_property(entity: &RawValue, mut each: impl FnMut(&str)) {
    // What is no object has none, or none behind the place where it ceases to be one.
    let _ = json_fields::each_key(entity.get(), |name| {
        if !name.contains('@') && !name.starts_with("odata.") {
            each(name);
        }
    });
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
        let mut names = vec![];
        each_property(&found[0], |name| names.push(name.to_string()));
        assert_eq!(names, ["PartitionKey", "RowKey", "Timestamp", "phone", "n", "x", "b", "none"]);
        let values = JsonFields::new(&names).values(found[0].get()).expect("an object");
        assert_eq!(values[3..], ["4915", "9007199254740993", "9.90", "true", ""], "no digit changes, and null is empty");
        for wrong in ["", "{}", "<html>", r#"{"value":1}"#, r#"{"value":[{}]"#] {
            assert_eq!(entities(wrong.as_bytes()).expect_err("no page"), NoPage::NoEntities, "{wrong}");
        }
    }

    #[test]
    fn no_more_entities_are_kept_than_a_page_has() {
        let body = |count: usize| format!("{{\"value\":[{}]}}", vec!["0"; count].join(","));
        assert_eq!(entities(body(0).as_bytes()).map(|found| found.len()), Ok(0));
        assert_eq!(entities(body(ENTITIES_MAX).as_bytes()).map(|found| found.len()), Ok(ENTITIES_MAX));
        for count in [ENTITIES_MAX + 1, 1_000_000] {
            assert_eq!(entities(body(count).as_bytes()).expect_err("too many"), NoPage::TooMany);
        }
        assert_eq!(entities(&body(ENTITIES_MAX + 1).as_bytes()[..2_010]).expect_err("cut"), NoPage::NoEntities);
    }
}
