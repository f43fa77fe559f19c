//! Lists that are small until they are opened.

use std::io::Write;

use serde_json::{Value, json};

use super::{Answer, configured, create, id_of, is_well, peak_mb, said, wait};
use crate::endtoend::fixture::Place;
use crate::endtoend::service::Service;

const MEGABYTE: usize = 1 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("memory is written")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).expect("memory is written")
}

fn upload(service: &Service, key: &str, bytes: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/uploads HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    Answer::of(&said(service, &[head.as_bytes(), bytes].concat()))
}

/// Bytes of all files below a folder.
fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .map(|path| if path.is_dir() { size_of(&path) } else { path.metadata().map_or(0, |facts| facts.len()) })
        .sum()
}

#[test]
fn a_list_that_expands_without_end_is_refused_and_leaves_nothing() {
    let place = Place::new(1, 1);
    configured(&place, "[sources]\nexpanded_mb = 300\n");
    let service = Service::start(place);
    let key = service.key("operator");
    is_well(&service);
    let before = peak_mb(&service);
    let header = b"phone,name\n";
    let rows: Vec<u8> = b"+8613900000001,aaaaaaaaaaaaaaaa\n".repeat(4 * MEGABYTE / 32);
    let blank = vec![b' '; 4 * MEGABYTE];
    let nothing = vec![0; 4 * MEGABYTE];
    // Members and frames stand behind each other, as many as one likes: four gigabytes each.
    let of = |first: Vec<u8>, more: &[u8]| [first, more.repeat(1_024)].concat();
    let skippable = [&[0x50, 0x2A, 0x4D, 0x18][..], &0_u32.to_le_bytes()].concat().repeat(500_000);
    let cases = [
        ("rows, gzip", of(gzip(header), &gzip(&rows)), "SF-1008"),
        ("rows, zstd", of(zstd(header), &zstd(&rows)), "SF-1008"),
        ("one record without an end, gzip", of(gzip(header), &gzip(&blank)), "SF-1008"),
        ("one record without an end, zstd", of(zstd(header), &zstd(&blank)), "SF-1008"),
        ("nothing but zeros, gzip", of(gzip(b""), &gzip(&nothing)), "SF-1002"),
        ("nothing but zeros, zstd", of(zstd(b""), &zstd(&nothing)), "SF-1002"),
        ("gzip in gzip in gzip", gzip(&gzip(&gzip(&rows))), "SF-1002"),
        ("zstd in gzip", gzip(&zstd(&rows)), "SF-1002"),
        ("frames with nothing in them", [skippable, zstd(b"")].concat(), "SF-1003"),
        ("a ZIP archive", [b"PK\x03\x04".to_vec(), nothing[..1_000].to_vec()].concat(), "SF-1002"),
        ("gzip that breaks off", gzip(&rows)[..1_000].to_vec(), "SF-1008"),
        ("gzip of noise", [vec![0x1f, 0x8b, 8, 0], rows[..1_000].to_vec()].concat(), "SF-1008"),
        ("zstd that wants gigabytes", [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA0][..], &[0; 64]].concat(), "SF-1008"),
    ];
    let mut made = vec![];
    for (at, (what, bytes, code)) in cases.into_iter().enumerate() {
        assert!(bytes.len() < 16 * MEGABYTE, "{what}: {} bytes are no bomb", bytes.len());
        let kept = upload(&service, &key, &bytes);
        assert_eq!(kept.status, 200, "{what}: {kept:?}");
        let wish = json!({ "source": { "upload_id": kept.json()["upload_id"] }, "content": "Hello", "prepare": true });
        made.push((what, id_of(&create(&service, &key, &format!("k{at}"), &wish)), code));
    }
    for (what, id, code) in made {
        let seen = wait(&service, &key, &id, super::is_prepared);
        let reason = seen["preparation"]["reason"].to_string();
        assert!(seen["plan"] == Value::Null && reason.contains(code), "{what}: {seen}");
    }
    let grown = peak_mb(&service) - before;
    assert!(grown < 256, "{grown} MB more");
    let spool = size_of(&service.place.path("smsfleet-data/spool"));
    assert!(spool < MEGABYTE as u64, "{spool} bytes were left behind");
    is_well(&service);
    service.stop().ended(0);
}
