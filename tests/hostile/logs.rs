//! A whole run, with everything going wrong that can, at the loudest level: a known number and a known text, and no secret, are in
//! any line of any log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{ask, batch, call, configured, create, id_of, is_prepared, wait};
use crate::endtoend::fixture::{Place, Provider, until};
use crate::endtoend::service::Service;

/// The number, in all its forms.
const NUMBER: &str = "+8613912345678";
const DIGITS: &str = "13912345678";
/// The text, in letters only: digits also come by chance, in a figure of `/metrics` or a time.
const TEXT: &str = "Sesame-Xylograph";

/// A provider that repeats what it is told in everything it answers, each time in another way, and takes every third message.
fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let said: String = String::from_utf8_lossy(&body).replace('"', "'");
            let turn = count.fetch_add(1, Ordering::Relaxed);
            let (status, answer) = match turn % 6 {
                0 | 3 => ("200 OK", format!("{{\"id\":\"{turn}\"}}")),
                1 => ("200 OK", format!("{{\"error\":\"{said}\"}}")),
                2 => ("400 Bad Request", format!("{{\"error\":\"{said}\"}}")),
                4 => ("500 Oh", format!("what is {said}?")),
                _ => ("401 Unauthorized", format!("{{\"error\":\"who is {said}?\"}}")),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nX-Said: {said}\r\nContent-Length: {}\r\n\r\n{answer}",
                answer.len()
            );
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    (at, asked)
}

fn service(provider: &Provider, http: SocketAddr, format: &str) -> Service {
    let place = Place::new(provider.port(), 1_000);
    configured(
        &place,
        &format!(
            r#"[log]
level = "trace"
format = "{format}"
[webhooks]
allow = ["127.0.0.1"]
allow_http = true
allow_private = true
timeout = 1.0
[accounts.web]
protocol = "http"
answer_timeout = 1.0
[accounts.web.capabilities]
long_message = "payload"
[accounts.web.http]
url = "http://{http}/send?to={{{{number}}}}"
body = '{{"to":"{{{{number}}}}","text":"{{{{text}}}}","key":"{{{{key}}}}"}}'
answer = {{ id = "/id", error = "/error" }}
receipts = {{ token = "push-secret", id = "/id", reference = "/key", number = "/to", status = "/status", error = "/error" }}
inbound = {{ token = "push-secret" }}
"#
        ),
    );
    Service::with(place, &["-vvv"])
}

