//! Folders: several files that are one list, here and in an object store.

use smsfleet::model::code::Code;
use smsfleet::model::record::Record;
use smsfleet::ports::source::Source;

use super::{KINDS, Kind, Place, fault_of, shown};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, text.as_bytes()).expect("memory is written");
    encoder.finish().expect("memory is written")
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("memory is written")
}

fn all(records: &[Record]) -> Vec<String> {
    records.iter().map(shown).collect()
}

#[tokio::test]
async fn files_of_any_form_are_one_list_in_the_order_of_their_names() {
    for kind in KINDS {
        let place = Place::folder(
            kind,
            &[
                ("b.csv.gz", &gzip("phone,name\n3,c\n\n4,d\n")),
                ("a.csv", b"phone,name\n1,a\n2,b\n"),
                ("c.csv", b"phone;name\r\n5;e\r\n"),
                ("d.csv.zst", &zstd("\"phone\",\"name\"\n6,\"f\nf\"\n7,g\n")),
                ("e.jsonl", b"{\"name\":\"h\",\"phone\":\"8\"}\n{\"phone\":\"9\"}\n"),
                ("f.csv", b"phone,name\n"),
                ("g-empty", b""),
                (".hidden", b"nothing\nlike,it\n"),
            ],
        );
        match kind {
            Kind::Local => {
                let below = place.list().join("below");
                std::fs::create_dir(&below).expect("a folder");
                std::fs::write(below.join("z.csv"), "other\n1\n").expect("written");
            }
            Kind::Object => place.write("below/z.csv", b"other\n1\n"),
        }
        let expected = ["2: 1|a", "3: 2|b", "2: 3|c", "4: 4|d", "2: 5|e", "2: 6|f\nf", "4: 7|g", "1: 8|h", "2: 9|"];
        for range_records in [1, 2, 1_000] {
            let plan = place.plan(range_records).await.unwrap_or_else(|fault| panic!("{kind:?}: {fault}"));
            assert_eq!(plan.columns, ["phone", "name"]);
            let names: Vec<&str> = plan.ranges.iter().map(|range| range.part.as_ref().expect("a part").name.as_str()).collect();
            if range_records == 1_000 {
                assert_eq!(names, ["a.csv", "b.csv.gz", "c.csv", "d.csv.zst", "e.jsonl"], "no range goes over the end of a file");
            }
            for limit in [1, 1_000] {
                assert_eq!(all(&place.read_all(&plan, limit).await.expect("records")), expected, "{kind:?} {range_records}");
            }
            assert_eq!(place.plan(range_records).await.expect("the same plan"), plan);
        }
    }
}

#[tokio::test]
async fn what_changes_after_the_plan_is_named() {
    for kind in KINDS {
        let files = |change: fn(&Place)| async move {
            let place =
                Place::folder(kind, &[("a.csv", b"phone\n1\n2\n"), ("b.csv", b"phone\n3\n"), ("c.csv.gz", &gzip("phone\n4\n"))]);
            let plan = place.plan(1).await.expect("a plan");
            assert_eq!(place.read_all(&plan, 10).await.expect("untouched").len(), 4);
            change(&place);
            for range in 0..plan.ranges.len() {
                let fault = place.read(&plan, range, 10).await.expect_err("it changed");
                assert_eq!(fault.code, Code::SourceChanged);
                let unchanged = place.source.unchanged(&place.spec.table_name, &plan.fingerprint, &plan.dialect).await;
                assert_eq!(unchanged, Err(fault.clone()), "the command sees it without reading");
                if range + 1 == plan.ranges.len() {
                    return fault.context;
                }
            }
            String::new()
        };
        for (says, context) in [
            ("b2.csv was added", files(|place| place.write("b2.csv", b"phone\n9\n")).await),
            ("b.csv was removed", files(|place| place.remove("b.csv")).await),
            ("b.csv was changed", files(|place| place.write("b.csv", b"phone\n33\n")).await),
            ("c.csv.gz was changed", files(|place| place.write("c.csv.gz", &gzip("phone\n44444\n"))).await),
        ] {
            assert!(context.contains(says), "{kind:?}: {context} does not say \"{says}\"");
        }
        // What was hidden then and is now does not count.
        let place = Place::folder(kind, &[("a.csv", b"phone\n1\n")]);
        let plan = place.plan(1).await.expect("a plan");
        place.write(".a.csv.swp", b"x");
        assert_eq!(place.read_all(&plan, 10).await.expect("untouched").len(), 1);
    }
}

