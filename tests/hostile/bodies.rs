//! Bodies that are too large, and too many requests: refused early, in bounded memory.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Answer, ask, batch, call, configured, create, host, id_of, is_well, peak_mb, wire};
use crate::endtoend::fixture::{Place, until};
use crate::endtoend::service::Service;

const GIGABYTE: usize = 1 << 30;
/// What the buffers of two sockets may swallow before a sender notices that nobody reads.
const BUFFERED: usize = 32 << 20;
/// What a service may need more than it did when nothing happened, in megabytes.
const GROWTH_MB: u64 = 96;

fn service() -> Service {
    let place = Place::new(1, 1);
    configured(
        &place,
        "[serve]\nlisten = \"127.0.0.1:0\"\nrequests_per_second = 1000000\n[uploads]\nmax_mb = 32\n[accounts.web]\nprotocol = \"http\"\n\
         [accounts.web.capabilities]\nlong_message = \"payload\"\n[accounts.web.http]\nurl = \"http://127.0.0.1:1/\"\n\
         answer = { id = \"/id\" }\nreceipts = { token = \"push-me\" }\ninbound = { token = \"push-me\" }\n",
    );
    Service::start(place)
}

/// Sends a head and then a gigabyte, in pieces as `chunked` says, until the other side does not want any more. What it
/// answered, and how much it let through.
fn pour(service: &Service, head: &str, chunked: bool) -> (Answer, usize) {
    let mut stream = wire(service);
    let mut read = stream.try_clone().expect("a second handle");
    let answer = Arc::new(Mutex::new(vec![]));
    let into = answer.clone();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4_096];
        while let Ok(count @ 1..) = read.read(&mut piece) {
            into.lock().expect("not poisoned").extend_from_slice(&piece[..count]);
        }
    });
    stream.write_all(head.as_bytes()).expect("the head is taken");
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < GIGABYTE {
        let written = match chunked {
            true => write!(stream, "{:x}\r\n", piece.len())
                .and_then(|()| stream.write_all(&piece))
                .and_then(|()| stream.write_all(b"\r\n")),
            false => stream.write_all(&piece),
        };
        if written.is_err() {
            break;
        }
        sent += piece.len();
    }
    let _ = stream.shutdown(Shutdown::Write);
    reader.join().expect("it was read");
    let answer = Answer::of(&answer.lock().expect("not poisoned"));
    (answer, sent)
}

#[test]
fn a_gigabyte_is_refused_before_it_came() {
    let service = service();
    let key = service.key("operator");
    is_well(&service);
    let before = peak_mb(&service);
    // Path, who asks, the statuses with a length and without one.
    let cases = [
        ("/v1/batches", key.as_str(), (413, 413)),
        ("/v1/suppressions/commands/add", &key, (413, 413)),
        ("/v1/uploads", &key, (413, 413)),
        ("/v1/batches", "nobody", (413, 401)),
        ("/v1/receipts/web", "push-me", (413, 413)),
        ("/v1/inbound/web", "push-me", (413, 413)),
        ("/v1/receipts/web", "wrong", (413, 422)),
        ("/healthz", "", (413, 405)),
        ("/nothing/here", "", (413, 404)),
    ];
    for (path, key, (announced, chunked)) in cases {
        let head = |body: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: k\r\nContent-Type: text/csv\r\n{body}\r\n\r\n"
            )
        };
        let (answer, sent) = pour(&service, &head(&format!("Content-Length: {GIGABYTE}")), false);
        assert_eq!(answer.status, announced, "{path}: {answer:?}");
        assert!(sent < BUFFERED, "{path}: {sent} bytes of an announced gigabyte were let in");
        let (answer, sent) = pour(&service, &head("Transfer-Encoding: chunked"), true);
        assert_eq!(answer.status, chunked, "{path}: {answer:?}");
        assert!(sent < 2 * BUFFERED, "{path}: {sent} bytes of an endless body were let in");
        is_well(&service);
    }
    // What is announced is refused without a word that asks for it.
    let mut stream = wire(&service);
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\nContent-Length: {GIGABYTE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("answered");
    assert_eq!(&first, b"HTTP/1.1 413");
    let grown = peak_mb(&service) - before;
    assert!(grown < GROWTH_MB, "{grown} MB more");
    assert!(
        !service.place.path("smsfleet-data/uploads").read_dir().is_ok_and(|mut files| files.next().is_some()),
        "nothing stays"
    );
    service.stop().ended(0);
}

