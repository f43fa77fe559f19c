//! Hostile input at the edges, over real sockets against `smsfleet all`: what strangers, and callers who want more than is theirs, send.
//!
//! | input | shown by |
//! |---|---|
//! | bodies of 1 GB, announced and not | `bodies::a_gigabyte_is_refused_before_it_came`; of strangers at the callbacks: `bodies::strangers_fill_no_memory`; of many with a key: `bodies::those_who_have_a_key_fill_no_memory_either`, `serve::flight` |
//! | commands that say much, in the trail | `bodies::commands_that_say_much_leave_a_short_trail`; `access::audit` |
//! | a million small requests | `bodies::many_small_requests_are_answered_in_bounded_memory` (`SMSFLEET_HOSTILE_REQUESTS=1000000`); its pace: `serve::access`, `serve::api::tests::a_key_that_asks_too_often_is_told_to_wait_and_others_are_not` |
//! | slow heads and handshakes, all places taken | `slow::{one_machine_that_dribbles_does_not_shut_out_others, heads_that_dribble_are_ended_however_steadily, a_connection_that_says_nothing_is_closed}`, `serve::listen::tests`, `serve::places` |
//! | slow bodies, of callers and of providers | `slow::a_body_that_dribbles_is_ended`; uploads: `serve::api::tests::an_upload_that_stands_still_is_ended_and_nothing_stays` |
//! | slow readers | `slow::whoever_does_not_read_its_answers_is_left`, `serve::places` |
//! | floods of headers, huge lines, garbage behind a request | `heads` |
//! | wrong, expired, revoked keys | `keys::no_key_but_a_valid_one_opens_any_route`; `access::keys`; streams of a revoked one: `serve::router::tests::a_stream_ends_with_its_key` |
//! | role escalation | `keys::a_role_opens_its_own_routes_and_no_other`; `serve::api::tests::a_role_may_do_its_own_and_no_more` |
//! | other tenants | `keys::{nothing_of_another_tenant_is_seen_or_commanded, what_people_write_is_given_to_nobody_by_guess}`; `serve::api::tests`, `receipts::tests` |
//! | paths and SSRF in sources | `addresses::no_address_of_a_list_leads_where_the_configuration_does_not`, `addresses::nobody_is_led_elsewhere_by_a_store`; `sources::addresses`, `adapters::source::address` |
//! | SSRF in webhooks, names that lead elsewhere later | `addresses::no_webhook_leads_inside`; `adapters::webhook::{rules, caller, address}` |
//! | forged receipts | `receipts::only_the_account_that_sent_is_believed`, `receipts::what_is_no_receipt_is_refused`; `receipts::reference`, `adapters::http::receipt` |
//! | open redirects, guessed codes, parameters that multiply | `links`; `links::target`, `endtoend::clicks` |
//! | template bombs | `templates`; `prepare::template` |
//! | decompression bombs | `bombs`; `sources::files::what_expands_without_end_is_refused` |
//! | formulas in exports | `exports`; `serve::guard` |
//! | numbers and texts in logs | `logs::a_known_number_and_text_are_nowhere_in_the_logs`; `endtoend::masked` |

mod addresses;
mod bodies;
mod bombs;
mod exports;
mod heads;
mod keys;
mod links;
mod logs;
mod receipts;
mod slow;
mod templates;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::endtoend::fixture::{DEADLINE, Place, until};
use crate::endtoend::service::Service;

/// What came back for one request.
#[derive(Debug)]
pub struct Answer {
    /// The status; 0 when the connection ended without one.
    pub status: u16,
    /// Its headers, in small letters.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    fn of(bytes: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { dechunked(body) } else { body.to_owned() };
        Answer { status, head, body }
    }

    /// Its body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A body without the sizes of its chunks.
fn dechunked(body: &str) -> String {
    let (mut all, mut rest) = (String::new(), body);
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else { break };
        let Some((piece, behind)) = behind.split_at_checked(size) else { break };
        all.push_str(piece);
        rest = behind.strip_prefix("\r\n").unwrap_or(behind);
    }
    all
}

/// Host and port of a service.
pub fn host(service: &Service) -> &str {
    service.url.split("//").nth(1).expect("an address")
}

/// A connection to a service.
pub fn wire(service: &Service) -> TcpStream {
    let stream = TcpStream::connect(host(service)).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time");
    stream
}

/// Sends bytes and reads until the other side closes, however it does that.
pub fn said(service: &Service, bytes: &[u8]) -> Vec<u8> {
    let mut stream = wire(service);
    let mut read = stream.try_clone().expect("a second handle");
    let reader = std::thread::spawn(move || {
        let mut all = vec![];
        let _ = read.read_to_end(&mut all);
        all
    });
    // It may close before it has read everything.
    let _ = stream.write_all(bytes);
    reader.join().expect("it was read")
}

/// One request.
pub fn ask(service: &Service, key: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let key = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}Content-Length: {length}\r\n{headers}\r\n");
    Answer::of(&said(service, (head + body).as_bytes()))
}

/// One request with a JSON body, or with none.
pub fn call(service: &Service, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    ask(service, key, method, path, "Content-Type: application/json\r\n", &text)
}

/// Creates a batch under a key of its own; the answer.
pub fn create(service: &Service, key: &str, name: &str, batch: &Value) -> Answer {
    ask(service, key, "POST", "/v1/batches", &format!("Idempotency-Key: {name}\r\n"), &batch.to_string())
}

/// A batch of some recipients, which is prepared at once.
pub fn batch(content: &str, recipients: &[(&str, &str)]) -> Value {
    let recipients: Vec<Value> = recipients.iter().map(|(phone, name)| json!({ "phone": phone, "name": name })).collect();
    json!({ "source": { "recipients": recipients }, "content": content, "prepare": true })
}

/// The id of a batch that was created.
#[track_caller]
pub fn id_of(created: &Answer) -> String {
    let id = created.json().pointer("/batch/batch_id").and_then(Value::as_str).map(str::to_owned);
    id.unwrap_or_else(|| panic!("it was not created: {created:?}"))
}

/// Waits until a batch is as it is wanted; how it is then.
pub fn wait(service: &Service, key: &str, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    until(&format!("batch {id}"), || {
        seen = call(service, key, "GET", &format!("/v1/batches/{id}"), &Value::Null).json();
        no_panic(service);
        wanted(&seen)
    });
    seen
}

/// Whether a batch's preparation came to an end.
pub fn is_prepared(batch: &Value) -> bool {
    batch["plan"].is_object() || batch["preparation"]["state"] == "COMPLETED_FAILED"
}

/// Adds sections to a place's configuration; `{listen}` is any free port of this machine.
pub fn configured(place: &Place, more: &str) {
    let text = std::fs::read_to_string(place.path("smsfleet.toml")).expect("a configuration");
    place.write("smsfleet.toml", format!("{text}\n{more}"));
}

/// The most memory that a process ever held, in megabytes.
pub fn peak_mb(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id)).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).expect("a number") / 1_024
}

/// What a service said so far.
pub fn log(service: &Service) -> Vec<String> {
    service.log.lock().expect("not poisoned").clone()
}

/// That a service still answers others.
#[track_caller]
pub fn is_well(service: &Service) {
    let answer = ask(service, "", "GET", "/healthz", "", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{answer:?}");
    no_panic(service);
}

/// That nothing in a service panicked.
#[track_caller]
pub fn no_panic(service: &Service) {
    let panics: Vec<String> = log(service).into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}

/// A pause between looks.
pub const LOOK: Duration = Duration::from_millis(20);
