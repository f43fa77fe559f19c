//! Receipts that nobody sent: whoever does not know the token, or knows another account's, changes nothing.

use serde_json::{Value, json};

use super::{ask, batch, call, configured, create, id_of, is_well, peak_mb, wait};
use crate::endtoend::fixture::{Place, Provider, count, number, until};
use crate::endtoend::service::Service;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn service(provider: &Provider) -> Service {
    let http = provider.get().http_addr().expect("it speaks HTTP");
    let place = Place::new(provider.port(), 1_000);
    for (name, token) in [("web", "push-me"), ("other", "other-token")] {
        configured(
            &place,
            &format!(
                r#"[accounts.{name}]
protocol = "http"
answer_timeout = 5.0
[accounts.{name}.capabilities]
long_message = "payload"
[accounts.{name}.receipts]
one_per_message = true
[accounts.{name}.http]
url = "http://{http}/messages"
body = '{{"to":"{{{{number}}}}","text":"{{{{text}}}}","key":"{{{{key}}}}"}}'
answer = {{ id = "/id" }}
receipts = {{ token = "{token}", id = "/id", reference = "/key", number = "/to", status = "/status", error = "/error" }}
"#
            ),
        );
    }
    Service::start(place)
}

fn push(service: &Service, account: &str, token: &str, body: &Value) -> u16 {
    call(service, token, "POST", &format!("/v1/receipts/{account}"), body).status
}

