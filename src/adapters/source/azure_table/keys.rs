//! Stretches of a table's keys, and the filters that select them.
//!
//! A range is everything behind one record up to another, in the order of PartitionKey and then RowKey, so that the ranges of a
//! plan cover every key there can be and a record that was added is noticed wherever it is. As one filter that would need an
//! `or`, for which the service walks the whole table; so it is cut into at most three stretches, each of which is one piece of
//! the service's index.

use crate::model::record::RecordKey;

/// The filters of everything behind `after` up to `upto`, in order; an end that is not there is the table's own. An empty filter
/// selects everything. With a `partition` only that one is read.
pub fn filters(partition: Option<&str>, after: Option<&RecordKey>, upto: Option<&RecordKey>) -> Vec<String> {
    if let Some(partition) = partition {
        return vec![within(partition, after, upto)];
    }
    if let (Some(after), Some(upto)) = (after, upto)
        && after.partition == upto.partition
    {
        return vec![within(&after.partition, Some(after), Some(upto))];
    }
    let rest = after.map(|after| within(&after.partition, Some(after), None));
    let begin = upto.map(|upto| within(&upto.partition, None, Some(upto)));
    // Whole partitions between the two.
    let above = after.map(|after| format!("PartitionKey gt {}", quoted(&after.partition)));
    let below = upto.map(|upto| format!("PartitionKey lt {}", quoted(&upto.partition)));
    let between = above.into_iter().chain(below).collect::<Vec<_>>().join(" and ");
    rest.into_iter().chain([between]).chain(begin).collect()
}

/// Records of one partition.
fn within(partition: &str, after: Option<&RecordKey>, upto: Option<&RecordKey>) -> String {
    let mut filter = format!("PartitionKey eq {}", quoted(partition));
    if let Some(after) = after {
        filter += &format!(" and RowKey gt {}", quoted(&after.row));
    }
    if let Some(upto) = upto {
        filter += &format!(" and RowKey le {}", quoted(&upto.row));
    }
    filter
}

/// A text in a filter: in single quotes, those in it doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value as it stands in an address. Blanks are `%20`: not every server takes `+` for one.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: &str, row: &str) -> RecordKey {
        RecordKey { partition: partition.to_string(), row: row.to_string() }
    }

    #[test]
    fn a_range_is_at_most_three_stretches_of_the_index() {
        let (a5, a9, c2) = (key("a", "5"), key("a", "9"), key("c", "2"));
        assert_eq!(filters(None, None, None), [""]);
        assert_eq!(filters(None, Some(&a5), Some(&a9)), ["PartitionKey eq 'a' and RowKey gt '5' and RowKey le '9'"]);
        assert_eq!(
            filters(None, Some(&a5), Some(&c2)),
            [
                "PartitionKey eq 'a' and RowKey gt '5'",
                "PartitionKey gt 'a' and PartitionKey lt 'c'",
                "PartitionKey eq 'c' and RowKey le '2'",
            ]
        );
        assert_eq!(filters(None, None, Some(&c2)), ["PartitionKey lt 'c'", "PartitionKey eq 'c' and RowKey le '2'"]);
        assert_eq!(filters(None, Some(&a5), None), ["PartitionKey eq 'a' and RowKey gt '5'", "PartitionKey gt 'a'"]);
        assert_eq!(filters(Some("a"), None, None), ["PartitionKey eq 'a'"]);
        assert_eq!(filters(Some("a"), None, Some(&a5)), ["PartitionKey eq 'a' and RowKey le '5'"]);
        assert_eq!(filters(Some("a"), Some(&a5), None), ["PartitionKey eq 'a' and RowKey gt '5'"]);
        let all = filters(None, Some(&a5), Some(&c2)).join("");
        assert!(!all.contains(" or "), "the service would walk the whole table");
    }

    #[test]
    fn keys_with_strange_characters_stay_what_they_are() {
        let strange = key("O'Brien & 'sons'", "é%+ =&");
        assert_eq!(
            filters(None, Some(&strange), Some(&key("O'Brien & 'sons'", "z"))),
            ["PartitionKey eq 'O''Brien & ''sons''' and RowKey gt 'é%+ =&' and RowKey le 'z'"]
        );
        assert_eq!(encoded("a 'b'&é%+="), "a%20%27b%27%26%C3%A9%25%2B%3D");
    }
}
