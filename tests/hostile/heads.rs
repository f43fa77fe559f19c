//! Heads that no browser sends: floods, huge lines, and garbage before, inside and behind requests.

use super::{Answer, is_well, peak_mb, said};
use crate::endtoend::fixture::Place;
use crate::endtoend::service::Service;

#[test]
fn floods_of_headers_and_garbage_are_refused_and_cost_nothing() {
    let service = Service::start(Place::new(1, 1));
    let key = service.key("operator");
    is_well(&service);
    let before = peak_mb(&service);
    let get = |more: String| format!("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n").into_bytes();
    let post = |more: &str| {
        format!("POST /v1/batches HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: k\r\n{more}")
            .into_bytes()
    };
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("five thousand headers", get(many(5_000))),
        ("a hundred headers", get(many(100))),
        ("the same header again and again", get("Authorization: Bearer x\r\n".repeat(200))),
        ("a value of a megabyte", get(format!("X: {}\r\n", "y".repeat(1 << 20)))),
        ("a name of a megabyte", get(format!("{}: y\r\n", "X".repeat(1 << 20)))),
        ("a header that never ends", [b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".to_vec(), vec![b'y'; 4 << 20]].concat()),
        ("an address of a megabyte", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes()),
        ("a query of a megabyte", format!("GET /healthz?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a=b&".repeat(1 << 18)).into_bytes()),
        ("a method of a megabyte", format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", "G".repeat(1 << 20)).into_bytes()),
        ("a NUL in a header", get("X: a\0b\r\n".into())),
        ("a line feed in a name", get("X\nY: a\r\n".into())),
        ("a blank in a name", get("X Y: a\r\n".into())),
        ("no colon", get("nothing\r\n".into())),
        ("nothing but line ends", b"\r\n".repeat(100_000)),
        ("random octets", (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect()),
        ("TLS where none is spoken", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("HTTP/2 where none is spoken", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("a version that is none", b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n".to_vec()),
        ("a length below nothing", post("Content-Length: -1\r\n\r\n{}")),
        ("a length beyond all numbers", post("Content-Length: 99999999999999999999999\r\n\r\n{}")),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ")),
        ("two lengths in one", post("Content-Length: 2, 3\r\n\r\n{} ")),
        ("chunks of no size", post("Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n")),
        ("chunks beyond all numbers", post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
        ("an encoding that is none", post("Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n")),
    ];
    for (what, bytes) in cases {
        let answer = Answer::of(&said(&service, &bytes));
        let refused = answer.status == 0 || (400..500).contains(&answer.status) || answer.status == 505;
        assert!(refused, "{what}: {} {}", answer.status, answer.head);
        assert!(answer.head.len() < 2_000 && answer.body.len() < 2_000, "{what}: an answer is no echo: {answer:?}");
    }
    is_well(&service);
    let grown = peak_mb(&service) - before;
    assert!(grown < 64, "{grown} MB more");
    service.stop().ended(0);
}

#[test]
fn what_is_smuggled_behind_a_request_is_no_request() {
    let service = Service::start(Place::new(1, 1));
    let key = service.key("viewer");
    let get = "GET /v1/batches HTTP/1.1\r\nHost: x\r\n";
    let counted = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(&said(&service, bytes)).into_owned();
        text.match_indices("HTTP/1.1 ").map(|(at, _)| text[at + 9..at + 12].to_owned()).collect::<Vec<_>>()
    };
    // Garbage behind a good request: the good one is answered, the rest is refused, and the connection ends.
    let good = format!("{get}Authorization: Bearer {key}\r\n\r\n");
    assert_eq!(counted(&[good.as_bytes(), b"\x00\x01\x02garbage\r\n\r\n", good.as_bytes()].concat()), ["200", "400"]);
    // A key counts for the request that carries it, and for none behind it on the same connection.
    assert_eq!(counted(format!("{good}{get}\r\n{get}Connection: close\r\n\r\n").as_bytes()), ["200", "401", "401"]);
    // Length and chunks at once: whichever is believed, the rest never counts as a request with rights.
    let inner = format!("DELETE /v1/keys/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
    let length = 5 + inner.len();
    let both = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
    );
    let answers = counted(both.as_bytes());
    assert!(answers.len() <= 2 && answers.iter().all(|status| ["400", "401", "403"].contains(&status.as_str())), "{answers:?}");
    is_well(&service);
    service.stop().ended(0);
}