#[tokio::test]
async fn files_that_do_not_fit_together_are_named() {
    for kind in KINDS {
        for (files, code, says) in [
            (
                &[("a.csv", &b"phone,name\n1,a\n"[..]), ("b.csv", b"phone,city\n2,b\n")][..],
                Code::InputInvalid,
                "b.csv: its columns are \"phone\", \"city\"",
            ),
            (&[("a.csv", b"phone,name\n1,a\n"), ("b.csv", b"name,phone\nb,2\n")], Code::InputInvalid, "b.csv"),
            (&[("a.csv", b"phone\n1\n"), ("b.jsonl", b"{\"phone\":\"1\",\"vip\":1}\n")], Code::InputInvalid, "\"vip\""),
            (&[("a.jsonl", b"{\"phone\":\"1\",\"vip\":1}\n"), ("b.csv", b"phone\n1\n")], Code::InputInvalid, "\"vip\""),
            (&[("a.csv", b"phone\n1\n"), ("b.pdf", b"%PDF-1.7\n")], Code::SourceNotText, "b.pdf"),
            (&[("a.csv", b"phone\n1\n"), ("b.csv", b"13800138000\n1\n")], Code::InputInvalid, "b.csv"),
            (&[("a.csv", b"phone\n"), ("b.csv", b"")], Code::SourceEmpty, "no record in any file"),
            (&[(".a.csv", b"phone\n1\n")], Code::SourceEmpty, "no file in the folder"),
        ] {
            let place = Place::folder(kind, files);
            fault_of(place.plan(10).await, code, says);
        }
        // Objects without a header may lack keys: the columns are all of them.
        let place = Place::folder(kind, &[("a.jsonl", b"{\"phone\":\"1\"}\n"), ("b.jsonl", b"{\"vip\":true,\"phone\":\"2\"}\n")]);
        let plan = place.plan(10).await.expect("a plan");
        assert_eq!(plan.columns, ["phone", "vip"]);
        assert_eq!(all(&place.read_all(&plan, 10).await.expect("records")), ["1: 1|", "1: 2|true"]);
    }
}

#[tokio::test]
async fn a_row_that_is_wrong_is_wrong_in_its_own_file() {
    for kind in KINDS {
        let open = "phone,name\n1,a\n2,\"open\n";
        let place = Place::folder(kind, &[("a.csv", open.as_bytes()), ("b.csv", b"phone,name\n3,c\n4\n")]);
        let plan = place.plan(100).await.expect("a plan");
        let found = all(&place.read_all(&plan, 10).await.expect("records"));
        let (open, short) = ("3: SF-2007 a quote is opened and never closed", "3: SF-2007 has 1 field, the header has 2");
        assert_eq!(found, ["2: 1|a", open, "2: 3|c", short], "a quote does not reach into the next file");
    }
}

#[tokio::test]
async fn a_folder_of_too_many_files_is_refused() {
    for kind in KINDS {
        let place = Place::folder(kind, &[]);
        (0..1_001).for_each(|n| place.write(&format!("{n}.csv"), b"phone\n1\n"));
        fault_of(place.plan(10).await, Code::InputInvalid, "more than 1000 files");
        place.remove("1000.csv");
        assert_eq!(place.plan(10).await.expect("a plan").records, 1_000);
    }
}

#[tokio::test]
async fn links_within_a_folder_are_files_and_links_out_of_it_are_refused() {
    let place = Place::folder(Kind::Local, &[("a.csv", b"phone\n1\n")]);
    std::os::unix::fs::symlink("a.csv", place.list().join("b.csv")).expect("a link");
    assert_eq!(place.plan(10).await.expect("a plan").records, 2);
    std::fs::write(place.folder.path().join("secret.csv"), "phone\n7\n").expect("written");
    std::os::unix::fs::symlink("../secret.csv", place.list().join("c.csv")).expect("a link");
    fault_of(place.plan(10).await, Code::SourceForbidden, "c.csv is a link that leads out");
}

#[tokio::test]
async fn a_plan_of_a_file_does_not_read_a_folder_and_the_other_way_round() {
    let place = Place::new(b"phone\n1\n", "");
    let plan = place.plan(10).await.expect("a plan");
    std::fs::remove_file(place.list()).expect("removed");
    std::fs::create_dir(place.list()).expect("a folder");
    std::fs::write(place.list().join("a.csv"), "phone\n1\n").expect("written");
    let opened = place.source.open(&place.spec, &plan, &plan.ranges[0]).await.map(|_| ());
    fault_of(opened, Code::SourceChanged, "planned");
}