#[test]
fn only_the_account_that_sent_is_believed() {
    const PEOPLE: usize = 4;
    let provider = Provider::start();
    let service = service(&provider);
    let admin = service.key("admin");
    let numbers: Vec<String> = (0..PEOPLE as u64).map(|row| format!("+{}", number(row))).collect();
    let people: Vec<(&str, &str)> = numbers.iter().map(|number| (number.as_str(), "a")).collect();
    let mut wish = batch("Hello", &people);
    (wish["provider_type"], wish["auto_trigger"]) = (json!("web"), json!(true));
    let id = id_of(&create(&service, &admin, "k", &wish));
    wait(&service, &admin, &id, |batch| batch["delivery"]["state"] == "COMPLETED_SUCCEEDED");
    let report = || call(&service, &admin, "GET", &format!("/v1/batches/{id}/report"), &Value::Null).json();
    let delivered = || count(&report(), "/settlement/deliveries/delivered");
    let undelivered = || count(&report(), "/settlement/deliveries/undelivered");
    let reference = |seq: u64| format!("{id}-0-{seq}-0");
    let good = |seq: u64| json!({ "key": reference(seq), "status": "DELIVRD" });

    // Who does not know the token.
    for token in ["", "wrong", "push-m", "push-me2", "PUSH-ME", "other-token", "null", "password"] {
        assert_eq!(push(&service, "web", token, &good(0)), 422, "{token:?}");
        assert_eq!(ask(&service, "", "POST", &format!("/v1/receipts/web?token={token}"), "", &good(0).to_string()).status, 422);
        let query = format!("/v1/receipts/web?token={token}&key={}&status=DELIVRD", reference(0));
        assert_eq!(ask(&service, "", "GET", &query, "", "").status, 422, "{token:?}");
    }
    let with_token = json!({ "key": reference(0), "status": "DELIVRD", "token": "push-me" });
    assert_eq!(push(&service, "web", "", &with_token), 422, "a token in the body is none");
    assert_eq!(ask(&service, "", "POST", "/v1/receipts/web?token=wrong&token=push-me", "", &good(0).to_string()).status, 422);
    assert_eq!(push(&service, "web", &admin, &good(0)), 422, "a key of the API is no token");
    assert_eq!(ask(&service, "push-me", "GET", "/v1/batches", "", "").status, 401, "and a token is no key");
    for account in ["main", "nobody", "WEB", "web%00", "..%2fweb", "web/../web", "%"] {
        let status = push(&service, account, "push-me", &good(0));
        assert!([400, 404, 422].contains(&status), "{account}: {status}");
    }

    // Another account, with its own good token, speaks about what it never sent: by our reference, and by the network's id.
    let lines = call(&service, &admin, "GET", &format!("/v1/batches/{id}/recipients"), &Value::Null).body;
    let ids: Vec<(String, String)> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line"))
        .map(|line| (line["number"].to_string().replace('"', ""), line["message_ids"][0].to_string().replace('"', "")))
        .collect();
    assert_eq!(ids.len(), PEOPLE);
    for seq in 0..PEOPLE as u64 {
        assert_eq!(push(&service, "other", "other-token", &good(seq)), 200, "it is kept, as one that fits nobody");
    }
    for (number, id) in &ids {
        let body = json!({ "id": id, "to": number, "status": "DELIVRD" });
        assert_eq!(push(&service, "other", "other-token", &body), 200);
    }
    // The right account about those who are not there.
    for reference in [
        format!("{id}-0-{PEOPLE}-0"),
        format!("{id}-0-4294967295-0"),
        format!("{id}-1-0-0"),
        format!("{id}-255-0-0"),
        format!("{}-0-0-0", "f".repeat(32)),
        format!("{id}-0--1-0"),
        id.clone(),
        "-".repeat(100_000),
    ] {
        assert_eq!(push(&service, "web", "push-me", &json!({ "key": reference, "status": "DELIVRD" })), 200);
    }
    for wrong in ["99999999999", "0", "x'; DROP TABLE receipt; --", "\u{0}", "../../x"] {
        assert_eq!(push(&service, "web", "push-me", &json!({ "id": wrong, "to": numbers[0], "status": "DELIVRD" })), 200);
    }

    // What it says of its own counts, once, however often and in whatever order it comes.
    for seq in [1, 1, 2] {
        assert_eq!(push(&service, "web", "push-me", &good(seq)), 200);
    }
    for round in 0..20 {
        let again = json!([good(1), { "key": reference(2), "status": "UNDELIV", "round": round }, { "key": reference(1), "status": "DELIVRD", "round": round }]);
        assert_eq!(push(&service, "web", "push-me", &again), 200);
    }
    until("both are there", || delivered() == 2);
    // Parked reports were looked at again by now, several times.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let report = report();
    assert_eq!((delivered(), undelivered(), count(&report, "/settlement/outcomes/accepted")), (2, 0, PEOPLE as u64), "{report}");
    let lines = call(&service, &admin, "GET", &format!("/v1/batches/{id}/recipients?status=delivered"), &Value::Null).body;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(!lines.contains("\"other\""), "nothing of the other account is told of anybody: {lines}");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn what_is_no_receipt_is_refused() {
    let provider = Provider::start();
    let service = service(&provider);
    is_well(&service);
    let before = peak_mb(&service);
    let json = "Content-Type: application/json\r\n";
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let cases: Vec<(&str, &str, String, u16)> = vec![
        ("nothing", json, String::new(), 422),
        ("no JSON", json, "DELIVRD".into(), 422),
        ("half of it", json, "{\"id\":\"1\",\"status\":\"DEL".into(), 422),
        ("arrays in arrays", json, deep("[", "]"), 422),
        ("objects in objects", json, deep("{\"a\":", "}"), 422),
        ("arrays that are never closed", json, "[".repeat(1 << 20), 422),
        ("a hundred thousand that are none", json, format!("[{}{{}}]", "{},".repeat(100_000)), 422),
        ("a good one behind bad ones", json, "[{\"id\":\"1\",\"status\":\"DELIVRD\"},{}]".into(), 422),
        ("a number beyond all numbers", json, format!("{{\"id\":{},\"status\":\"DELIVRD\"}}", "9".repeat(100_000)), 422),
        ("a form of a hundred thousand fields", FORM, "a=b&".repeat(100_000), 422),
        ("a form that is no text", FORM, "id=%ff%fe&status=%00".into(), 200),
        ("an id of three megabytes", json, format!("{{\"id\":\"{}\",\"status\":\"DELIVRD\"}}", "x".repeat(3 << 20)), 200),
        (
            "an error of three megabytes",
            json,
            format!("{{\"id\":\"1\",\"status\":\"UNDELIV\",\"error\":\"{}\"}}", "x".repeat(3 << 20)),
            200,
        ),
        ("more than is taken", json, format!("{{\"id\":\"{}\",\"status\":\"DELIVRD\"}}", "x".repeat(5 << 20)), 413),
    ];
    for (what, kind, body, expected) in &cases {
        let answer = ask(&service, "push-me", "POST", "/v1/receipts/web", kind, body);
        assert_eq!(answer.status, *expected, "{what}: {answer:?}");
        assert!(answer.body.len() < 2_000, "{what}: an answer is no echo");
    }
    for n in 0..20 {
        let body = format!("{{\"id\":\"{n}\",\"status\":\"UNDELIV\",\"error\":\"{}\"}}", "x".repeat(3 << 20));
        assert_eq!(ask(&service, "push-me", "POST", "/v1/receipts/web", json, &body).status, 200);
    }
    let grown = peak_mb(&service) - before;
    assert!(grown < 160, "{grown} MB more");
    let stored = std::fs::read_dir(service.place.path("smsfleet-data")).expect("a folder");
    let bytes: u64 = stored.map(|file| file.expect("a file").metadata().expect("its facts").len()).sum();
    assert!(bytes < 40 << 20, "60 MB of words were kept as {bytes} bytes");
    is_well(&service);
    service.stop().ended(0);
}
