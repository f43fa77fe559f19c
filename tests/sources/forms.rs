//! The forms of lists: each file once as a whole, once in ranges of one, two and seven records, here and in an object store.

use std::io::Write;

use encoding_rs::GB18030;

use smsfleet::model::code::Code;
use smsfleet::model::limits::{COLUMN_NAMES_BYTES_MAX, NAME_BYTES_MAX};

use super::{KINDS, Place, fault_of, shown};

async fn check(name: &str, bytes: &[u8], dialect: &str, columns: &str, expected: &[&str]) {
    for kind in KINDS {
        let place = Place::of(kind, bytes, dialect);
        for range_records in [1, 2, 7, 1_000_000] {
            let plan = place.plan(range_records).await.unwrap_or_else(|fault| panic!("{name}: {fault}"));
            assert_eq!(plan.columns.join("|"), columns, "{name}");
            for limit in [1, 3, 1_000] {
                let records = place.read_all(&plan, limit).await.unwrap_or_else(|fault| panic!("{name}: {fault}"));
                let found: Vec<String> = records.iter().map(shown).collect();
                assert_eq!(found, expected, "{name}, {kind:?}, ranges of {range_records}, {} ", plan.dialect);
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory is written");
    encoder.finish().expect("memory is written")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory is written")
}

fn utf16(text: &str, big: bool, mark: bool) -> Vec<u8> {
    let units = mark.then_some(0xFEFF).into_iter().chain(text.encode_utf16());
    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[tokio::test]
async fn plain_lists() {
    let lost = "SF-2007 has 1 field, the header has 2";
    for (name, text, columns, expected) in [
        ("plain", "phone,name\n1,a\n2,b\n", "phone|name", vec!["2: 1|a", "3: 2|b"]),
        ("no last line end", "phone,name\n1,a\n2,b", "phone|name", vec!["2: 1|a", "3: 2|b"]),
        ("BOM", "\u{FEFF}phone,name\n1,a\n", "phone|name", vec!["2: 1|a"]),
        ("BOM and quotes", "\u{FEFF}\"phone\",name\n1,a\n", "phone|name", vec!["2: 1|a"]),
        ("CR LF", "phone,name\r\n1,a\r\n\r\n2,b\r\n", "phone|name", vec!["2: 1|a", "4: 2|b"]),
        ("CR", "phone,name\r1,a\r\r2,b\r", "phone|name", vec!["2: 1|a", "4: 2|b"]),
        ("empty lines", "\n\nphone,name\n\n1,a\n\n\n2,b\n\n\n", "phone|name", vec!["5: 1|a", "8: 2|b"]),
        ("semicolons", "phone;name\n1;\"a, b\"\n", "phone|name", vec!["2: 1|a, b"]),
        ("tabs", "phone\tname\n1\ta,b\n", "phone|name", vec!["2: 1|a,b"]),
        ("pipes", "phone|name\n1|a\n", "phone|name", vec!["2: 1|a"]),
        ("one column", "phone\n1\n2\n", "phone", vec!["2: 1", "3: 2"]),
        ("names a delimiter", "sep=;\r\nphone;name\r\n1;a\r\n", "phone|name", vec!["3: 1|a"]),
        ("spaces in the header", " phone , name \n1, a \n", "phone|name", vec!["2: 1| a "]),
        (
            "lines within quotes",
            "phone,name\n1,\"a\nb\"\n2,\"c\r\nd\"\n3,e\n",
            "phone|name",
            vec!["2: 1|a\nb", "4: 2|c\r\nd", "6: 3|e"],
        ),
        ("quotes within quotes", "phone,name\n1,\"a \"\"b\"\"\"\n2,c\"d\n", "phone|name", vec!["2: 1|a \"b\"", "3: 2|c\"d"]),
        ("a header with lines in it", "\"pho\nne\",name\n1,a\n", "pho\nne|name", vec!["3: 1|a"]),
        ("a short row", "phone,name\n1\n2,b\n", "phone|name", vec![&*format!("2: {lost}"), "3: 2|b"]),
        ("a long row", "phone,name\n1,a,b\n2,b\n", "phone|name", vec!["2: SF-2007 has 3 fields, the header has 2", "3: 2|b"]),
        (
            "a quote that stays open",
            "phone,name\n1,\"a\n2,b\n3,c\n",
            "phone|name",
            vec!["2: SF-2007 a quote is opened and never closed", "3: 2|b", "4: 3|c"],
        ),
        ("Chinese", "手机,姓名\n1,张三\n", "手机|姓名", vec!["2: 1|张三"]),
    ] {
        check(name, text.as_bytes(), "", columns, &expected).await;
        check(name, &gzip(text.as_bytes()), "", columns, &expected).await;
    }
}

#[tokio::test]
async fn lists_in_a_named_dialect() {
    for (name, text, dialect, columns, expected) in [
        ("no header", "1,a\n2,b\n", "header=no", "1|2", vec!["1: 1|a", "2: 2|b"]),
        ("a header of digits", "13800138000,a\n1,b\n", "header=yes", "13800138000|a", vec!["2: 1|b"]),
        ("a rare delimiter", "phone^name\n1^a,b\n", "delimiter=^", "phone|name", vec!["2: 1|a,b"]),
        ("not JSON", "{a,b\n1,2\n", "format=csv", "{a|b", vec!["2: 1|2"]),
        ("Latin-1", "phone,name\n1,Ren\u{e9}e\n", "encoding=windows-1252", "phone|name", vec!["2: 1|Renée"]),
    ] {
        let bytes: Vec<u8> = if name == "Latin-1" { text.chars().map(|c| c as u8).collect() } else { text.into() };
        check(name, &bytes, dialect, columns, &expected).await;
    }
}

#[tokio::test]
async fn encodings_and_compressions() {
    let text = "手机,姓名\n13800138000,张三😀\n13900139000,\"李\n四\"\n";
    let (columns, expected) = ("手机|姓名", ["2: 13800138000|张三😀", "3: 13900139000|李\n四"]);
    let gb = GB18030.encode(text).0.into_owned();
    let forms = [
        text.as_bytes().to_vec(),
        utf16(text, false, true),
        utf16(text, true, true),
        utf16(text, false, false),
        utf16(text, true, false),
        gb,
    ];
    for (n, bytes) in forms.iter().enumerate() {
        check(&format!("form {n}"), bytes, "", columns, &expected).await;
        check(&format!("form {n}, gzip"), &gzip(bytes), "", columns, &expected).await;
        check(&format!("form {n}, zstd"), &zstd(bytes), "", columns, &expected).await;
    }
    let (one, two) = text.as_bytes().split_at(20);
    check("two gzip members", &[gzip(one), gzip(two)].concat(), "", columns, &expected).await;
    check("two zstd frames", &[zstd(one), zstd(two)].concat(), "", columns, &expected).await;
}

#[tokio::test]
async fn rows_that_are_no_text_are_rejected_alone() {
    let not = |line, encoding| format!("{line}: SF-2008 is not valid {encoding}");
    let utf8 = [b"phone,name\n1,\xE5\xBC\xA0\n2,\xFF\xFE\n3,\xE6\x9D\x8E\n4,\0\n5,x\n".to_vec(), vec![]].concat();
    // The NUL comes behind what is looked at first, as it would in a large file.
    let padded = [b"phone,name\n".to_vec(), b"0,pad\n".repeat(50_000), utf8[11..].to_vec()].concat();
    let place = Place::new(&padded, "");
    let plan = place.plan(1_000).await.expect("a plan");
    let records = place.read_all(&plan, 100).await.expect("records");
    let found: Vec<String> = records[50_000..].iter().map(shown).collect();
    let (bad, nul) = (not(50_003, "utf-8"), "50005: SF-2008 has a NUL byte");
    assert_eq!(found, ["50002: 1|张", &bad, "50004: 3|李", nul, "50006: 5|x"]);

    let mut gb = GB18030.encode("手机,姓名\n1,张三\n2,李四\n3,王五\n").0.into_owned();
    gb.extend(b"4,\xFF\n");
    let expected = ["2: 1|张三", "3: 2|李四", "4: 3|王五", &not(5, "gb18030")];
    check("GB18030", &gb, "encoding=gbk", "手机|姓名", &expected).await;
    let mut wide = utf16("phone,name\n1,", false, true);
    wide.extend(0xD800_u16.to_le_bytes());
    wide.extend(utf16("\n2,b\n", false, false));
    check("half a surrogate pair", &wide, "", "phone|name", &[&not(2, "utf-16le"), "3: 2|b"]).await;
}

#[tokio::test]
async fn gb18030_is_noticed_however_late_it_begins() {
    let rows = 60_000;
    let mut text = "phone,name\n".to_string() + &"0,plain\n".repeat(rows);
    text += "1,张三\n2,李四\n";
    let place = Place::new(&GB18030.encode(&text).0, "");
    let plan = place.plan(10_000).await.expect("a plan");
    assert!(plan.dialect.contains("encoding=gb18030"), "{}", plan.dialect);
    let records = place.read_all(&plan, 1_000).await.expect("records");
    assert_eq!(shown(&records[rows + 1]), format!("{}: 2|李四", rows + 3));
}

#[tokio::test]
async fn json_lines() {
    let text = "\u{FEFF}{\"phone\":\"1\",\"name\":\"张三\"}\r\n\n \n{\"name\":null,\"phone\":13800138000,\"price\":9.90}\n\
        {\"phone\":\"3\",\"price\":{\"amount\":1}}\n[1]\n{\"phone\":\"4\n{\"phone\":true,\"vip\":false}\n";
    let expected = [
        "1: 1|张三||",
        "4: 13800138000||9.90|",
        "5: SF-2007 the value of \"price\" is nested",
        "6: SF-2007 is no JSON object",
        "7: SF-2007 is no JSON object",
        "8: true|||false",
    ];
    for bytes in [text.as_bytes().to_vec(), utf16(text.trim_start_matches('\u{FEFF}'), true, true), zstd(text.as_bytes())] {
        check("JSON Lines", &bytes, "", "phone|name|price|vip", &expected).await;
    }
    check("JSON Lines, named", b"7\n{\"a\":1}", "format=jsonl", "a", &["1: SF-2007 is no JSON object", "2: 1"]).await;
}

#[tokio::test]
async fn rows_without_end_cost_themselves_and_no_more() {
    let rest = "2,b\n".repeat(400_000);
    let long = "x".repeat(3 << 20);
    let too_large = "2: SF-2009 is longer than 1048576 bytes";
    for first in [format!("1,{long}\n"), format!("1,\"{long}\"\n"), "1,\"open\n".to_string()] {
        let place = Place::new(format!("phone,name\n{first}{rest}").as_bytes(), "");
        for range_records in [1, 100_000] {
            // With ranges of one record the first range ends long before the row is too large.
            let range_records = if range_records == 1 && first.len() < 100 { 2 } else { range_records.max(50_000) };
            let plan = place.plan(range_records).await.expect("a plan");
            assert_eq!(plan.records, 400_001);
            let records = place.read(&plan, 0, 10).await.expect("records");
            assert_eq!((shown(&records[0]), shown(&records[1])), (too_large.to_string(), "3: 2|b".to_string()));
        }
    }
}

#[tokio::test]
async fn names_of_columns_are_no_way_to_fill_a_batch_s_row() {
    let name = |letter: &str, n: usize| format!("{letter}{n}{}", "x".repeat(100));
    let header = |columns: usize| (0..columns).map(|n| name("c", n)).collect::<Vec<_>>().join(",");
    let object = |letter: &str, keys: usize| {
        let keys: Vec<String> = (0..keys).map(|n| format!("\"{}\":1", name(letter, n))).collect();
        format!("{{{}}}\n", keys.join(","))
    };
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let many = COLUMN_NAMES_BYTES_MAX / 100;
    for (list, says) in [
        (format!("phone,{long}\n1,2\n"), "the name of a column has at most"),
        (format!("{}\n{}1\n", header(many), "1,".repeat(many - 1)), "the names of all columns"),
        (format!("{{\"{long}\":1}}\n"), "the name of a column has at most"),
        (object("a", many / 2) + &object("b", many / 2), "the names of all columns"),
        (format!("{}\n", "1,".repeat(2_000)), "2001 columns"),
    ] {
        let dialect = if list.starts_with("1,") { "header=no" } else { "" };
        for kind in KINDS {
            fault_of(Place::of(kind, list.as_bytes(), dialect).plan(10).await, Code::InputInvalid, says);
        }
    }
    // Each of the files may have its keys; the list as a whole may not.
    let files: Vec<(String, String)> = (0..3).map(|n| (format!("{n}.jsonl"), object(&format!("k{n}-"), many / 2))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    for kind in KINDS {
        fault_of(Place::folder(kind, &files).plan(10).await, Code::InputInvalid, "the names of all columns");
        Place::folder(kind, &files[..1]).plan(10).await.expect("one alone is a list");
    }
}