/// Everything that goes wrong, and right, with the number and the text in it.
fn run(service: &Service, dead: SocketAddr, asked: &AtomicUsize) -> Vec<String> {
    let (admin, operator) = (service.key("admin"), service.key("operator"));
    let hook = json!({ "url": format!("http://{dead}/hook?of={DIGITS}"), "events": ["batch", "receipt", "inbound"] });
    assert_eq!(call(service, &admin, "POST", "/v1/webhooks", &hook).status, 200);
    let good = (NUMBER, TEXT);
    let bad_rows = [("+8613912345678999", TEXT), ("139 1234 567", TEXT), (TEXT, NUMBER), ("", TEXT), (NUMBER, TEXT)];
    let people: Vec<(&str, &str)> = std::iter::once(good).chain(bad_rows).collect();
    // Templates that are right, wrong, and wrong for some.
    let templates = [
        format!("{TEXT} for {{{{name}}}}"),
        format!("{TEXT} {{{{name"),
        format!("{TEXT} {{{{ name|int }}}}"),
        format!("{TEXT} {{{{ '{TEXT}'|nosuch }}}}"),
        format!("{TEXT} {{{{ nosuch }}}} {NUMBER}"),
        format!("{{{{ '{NUMBER}'.{TEXT}() }}}}"),
        format!("${{{TEXT} {NUMBER}}}"),
        format!("{{% {TEXT} %}}"),
        format!("{{% include '{NUMBER}' %}}"),
        TEXT.repeat(300),
    ];
    for (at, template) in templates.iter().enumerate() {
        let mut wish = batch(template, &people);
        wish["provider_type"] = json!("main");
        let created = create(service, &operator, &format!("t{at}"), &wish);
        if created.status == 200 {
            wait(service, &operator, &id_of(&created), is_prepared);
        }
    }
    // Lists whose first line is a person.
    let lists = [
        format!("{DIGITS},{TEXT}\n{DIGITS},{TEXT}\n"),
        format!("{TEXT},{DIGITS}\n{TEXT},x\n"),
        format!("{TEXT},x{DIGITS}\n{TEXT},y\n"),
        format!("phone,{TEXT} x{DIGITS},{TEXT} x{DIGITS}\n{DIGITS},a,b\n"),
        format!("{{\"{TEXT}\":\"{NUMBER}\"}}\n{{\"x{DIGITS}\":\"{TEXT}\"}}\n"),
        format!("{{\"phone\":\"{NUMBER}\",\"name\":\"{TEXT}\nbroken\n"),
        format!("phone,name\n\"{NUMBER},{TEXT}\n"),
        format!("phone\n{NUMBER},{TEXT},more\n"),
    ];
    for (at, list) in lists.iter().enumerate() {
        let kept = ask(service, &operator, "POST", "/v1/uploads", "", list);
        assert_eq!(kept.status, 200, "{kept:?}");
        let source = json!({ "upload_id": kept.json()["upload_id"] });
        let wish =
            json!({ "source": source, "content": format!("{TEXT} {{{{name}}}}"), "provider_type": "main", "prepare": true });
        let id = id_of(&create(service, &operator, &format!("l{at}"), &wish));
        wait(service, &operator, &id, is_prepared);
    }
    // Sent over SMPP, which refuses some, and over a provider that repeats what it hears.
    let mut ids = vec![];
    for (provider_type, copies) in [("main", 1), ("web", 12)] {
        for copy in 0..copies {
            let mut wish = batch(&format!("{TEXT} for {{{{name}}}}"), &people);
            (wish["provider_type"], wish["auto_trigger"]) = (json!(provider_type), json!(true));
            ids.push(id_of(&create(service, &operator, &format!("{provider_type}{copy}"), &wish)));
        }
    }
    until("the other provider was asked", || asked.load(Ordering::Relaxed) >= 12);
    for id in &ids {
        wait(service, &operator, id, |batch| {
            batch["delivery"]["state"].as_str().is_some_and(|state| state.starts_with("COMPLETED"))
        });
    }
    // Callbacks that fit somebody, nobody, and that are none.
    let web = ids.last().expect("a batch");
    let receipts = [
        json!({ "key": format!("{web}-0-0-0"), "to": NUMBER, "status": "DELIVRD", "error": TEXT }).to_string(),
        json!({ "id": TEXT, "to": NUMBER, "status": TEXT, "error": NUMBER }).to_string(),
        json!([{ "id": DIGITS, "status": "UNDELIV" }, { "to": NUMBER }]).to_string(),
        format!("{{\"to\":\"{NUMBER}\",{TEXT}"),
        format!("{NUMBER} {TEXT}"),
    ];
    let inbound = [
        json!({ "from": NUMBER, "to": "10690001", "text": TEXT, "id": "1" }).to_string(),
        json!({ "from": NUMBER, "to": "10690001", "text": "STOP", "id": DIGITS }).to_string(),
        json!({ "from": TEXT, "to": NUMBER, "text": TEXT }).to_string(),
        json!({ "from": NUMBER, "text": [TEXT] }).to_string(),
        format!("{{\"from\":\"{NUMBER}\",\"{TEXT}"),
    ];
    for (kind, bodies) in [("receipts", &receipts), ("inbound", &inbound)] {
        for body in bodies {
            for token in ["push-secret", TEXT] {
                ask(service, token, "POST", &format!("/v1/{kind}/web"), "Content-Type: application/json\r\n", body);
            }
        }
        let query = format!("/v1/{kind}/web?token=push-secret&from={DIGITS}&to={DIGITS}&text={TEXT}&id={TEXT}&status=DELIVRD");
        ask(service, "", "GET", &query, "", "");
    }
    // The API, asked well and badly.
    for key in [&admin, &operator, &TEXT.to_owned()] {
        for path in [
            format!("/v1/numbers/{NUMBER}/history"),
            format!("/v1/numbers/{NUMBER}/export"),
            format!("/v1/numbers/{TEXT}/history"),
            format!("/v1/suppressions/{NUMBER}"),
            format!("/v1/batches/{web}/explain?number={NUMBER}"),
            format!("/v1/batches/{web}/recipients?text=true"),
            format!("/v1/batches/{web}/recipients?status={TEXT}"),
            format!("/v1/batches?{TEXT}={DIGITS}"),
            format!("/v1/batches/{DIGITS}"),
            format!("/v1/inbox?campaign_id={TEXT}"),
            format!("/v1/audit?key={DIGITS}"),
            format!("/v1/nothing/{DIGITS}/{TEXT}"),
            format!("/{TEXT}{DIGITS}"),
        ] {
            ask(service, key, "GET", &path, &format!("User-Agent: {TEXT}\r\nX-Number: {NUMBER}\r\n"), "");
        }
        for body in [
            json!({ "numbers": [NUMBER, TEXT] }).to_string(),
            json!({ "numbers": NUMBER, TEXT: NUMBER }).to_string(),
            format!("{{\"numbers\":[\"{NUMBER}\",{TEXT}"),
        ] {
            for path in ["/v1/suppressions/commands/add", "/v1/batches", "/v1/keys", "/v1/webhooks"] {
                ask(service, key, "POST", path, &format!("Idempotency-Key: {TEXT}-{DIGITS}\r\n"), &body);
            }
        }
    }
    ask(service, &admin, "PUT", &format!("/v1/suppressions/{NUMBER}"), "", "");
    ask(
        service,
        &admin,
        "POST",
        &format!("/v1/batches/{web}/commands/retry"),
        "",
        &json!({ "what": "filter", "numbers": [NUMBER] }).to_string(),
    );
    let erased = ask(service, &admin, "POST", &format!("/v1/numbers/{NUMBER}/erase"), "", "");
    assert!(erased.status < 500, "{erased:?}");
    // Parked reports and webhooks are tried again meanwhile.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let secret = |key: &str| key.split('_').nth(2).expect("a secret").to_owned();
    vec![secret(&admin), secret(&operator)]
}

