//! Keys: what each opens, on every route that the service itself describes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Answer, ask, batch, call, create, id_of, is_well};
use crate::endtoend::fixture::{Place, until};
use crate::endtoend::service::Service;

/// What a viewer may ask: no recipient, no text, no command. A new route is not in it until somebody decides so.
const VIEWER: [&str; 9] = [
    "GET /v1/batches",
    "GET /v1/batches/{id}",
    "GET /v1/batches/{id}/progress",
    "GET /v1/batches/{id}/report",
    "GET /v1/batches/{id}/watch",
    "GET /v1/fleet",
    "GET /v1/accounts",
    "GET /v1/accounts/{name}",
    "GET /v1/suppressions",
];

/// What an operator may not.
const ADMIN: [&str; 13] = [
    "PUT /v1/accounts/{name}/rate",
    "GET /v1/keys",
    "POST /v1/keys",
    "DELETE /v1/keys/{id}",
    "GET /v1/webhooks",
    "POST /v1/webhooks",
    "DELETE /v1/webhooks/{id}",
    "PUT /v1/webhooks/{id}/active",
    "POST /v1/webhooks/{id}/replay",
    "GET /v1/dead-events",
    "GET /v1/numbers/{number}/export",
    "POST /v1/numbers/{number}/erase",
    "GET /v1/audit",
];

/// Every route of the API, as the service describes it: `METHOD /path`.
fn routes(service: &Service) -> BTreeSet<String> {
    let described = ask(service, "", "GET", "/openapi.json", "", "").json();
    let mut routes = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            routes.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(routes.len() > 35, "{routes:?}");
    let listed: BTreeSet<String> = VIEWER.iter().chain(&ADMIN).map(|route| (*route).to_owned()).collect();
    assert!(listed.is_subset(&routes), "{:?}", listed.difference(&routes));
    routes
}

/// A route with its places filled in, and a body that it takes.
fn wish(route: &str, id: &str) -> (String, String, Value) {
    let (method, path) = route.split_once(' ').expect("a method and a path");
    let filled = path.replace("{id}", id).replace("{name}", "main").replace("{number}", "8613900000999");
    let body = match path.rsplit('/').next().unwrap_or_default() {
        "approve" => json!({ "plan_hash": "00" }),
        "change_provider" => json!({ "provider_type": "main" }),
        "retry" => json!({ "what": "failed" }),
        "active" => json!({ "active": true }),
        "rate" => json!({ "segments_per_second": 5 }),
        "add" | "remove" | "check" => json!({ "numbers": ["+8613900000999"] }),
        "keys" if method == "POST" => json!({ "name": "more", "role": "admin" }),
        "webhooks" if method == "POST" => json!({ "url": "https://hooks.example.com/", "events": ["batch"] }),
        "batches" if method == "POST" => batch("Hello", &[("+8613900000001", "a")]),
        "uploads" if method == "POST" => json!("phone"),
        _ => Value::Null,
    };
    (method.to_owned(), filled.replace("{upload_id}", &"0".repeat(64)), body)
}

fn asked(service: &Service, key: &str, route: &str, id: &str) -> Answer {
    let (method, path, body) = wish(route, id);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask(service, key, &method, &path, "Idempotency-Key: hostile\r\n", &body)
}

fn key_of(service: &Service, role: &str, more: &[&str]) -> String {
    let arguments = [&["key", "create", "--name", "test", "--role", role, "--json"], more].concat();
    service.place.run(&arguments).ended(0).json()["key"].as_str().expect("a key").to_owned()
}