#[test]
fn strangers_fill_no_memory() {
    const STRANGERS: usize = 64;
    let service = service();
    is_well(&service);
    let before = peak_mb(&service);
    let body = vec![b'x'; (4 << 20) - 1];
    let mut held = vec![];
    for stranger in 0..STRANGERS {
        let mut stream = wire(&service);
        stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("a time");
        let (path, token) =
            [("receipts", "wrong"), ("inbound", ""), ("receipts", "push-m"), ("inbound", "push-me2")][stranger % 4];
        let head = format!("POST /v1/{path}/web?token={token} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 4 << 20);
        stream.write_all(head.as_bytes()).expect("sent");
        // Just within the limit, and never ended: whoever reads it keeps it.
        let _ = stream.write_all(&body);
        held.push(stream);
    }
    for stream in &mut held {
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 422"), "{}", String::from_utf8_lossy(&answer));
    }
    let grown = peak_mb(&service) - before;
    assert!(grown < STRANGERS as u64 * 4 / 3, "{STRANGERS} strangers with 4 MB each made it grow by {grown} MB");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn those_who_have_a_key_fill_no_memory_either() {
    const CALLERS: usize = 160;
    /// What all bodies together may hold, in megabytes.
    const BOUND_MB: u64 = 256;
    let service = service();
    let key = service.key("operator");
    is_well(&service);
    let before = peak_mb(&service);
    let body = vec![b' '; (4 << 20) - 1];
    let mut held = vec![];
    for _ in 0..CALLERS {
        let mut stream = wire(&service);
        stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("a time");
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: k\r\nContent-Length: {}\r\n\r\n",
            4 << 20
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // Just within the limit, and never ended.
        let _ = stream.write_all(&body);
        held.push(stream);
    }
    let told_to_wait = held.iter_mut().filter(|stream| {
        stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a time");
        let mut first = [0; 1_024];
        let read = (&mut &**stream).read(&mut first).unwrap_or(0);
        let text = String::from_utf8_lossy(&first[..read]).to_ascii_lowercase();
        assert!(text.is_empty() || text.starts_with("http/1.1 429") && text.contains("retry-after: 1"), "{text}");
        !text.is_empty()
    });
    let told_to_wait = told_to_wait.count();
    assert!(told_to_wait > CALLERS / 3, "{told_to_wait} were told to come again");
    let grown = peak_mb(&service) - before;
    assert!(grown < BOUND_MB + GROWTH_MB, "{CALLERS} callers with 4 MB each made it grow by {grown} MB");
    // Who wants little is served meanwhile, and who wants much as soon as the others have gone.
    let little = batch("Hello", &[("+8613900000001", "a")]).to_string();
    let asked = |body: &str| ask(&service, &key, "POST", "/v1/batches", "Idempotency-Key: k\r\n", body);
    assert_eq!(asked(&little).code(), "SF-5008", "two provider types are configured");
    let much = " ".repeat(4 << 20);
    assert_eq!(asked(&much).code(), "SF-7004");
    drop(held);
    until("there is room again", || asked(&much).code() == "SF-6002");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn commands_that_say_much_leave_a_short_trail() {
    const COMMANDS: usize = 100;
    let service = service();
    let admin = service.key("admin");
    let mut wish = batch("Hello", &[("+8613900000001", "a")]);
    wish["provider_type"] = json!("main");
    let id = id_of(&create(&service, &admin, "k", &wish));
    let command = |word: &str, wish: &Value| call(&service, &admin, "POST", &format!("/v1/batches/{id}/commands/{word}"), wish);
    // What names nothing that can be is refused before anything is written down.
    let long = "0".repeat(3_900_000);
    let refused = [
        ("start", json!({ "plan_hash": long })),
        ("approve", json!({ "plan_hash": long })),
        ("change_provider", json!({ "provider_type": long, "plan_hash": "00" })),
        ("change_provider", json!({ "provider_type": "main", "plan_hash": long })),
        ("retry", json!({ "what": "failed", "plan_hash": long })),
        ("retry", json!({ "what": "filter", "details": [long], "plan_hash": "00" })),
        ("retry", json!({ "what": "filter", "accounts": vec!["a"; 101], "plan_hash": "00" })),
        ("retry", json!({ "what": "filter", "codes": vec!["SF-5001"; 101] })),
        ("retry", json!({ "what": "filter", "numbers": vec!["+8613900000001"; 1_001] })),
    ];
    for (word, wish) in &refused {
        let answer = command(word, wish);
        assert_eq!((answer.status, answer.code().as_str()), (422, "SF-6002"), "{word}: {}", answer.body.len());
    }
    let hook = call(&service, &admin, "POST", "/v1/webhooks", &json!({ "url": long, "events": ["batch"] }));
    assert_eq!(hook.status, 422);
    // As much as may be said.
    let wish = json!({ "what": "filter", "details": vec!["x".repeat(256); 100], "plan_hash": "00" });
    for _ in 0..COMMANDS {
        assert_eq!(command("retry", &wish).code(), "SF-3003", "there is nothing to retry");
    }
    let trail = ask(&service, &admin, "GET", "/v1/audit?limit=500", "", "");
    let entries = trail.json()["entries"].as_array().map_or(0, Vec::len);
    assert!((2 * COMMANDS..2 * COMMANDS + 10).contains(&entries), "{entries} entries");
    assert!(trail.body.len() < entries * 3_000, "{entries} entries have {} bytes", trail.body.len());
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn many_small_requests_are_answered_in_bounded_memory() {
    const CALLERS: u64 = 16;
    const AT_ONCE: u64 = 25;
    let all: u64 = std::env::var("SMSFLEET_HOSTILE_REQUESTS").map_or(20_000, |text| text.parse().expect("a number"));
    let service = service();
    let key = service.key("viewer");
    is_well(&service);
    let before = peak_mb(&service);
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    // Each kind with the status of its answer: known, refused, not there, and invented keys and codes, each another.
    let request = |n: u64| match n % 5 {
        0 => ("GET /v1/suppressions".to_owned(), key.clone(), 200),
        1 => ("GET /v1/batches".to_owned(), format!("sfk_{n:010}_{n:032}"), 401),
        2 => (format!("GET /{n:08}"), String::new(), 404),
        3 => (format!("GET /v1/batches/{n:032x}"), key.clone(), 404),
        _ => ("GET /healthz".to_owned(), String::new(), 200),
    };
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut stream = wire(&service);
                let mut seen = vec![];
                loop {
                    let from = asked.fetch_add(AT_ONCE, Ordering::Relaxed);
                    if from >= all {
                        break;
                    }
                    let (mut text, mut expected) = (String::new(), vec![]);
                    for n in from..from + AT_ONCE {
                        let (line, key, status) = request(n);
                        text += &format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
                        expected.push(format!("HTTP/1.1 {status} "));
                    }
                    stream.write_all(text.as_bytes()).expect("it reads");
                    let mut piece = [0; 16_384];
                    let statuses = |seen: &[u8]| String::from_utf8_lossy(seen).matches("HTTP/1.1 ").count() as u64;
                    // The last of each lot is the one about its health.
                    while statuses(&seen) < AT_ONCE || !seen.ends_with(b"ok\n") {
                        let count = stream.read(&mut piece).expect("it answers");
                        assert!(count > 0, "it closed: {}", String::from_utf8_lossy(&seen));
                        seen.extend_from_slice(&piece[..count]);
                    }
                    let text = String::from_utf8_lossy(&seen);
                    let found: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at..at + 13]).collect();
                    assert_eq!(found, expected);
                    seen.clear();
                    answered.fetch_add(AT_ONCE, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(answered.load(Ordering::Relaxed) >= all, "{}", host(&service));
    let grown = peak_mb(&service) - before;
    assert!(grown < GROWTH_MB, "{all} requests made it grow by {grown} MB");
    let metrics = ask(&service, "", "GET", "/metrics", "", "").body;
    assert!(metrics.lines().count() < 2_000, "no label is made of what strangers say: {} lines", metrics.lines().count());
    assert!(!metrics.contains(&"0".repeat(20)), "no invented key or id is in the metrics");
    until("it is well", || ask(&service, "", "GET", "/healthz", "", "").status == 200);
    is_well(&service);
    service.stop().ended(0);
}
