//! Files that are no lists, that change, that are copies; and what of it stays on disk.

use std::time::{Duration, SystemTime};

use smsfleet::adapters::source::{ListSource, expire, expire_converted, spool, sweep};
use smsfleet::model::code::Code;
use smsfleet::model::limits::{COLUMNS_MAX, READ_BYTES_MAX, RECORD_BYTES_MAX};
use smsfleet::model::record::Record;
use smsfleet::ports::source::{Source, SourceSpec};

use super::{KINDS, Place, fault_of, files_in, shown};

#[tokio::test]
async fn what_is_no_list_says_what_to_do() {
    let gz = |bytes: &[u8]| {
        let mut gz = vec![];
        std::io::Read::read_to_end(&mut flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()), &mut gz).expect("gzip");
        gz
    };
    let rows = (0..50_000).map(|n| format!("{n},{}\n", n * 7_919 % 10_007)).collect::<String>();
    let whole = gz(format!("phone,name\n{rows}").as_bytes());
    let half_zstd = zstd::encode_all(rows.as_bytes(), 1).expect("zstd");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xFF;
    for (bytes, dialect, code, says) in [
        (b"".to_vec(), "", Code::SourceEmpty, "no record"),
        (b"\n\r\n\n".to_vec(), "", Code::SourceEmpty, "no record"),
        (b"\xEF\xBB\xBF".to_vec(), "", Code::SourceEmpty, "no record"),
        (b"phone,name\n".to_vec(), "", Code::SourceEmpty, "after its header"),
        (b"phone,name".to_vec(), "", Code::SourceEmpty, "after its header"),
        (b"sep=;\n".to_vec(), "", Code::SourceEmpty, "no record"),
        (gz(b""), "", Code::SourceEmpty, "no record"),
        (b"\x89PNG\r\n\x1a\n\0\0\0".to_vec(), "", Code::SourceNotText, "PNG"),
        (b"PK\x03\x04\x14\0\x06\0[Content_Types].xml".to_vec(), "", Code::SourceNotText, "Excel"),
        (gz(b"\x89PNG\r\n\x1a\n\0\0\0"), "", Code::SourceNotText, "PNG"),
        (b"\x01\x02\0\x03".to_vec(), "", Code::SourceNotText, "binary"),
        (b"[{\"phone\":1}]".to_vec(), "", Code::SourceNotText, "array"),
        (b"7\n8\n".to_vec(), "format=jsonl", Code::SourceNotText, "JSON object"),
        (b"{}\n{}\n".to_vec(), "", Code::InputInvalid, "no columns"),
        (b"phone,phone\n1,2\n".to_vec(), "", Code::InputInvalid, "\"phone\" twice"),
        (b"phone,\n1,2\n".to_vec(), "", Code::InputInvalid, "column 2"),
        (b"13800138000,a\n13900139000,b\n".to_vec(), "", Code::InputInvalid, "header=no"),
        (b"\"phone,name\n1,2\n".to_vec(), "", Code::SourceNotText, "quote"),
        (",".repeat(2_000).into_bytes(), "header=no", Code::InputInvalid, "1024"),
        (b"a\n1\n".to_vec(), "colour=red", Code::InputInvalid, "colour"),
        (whole[..whole.len() / 2].to_vec(), "", Code::SourceBroken, ""),
        (damaged, "", Code::SourceBroken, ""),
        (half_zstd[..half_zstd.len() - 5].to_vec(), "", Code::SourceBroken, ""),
    ] {
        for kind in KINDS {
            let place = Place::of(kind, &bytes, dialect);
            fault_of(place.plan(1_000).await, code, says);
            assert!(files_in(&place.spool()).iter().all(|name| !name.ends_with(".half")), "half a copy stays");
        }
    }
    let place = Place::new(b"a\n1\n", "");
    let at = |table_name: String| SourceSpec { table_name, ..SourceSpec::default() };
    fault_of(place.source.plan(&at("no/such/list.csv".into()), 1).await, Code::SourceNotFound, "no/such/list.csv");
    fault_of(place.source.plan(&at("/dev/null".into()), 1).await, Code::SourceNotFound, "regular file");
}

#[tokio::test]
async fn what_expands_without_end_is_refused() {
    let place = Place::new(&zstd::encode_all(&vec![b'x'; 8 << 20][..], 1).expect("zstd"), "");
    let source = ListSource::new(place.spool()).with_expanded_max(1 << 20);
    fault_of(source.plan(&place.spec, 1).await, Code::SourceBroken, "expands to more than 1048576");
    assert_eq!(files_in(&place.spool()), [""; 0]);
}

#[tokio::test]
async fn a_list_that_changes_is_noticed() {
    for (kind, packed) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let text: String = "phone,name\n".to_string() + &"1,a\n".repeat(100);
        let bytes = if packed { zstd::encode_all(text.as_bytes(), 1).expect("zstd") } else { text.clone().into_bytes() };
        let place = Place::of(kind, &bytes, "");
        let plan = place.plan(10).await.expect("a plan");

        place.write("list", &[&bytes[..], b"2,b\n"].concat());
        fault_of(place.read(&plan, 0, 10).await, Code::SourceChanged, "planned");
    }
    // The same size, time and inode, as a clumsy copy leaves them: the content of the range tells.
    let place = Place::new(("phone,name\n".to_string() + &"1,a\n".repeat(100)).as_bytes(), "");
    let plan = place.plan(10).await.expect("a plan");
    let time = std::fs::metadata(place.list()).and_then(|facts| facts.modified()).expect("a time");
    let mut bytes = std::fs::read(place.list()).expect("read");
    let place_of_row_55 = 11 + 4 * 55;
    bytes[place_of_row_55] = b'7';
    std::fs::write(place.list(), bytes).expect("written");
    std::fs::File::options().write(true).open(place.list()).and_then(|file| file.set_modified(time)).expect("set");
    assert_eq!(place.read(&plan, 4, 3).await.expect("untouched").len(), 10);
    fault_of(place.read(&plan, 5, 3).await, Code::SourceChanged, "planned");
}