#[test]
fn a_known_number_and_text_are_nowhere_in_the_logs() {
    for format in ["text", "json"] {
        let provider = Provider::start();
        let mut faults = provider.get().config().faults;
        faults.permanent_share = 0.5;
        provider.get().set_faults(faults).expect("they make sense");
        let (http, asked) = echo();
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let service = service(&provider, http, format);
        let mut secrets = run(&service, nobody, &asked);
        secrets.extend(
            [DIGITS, "139 1234", "139****5678", TEXT, "Sesame", "Xylograph", "push-secret", "\"password\""].map(str::to_owned),
        );
        let metrics = ask(&service, "", "GET", "/metrics", "", "").body;
        let (log, out) = stopped(service);
        let said = |level: &str| log.iter().filter(|line| line.contains(level)).count();
        assert!(said("WARN") >= 10 && said("INFO") >= 10, "it was loud: {} lines", log.len());
        let lines = log.iter().map(String::as_str).chain(out.lines()).chain(metrics.lines());
        for line in lines {
            if let Some(secret) = secrets.iter().find(|secret| line.contains(secret.as_str())) {
                panic!("{secret} is in a line ({format}): {line}");
            }
            assert!(!line.contains("panicked") && !line.contains("SF-9001"), "{line}");
        }
    }
}

/// Its log to the last line, and its standard output.
fn stopped(service: Service) -> (Vec<String>, String) {
    let log = service.log.clone();
    let out = service.stop().ended(0).out;
    // Its last lines were read once nobody else holds them.
    until("the log was read", || Arc::strong_count(&log) == 1);
    let lines = log.lock().expect("not poisoned").clone();
    (lines, out)
}