#[test]
fn no_key_but_a_valid_one_opens_any_route() {
    let service = Service::start(Place::new(1, 1));
    let admin = service.key("admin");
    let revoked = service.key("admin");
    let id = revoked.split('_').nth(1).expect("an id").to_owned();
    service.run(&admin, &["key", "revoke", &id]).ended(0);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let expired = key_of(&service, "admin", &["--expires", &soon.to_string()]);
    let opens = |key: &str| ask(&service, key, "GET", "/v1/batches", "", "").status == 200;
    until("the other two open nothing any more", || !opens(&revoked) && !opens(&expired));
    assert!(opens(&admin));
    let (id, secret) = (admin.split('_').nth(1).expect("an id"), admin.split('_').nth(2).expect("a secret"));
    let other_case: String =
        secret.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    let wrong = [
        String::new(),
        revoked,
        expired,
        "x".into(),
        "sfk_".into(),
        format!("sfk_{id}"),
        format!("sfk_{id}_"),
        format!("sfk_{id}_{}", &secret[..31]),
        format!("sfk_{id}_{secret}x"),
        format!("sfk_{id}_{other_case}"),
        format!("sfk_{id}_{}", "0".repeat(32)),
        format!("sfk_{}_{secret}", "a".repeat(10)),
        format!("sfk_../../x_{secret}"),
        format!("sfk_{id}_{secret}, Bearer {admin}"),
        "y".repeat(8_000),
    ];
    let routes = routes(&service);
    for (at, key) in wrong.iter().enumerate() {
        // Those that are wrong in a way of their own are tried everywhere, the others on some routes.
        for route in routes.iter().skip(at % 7).step_by(if at < 4 { 1 } else { 7 }) {
            let answer = asked(&service, key, route, "0000");
            assert_eq!(answer.status, 401, "{route} with key {at}: {answer:?}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{route}: {answer:?}");
            assert!(!answer.body.contains(secret), "{route}: no key is repeated");
        }
    }
    // Other ways to name a key are none.
    for headers in
        [format!("Authorization: Basic {admin}\r\n"), format!("Authorization: {admin}\r\n"), format!("X-Api-Key: {admin}\r\n")]
    {
        assert_eq!(ask(&service, "", "GET", "/v1/keys", &headers, "").status, 401);
    }
    assert_eq!(ask(&service, "", "GET", &format!("/v1/keys?token={admin}&api_key={admin}"), "", "").status, 401);
    // Nor do other spellings of a path lead around the check.
    for path in [
        "//v1/keys",
        "/v1//keys",
        "/./v1/keys",
        "/x/../v1/keys",
        "/v1/keys/",
        "/V1/keys",
        "/%76%31/keys",
        "/v1/keys%00",
        "/v1/keys;x",
    ] {
        let answer = ask(&service, "", "GET", path, "", "");
        assert!([401, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert!(!super::log(&service).iter().any(|line| line.contains(secret)), "no key is in the log");
    is_well(&service);
    service.stop().ended(0);
}

#[test]
fn a_role_opens_its_own_routes_and_no_other() {
    let service = Service::start(Place::new(1, 1));
    let (viewer, operator) = (service.key("viewer"), service.key("operator"));
    for route in routes(&service) {
        let may = VIEWER.contains(&route.as_str());
        let answer = asked(&service, &viewer, &route, "ffff");
        assert_eq!(answer.status != 403, may, "a viewer asks {route}: {answer:?}");
        assert!(may || answer.code() == "SF-7003", "{route}: {answer:?}");
        let may = !ADMIN.contains(&route.as_str());
        let answer = asked(&service, &operator, &route, "ffff");
        assert_eq!(answer.status != 403, may, "an operator asks {route}: {answer:?}");
        assert!(answer.status != 401 && answer.status < 500, "{route}: {answer:?}");
    }
    // What was refused was not done either.
    let admin = service.key("admin");
    let keys = call(&service, &admin, "GET", "/v1/keys", &Value::Null).json();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(3), "{keys}");
    let account = call(&service, &admin, "GET", "/v1/accounts/main", &Value::Null).json();
    assert_eq!(account["live_rate"], Value::Null, "{account}");
    service.stop().ended(0);
}

#[test]
fn nothing_of_another_tenant_is_seen_or_commanded() {
    let place = Place::new(1, 1);
    super::configured(&place, "[webhooks]\nallow = [\"192.0.2.1\"]\nallow_http = true\nallow_private = true\n");
    let service = Service::start(place);
    let all = service.key("admin");
    let (acme, other) = (key_of(&service, "admin", &["--tenant", "acme"]), key_of(&service, "admin", &["--tenant", "other"]));
    let mut theirs = batch("Sesame for {{name}}", &[("+8613900000999", "Anna")]);
    theirs["campaign_id"] = json!("acme-spring");
    let id = id_of(&create(&service, &acme, "k", &theirs));
    let hook = json!({ "url": "http://192.0.2.1/acme-hook", "events": ["batch"] });
    let hook = call(&service, &acme, "POST", "/v1/webhooks", &hook).json()["id"].as_str().expect("a webhook").to_owned();
    let key_id = acme.split('_').nth(1).expect("an id").to_owned();
    let mut tried = 0;
    for route in routes(&service) {
        let id = match route.split('/').nth(2).unwrap_or_default() {
            "batches" => &id,
            "webhooks" => &hook,
            "keys" => &key_id,
            _ => continue,
        };
        if !route.contains("{id}") {
            continue;
        }
        tried += 1;
        let answer = asked(&service, &other, &route, id);
        assert!([404, 422].contains(&answer.status), "{route}: {answer:?}");
        assert!(!answer.body.contains("acme"), "{route}: {answer:?}");
        // It is answered word for word like what never was.
        let never = asked(&service, &other, &route, &"f".repeat(id.len()));
        assert_eq!(never.body.replace(&"f".repeat(id.len()), id), answer.body, "{route}");
    }
    assert!(tried > 15, "{tried}");
    assert_eq!(asked(&service, &other, "GET /v1/batches/{id}", &id[..8]).status, 404, "nor by its first digits");
    for path in [
        "/v1/batches",
        "/v1/audit",
        "/v1/inbox",
        "/v1/fleet",
        "/v1/suppressions/8613900000999",
        "/v1/keys",
        "/v1/webhooks",
        "/v1/dead-events",
        "/v1/batches?tenant=acme",
    ] {
        let answer = ask(&service, &other, "GET", path, "", "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.contains("acme") && !answer.body.contains(&id), "{path}: {answer:?}");
    }
    assert_eq!(ask(&service, &other, "GET", &format!("/v1/audit?batch={id}"), "", "").status, 404);
    let history = ask(&service, &other, "GET", "/v1/numbers/8613900000999/history", "", "");
    assert!(history.status == 200 && !history.body.contains(&id), "{history:?}");
    // What concerns everybody is for keys that see everybody.
    for route in
        ["GET /v1/numbers/{number}/export", "POST /v1/numbers/{number}/erase", "PUT /v1/accounts/{name}/rate", "GET /v1/uploads"]
    {
        assert_eq!(asked(&service, &other, route, "x").status, 403, "{route}");
    }
    // Nor does a tenant's admin make a key, a batch or a webhook for others.
    for tenant in ["acme", "*", ""] {
        let key = json!({ "name": "n", "role": "admin", "tenant": tenant });
        assert!(call(&service, &other, "POST", "/v1/keys", &key).status >= 400, "{tenant:?}");
        let mut batch = batch("Hello", &[("+8613900000001", "a")]);
        batch["tenant"] = json!(tenant);
        assert!(create(&service, &other, &format!("for {tenant}"), &batch).status >= 400, "{tenant:?}");
        let hook = json!({ "url": "http://192.0.2.1/", "events": ["batch"], "tenant": tenant });
        assert!(call(&service, &other, "POST", "/v1/webhooks", &hook).status >= 400, "{tenant:?}");
    }
    // Another tenant's name for a batch names another batch, and tells nothing of theirs.
    let same = create(&service, &other, "k", &batch("Mine", &[("+8613900000001", "a")]));
    assert!(same.status == 200 && id_of(&same) != id && same.json()["existed"] == false, "{same:?}");
    let after = call(&service, &all, "GET", &format!("/v1/batches/{id}"), &Value::Null).json();
    assert!(after["preparation"]["state"] != "CANCELED" && after["preparation"]["state"] != "PAUSED", "{after}");
    assert_eq!(call(&service, &acme, "GET", "/v1/webhooks", &Value::Null).json()["webhooks"][0]["active"], true);
    service.stop().ended(0);
}

#[test]
fn what_people_write_is_given_to_nobody_by_guess() {
    let place = Place::new(1, 1);
    super::configured(
        &place,
        "[accounts.web]\nprotocol = \"http\"\n[accounts.web.capabilities]\nlong_message = \"payload\"\n[accounts.web.http]\n\
         url = \"http://127.0.0.1:1/\"\nsender = \"10690001\"\nanswer = { id = \"/id\" }\ninbound = { token = \"push-me\" }\n",
    );
    let service = Service::start(place);
    let all = service.key("admin");
    let (acme, other) = (key_of(&service, "admin", &["--tenant", "acme"]), key_of(&service, "admin", &["--tenant", "other"]));
    // Two tenants share a sender number and its extension; the newer batch is the other's.
    let send = |key: &str, number: &str, campaign: &str| {
        let mut wish = batch("Hello {{name}}", &[(number, "Anna")]);
        (wish["provider_type"], wish["ext_code"], wish["campaign_id"]) = (json!("web"), json!("007"), json!(campaign));
        let id = id_of(&create(&service, key, campaign, &wish));
        super::wait(&service, key, &id, |batch| batch["plan"].is_object());
        id
    };
    let theirs = send(&acme, "+8613900000999", "acme-spring");
    send(&other, "+8613900000001", "other-spring");
    let wrote = |from: &str, text: &str| {
        let said = json!({ "from": from, "to": "10690001007", "text": text, "id": format!("{from} {text}") });
        assert_eq!(call(&service, "push-me", "POST", "/v1/inbound/web", &said).status, 200);
    };
    let inbox = |key: &str| {
        let page = call(&service, key, "GET", "/v1/inbox", &Value::Null).json();
        let from = |one: &Value| one["from"].as_str().unwrap_or_default().to_owned();
        page["messages"].as_array().expect("messages").iter().map(from).collect::<Vec<_>>()
    };
    // The list of batches is read again after a moment.
    std::thread::sleep(std::time::Duration::from_secs(1));
    wrote("+8613900000999", "STOP");
    wrote("+8613900000555", "who are you?");
    assert_eq!(inbox(&all).len(), 2, "nothing is lost");
    assert_eq!(inbox(&acme), ["+8613900000999"]);
    assert_eq!(inbox(&other), Vec::<String>::new());
    // Nor does what keeps a number on the list say whom it answered.
    for path in ["/v1/suppressions/8613900000999", "/v1/numbers/8613900000999/history"] {
        let mine = ask(&service, &acme, "GET", path, "", "").body;
        assert!(mine.contains(&theirs) && mine.contains("acme-spring"), "{path}: {mine}");
        let seen = ask(&service, &other, "GET", path, "", "").body;
        assert!(seen.contains("\"suppressed\":true"), "{path}: {seen}");
        assert!(!seen.contains(&theirs) && !seen.contains("acme") && !seen.contains("\"web\""), "{path}: {seen}");
    }
    service.stop().ended(0);
}