#[tokio::test]
async fn standard_input_becomes_a_file_that_stays_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("spool");
    let list = "phone,name\n1,a\n";
    let path = spool(list.as_bytes(), &dir).expect("spooled");
    assert_eq!(spool(list.as_bytes(), &dir).expect("spooled again"), path);
    assert_ne!(spool(&b"phone\n2\n"[..], &dir).expect("another"), path);
    assert_eq!((files_in(&dir).len(), std::fs::read_to_string(&path).expect("read").as_str()), (2, list));

    let source = ListSource::new(dir.clone());
    let spec = SourceSpec { table_name: path.display().to_string(), ..SourceSpec::default() };
    let plan = source.plan(&spec, 10).await.expect("a plan");
    // The same bytes under another inode, as after a restore of the folder.
    std::fs::remove_file(&path).expect("removed");
    spool(list.as_bytes(), &dir).expect("spooled");
    let mut reader = source.open(&spec, &plan, &plan.ranges[0]).await.expect("the same list");
    assert_eq!(reader.read(5).await.expect("records").iter().map(shown).collect::<Vec<_>>(), ["2: 1|a"]);

    std::fs::write(dir.join("1-1.half"), "half").expect("written");
    sweep(&dir).expect("swept");
    assert_eq!(files_in(&dir).len(), 2);
    sweep(&folder.path().join("none")).expect("nothing to sweep");

    // What is used stays, whenever it was made.
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
    for name in files_in(&dir) {
        let file = std::fs::File::open(dir.join(name)).expect("opened");
        file.set_modified(SystemTime::now() - 2 * hour).expect("made old");
    }
    source.open(&spec, &plan, &plan.ranges[0]).await.expect("used");
    assert_eq!(expire_converted(&dir, SystemTime::now() + second).expect("expired"), 0, "none of them is one");
    assert_eq!(expire(&dir, SystemTime::now() - hour).expect("expired"), 1);
    assert!(path.exists());
    assert_eq!(expire(&dir, SystemTime::now() + second).expect("expired"), 1);
}

#[tokio::test]
async fn a_copy_is_made_once_and_again_when_it_is_gone() {
    let text = "phone,name\n1,张三\n";
    for kind in KINDS {
        let place = Place::of(kind, &zstd::encode_all(text.as_bytes(), 1).expect("zstd"), "");
        let plan = place.plan(10).await.expect("a plan");
        let [copy] = &files_in(&place.spool())[..] else { panic!("one copy") };
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(place.spool().join(copy)).expect("it is there"));
        let made = inode();
        assert_eq!(place.plan(10).await.expect("the same plan"), plan);
        assert_eq!(made, inode(), "the second attempt finds it");
        // It is kept while it is used, and then not for long.
        let hour = Duration::from_secs(3_600);
        assert_eq!(expire_converted(&place.spool(), SystemTime::now() - hour).expect("expired"), 0);
        let file = std::fs::File::open(place.spool().join(copy)).expect("opened");
        file.set_modified(SystemTime::now() - 2 * hour).expect("made old");
        assert_eq!(expire_converted(&place.spool(), SystemTime::now() - hour).expect("expired"), 1);
        assert_eq!(place.read(&plan, 0, 10).await.expect("records").len(), 1, "it is made again");
        std::fs::remove_dir_all(place.spool()).expect("removed");
        assert_eq!(place.read(&plan, 0, 10).await.expect("records").iter().map(shown).collect::<Vec<_>>(), ["2: 1|张三"]);
    }
}

#[tokio::test]
async fn one_read_gives_no_more_than_a_few_megabytes_of_records() {
    let large = format!("{},b\n", "x".repeat(RECORD_BYTES_MAX - 2));
    let too_long = format!("{},b\n", "x".repeat(2 * RECORD_BYTES_MAX));
    let keys: Vec<String> = (0..COLUMNS_MAX).map(|n| format!("\"c{n}\":1")).collect();
    for (what, bytes, count, reads_at_least) in [
        ("long fields", format!("a,b\n{}", large.repeat(20)), 20, 3),
        // Nothing of them is kept, but they are read all the same.
        ("fields that are too long", format!("a,b\n{}", too_long.repeat(9)), 9, 3),
        ("many fields", format!("{{{}}}\n{}", keys.join(","), "{}\n".repeat(800)), 801, 3),
        ("small ones", format!("a,b\n{}", "1,2\n".repeat(1_000)), 1_000, 1),
    ] {
        for kind in KINDS {
            let place = Place::of(kind, bytes.as_bytes(), "");
            let plan = place.plan(1_000).await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
            let mut reader = place.source.open(&place.spec, &plan, &plan.ranges[0]).await.expect("it is there");
            let (mut next, mut reads) = (0, 0);
            loop {
                let records = reader.read(1_000).await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
                if records.is_empty() {
                    break;
                }
                let bytes: usize = records.iter().map(Record::bytes).sum();
                assert!(bytes < READ_BYTES_MAX + 2 * RECORD_BYTES_MAX, "{what}: {bytes} bytes at once");
                assert!(records.iter().zip(next..).all(|(record, n)| record.record == n), "{what}: in order, none left out");
                next += records.len() as u64;
                reads += 1;
            }
            assert_eq!(next, count, "{what}");
            assert!(reads >= reads_at_least && (reads_at_least > 1 || reads == 1), "{what}: {reads} reads");
        }
    }
}
