//! Ranges against the whole: what planning and tiny ranges give is what one pass of another reader gives, for any bytes; and no
//! bytes make it panic.

use proptest::prelude::*;
use smsfleet::model::code::Code;
use smsfleet::model::record::{Record, SourcePlan};

use super::{Kind, Place};

fn planned(bytes: &[u8], dialect: &str, range_records: u32, limit: usize) -> Option<(SourcePlan, Vec<Record>)> {
    planned_at(Kind::Local, bytes, dialect, range_records, limit)
}

fn planned_at(kind: Kind, bytes: &[u8], dialect: &str, range_records: u32, limit: usize) -> Option<(SourcePlan, Vec<Record>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let place = Place::of(kind, bytes, dialect);
        let plan = place.plan(range_records).await.ok()?;
        let records = place.read_all(&plan, limit).await.expect("what was planned can be read");
        Some((plan, records))
    })
}

/// The records that crate `csv` sees; `None` when the last one is still open at the end, which this project reads otherwise.
fn csv_records(text: &str, delimiter: u8) -> Option<Vec<Vec<String>>> {
    let read = |text: &str| -> Vec<Vec<String>> {
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes());
        reader.records().map(|record| record.expect("it is text").iter().map(str::to_string).collect()).collect()
    };
    // A line behind an open quote is swallowed by it.
    let is_closed = read(&format!("{text}\nend")).last().is_some_and(|last| last == &["end"]);
    is_closed.then(|| read(text))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn csv_ranges_give_what_crate_csv_gives(
        text in "[ab,;\"\"\r\n\n\né]{0,80}",
        range_records in 1u32..4,
        limit in 1usize..4,
        semicolon: bool,
        object: bool,
    ) {
        let delimiter = if semicolon { b';' } else { b',' };
        let dialect = format!("format=csv;header=no;encoding=utf-8;delimiter={}", if semicolon { "semicolon" } else { "comma" });
        let kind = if object { Kind::Object } else { Kind::Local };
        let found = planned_at(kind, text.as_bytes(), &dialect, range_records, limit);
        if let Some(expected) = csv_records(&text, delimiter) {
            let Some((plan, records)) = found else {
                prop_assert!(expected.is_empty(), "not planned: {expected:?}");
                return Ok(());
            };
            prop_assert_eq!(records.len(), expected.len());
            for (record, expected) in records.iter().zip(&expected) {
                match &record.fields {
                    Ok(fields) => prop_assert_eq!(fields, expected),
                    Err(fault) => {
                        prop_assert_eq!(fault.code, Code::RowMalformed);
                        prop_assert_ne!(expected.len(), plan.columns.len());
                    }
                }
            }
        }
    }

    #[test]
    fn line_numbers_point_at_the_record(rows in prop::collection::vec("[a-c]{1,5}|\"[a-c\n]{0,5}\"", 1..20), crlf: bool, gaps in prop::collection::vec(1usize..3, 20)) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = format!("head{end}");
        let mut lines = vec![];
        for (row, gap) in rows.iter().zip(gaps) {
            lines.push(1 + text.matches('\n').count() as u64);
            text += row;
            text += &end.repeat(gap);
        }
        let (_, records) = planned(text.as_bytes(), "delimiter=comma;header=yes", 3, 2).expect("a list");
        prop_assert_eq!(records.iter().map(|record| record.line).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn json_ranges_give_what_lines_give(
        rows in prop::collection::vec(prop_oneof![
            prop::collection::btree_map("[a-d]", prop_oneof![
                any::<i64>().prop_map(serde_json::Value::from),
                any::<bool>().prop_map(serde_json::Value::from),
                "\\PC{0,8}".prop_map(serde_json::Value::from),
                Just(serde_json::Value::Null),
            ], 1..4).prop_map(|row| serde_json::to_string(&row).expect("written")),
            "[\\[{}\"a-c:, ]{0,6}",
        ], 1..20),
        range_records in 1u32..4,
    ) {
        let text = rows.join("\n");
        let Some((plan, records)) = planned(text.as_bytes(), "format=jsonl;encoding=utf-8", range_records, 2) else { return Ok(()) };
        let expected: Vec<&String> = rows.iter().filter(|row| !row.trim().is_empty()).collect();
        prop_assert_eq!(records.len(), expected.len());
        for (record, row) in records.iter().zip(expected) {
            let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(row).ok();
            match (&record.fields, object) {
                (Ok(fields), Some(object)) => {
                    for (column, field) in plan.columns.iter().zip(fields) {
                        let expected = match object.get(column) {
                            None | Some(serde_json::Value::Null) => String::new(),
                            Some(serde_json::Value::String(text)) => text.clone(),
                            Some(other) => other.to_string(),
                        };
                        prop_assert_eq!(field, &expected);
                    }
                }
                (Err(_), Some(object)) => prop_assert!(object.values().any(|value| value.is_object() || value.is_array())),
                (fields, None) => prop_assert!(fields.is_err()),
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "[ab,;|\t\"\r\n{}:\\[\\]张é\u{FEFF}]{0,120}".prop_map(String::into_bytes),
            (prop::sample::select(vec![&b"\x1F\x8B\x08"[..], b"\x28\xB5\x2F\xFD", b"\xFF\xFE", b"\xFE\xFF", b"\xEF\xBB\xBF", b"{\"a\":", b"PK\x03\x04"]),
             prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(head, rest)| [head, &rest].concat()),
        ],
        dialect in prop::sample::select(vec!["", "header=no", "format=csv;encoding=utf-8", "format=jsonl", "encoding=utf-16le", "encoding=gb18030;header=no", "compression=none"]),
        range_records in 0u32..3,
    ) {
        planned(&bytes, dialect, range_records, 2);
    }
}
