//! The API as its callers meet it: roles, tenants, commands carried out once, and the trail they leave.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::coordinate::members;
use crate::model::access::Role;
use crate::model::account::{Account, Capabilities, ReceiptRules};
use crate::model::fleet::tests::sheet;
use crate::model::fleet::{FleetRole, LiveAccount, Sheet};
use crate::model::id::{BatchId, LaneKey, Msisdn, WorkerId};
use crate::model::time::Timestamp;
use crate::receipts::opt_out::{self, OptOut, Origin};
use crate::serve::fakes;
use crate::serve::fleet::{Limits, Surface};
use crate::serve::router::public;

/// A service with one account, and a key for each role and tenant that is asked for.
struct Service {
    surface: Surface,
    router: Router,
    _folder: tempfile::TempDir,
}

/// An answer as a caller sees it.
struct Said {
    status: u16,
    replayed: bool,
    body: Value,
}

impl Service {
    fn new(limits: Limits) -> Service {
        let account = Account {
            name: "main".into(),
            provider_type: "smpp".into(),
            rate: Some(100),
            capabilities: Capabilities::default(),
            receipts: ReceiptRules::default(),
            price: None,
            currency: "EUR".into(),
            hours: None,
            answer_timeout: std::time::Duration::from_secs(1),
            sender: String::new(),
            opt_out: Default::default(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let accounts = BTreeMap::from([("main".to_owned(), account)]);
        let surface = fakes::surface(fakes::memory(), accounts, limits, folder.path().to_owned());
        Service { router: public(surface.clone()), surface, _folder: folder }
    }

    async fn key(&self, role: Role, tenant: &str) -> String {
        self.surface.keys.create("test", role, tenant, None).await.expect("a key").key
    }

    async fn call(&self, key: &str, method: &str, path: &str, idempotency: Option<&str>, body: Option<Value>) -> Said {
        let mut request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        if let Some(name) = idempotency {
            request = request.header("idempotency-key", name);
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let response = self.router.clone().oneshot(request.body(body).expect("a request")).await.expect("an answer");
        let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"));
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        Said { status, replayed, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }
}

fn batch(name: &str) -> Value {
    json!({ "source": { "table_name": "/lists/a.csv" }, "content": "Hello {{name}}", "campaign_id": name })
}

#[tokio::test]
async fn a_role_may_do_its_own_and_no_more() {
    let service = Service::new(Limits::default());
    let keys =
        [service.key(Role::Viewer, "*").await, service.key(Role::Operator, "*").await, service.key(Role::Admin, "*").await];
    let cases = [
        ("GET", "/v1/batches", None, [200, 200, 200]),
        ("GET", "/v1/accounts", None, [200, 200, 200]),
        ("GET", "/v1/suppressions", None, [200, 200, 200]),
        ("GET", "/v1/suppressions/8613800138000", None, [403, 200, 200]),
        ("PUT", "/v1/suppressions/8613800138000", None, [403, 200, 200]),
        ("DELETE", "/v1/suppressions/8613800138000", None, [403, 200, 200]),
        ("POST", "/v1/suppressions/commands/add", Some(json!({"numbers": ["+8613800138001"]})), [403, 200, 200]),
        ("GET", "/v1/batches/ffff/recipients", None, [403, 404, 404]),
        ("POST", "/v1/batches/ffff/commands/pause", None, [403, 404, 404]),
        ("POST", "/v1/batches", Some(batch("x")), [403, 422, 422]),
        ("GET", "/v1/keys", None, [403, 403, 200]),
        ("GET", "/v1/audit", None, [403, 403, 200]),
        ("POST", "/v1/keys", Some(json!({"name": "n", "role": "viewer"})), [403, 403, 200]),
        ("PUT", "/v1/accounts/main/rate", Some(json!({"segments_per_second": 10})), [403, 403, 200]),
    ];
    for (method, path, body, expected) in cases {
        for (key, status) in keys.iter().zip(expected) {
            let said = service.call(key, method, path, None, body.clone()).await;
            assert_eq!(said.status, status, "{method} {path}: {}", said.body);
        }
    }
    assert_eq!(service.call("sfk_x_y", "GET", "/v1/batches", None, None).await.body["code"], "SF-7002");
}

#[tokio::test]
async fn a_batch_is_created_once_under_its_key_and_only_its_tenant_sees_it() {
    let service = Service::new(Limits::default());
    let (acme, other) = (service.key(Role::Operator, "acme").await, service.key(Role::Operator, "other").await);
    let create =
        async |key: &str, name: &str, body: Value| service.call(key, "POST", "/v1/batches", Some(name), Some(body)).await;
    let first = create(&acme, "spring", batch("spring")).await;
    assert_eq!((first.status, &first.body["existed"]), (200, &json!(false)), "{}", first.body);
    let id = first.body["batch"]["batch_id"].as_str().expect("an id").to_owned();
    let again = create(&acme, "spring", batch("spring")).await;
    assert_eq!((&again.body["existed"], again.body["batch"]["batch_id"].as_str()), (&json!(true), Some(id.as_str())));
    assert_eq!(create(&acme, "spring", batch("autumn")).await.body["code"], "SF-3001");
    let theirs = create(&other, "spring", batch("spring")).await;
    assert_ne!(theirs.body["batch"]["batch_id"].as_str(), Some(id.as_str()), "another tenant's key names another batch");
    for (key, status) in [(&acme, 200), (&other, 404)] {
        for path in [id.as_str(), &id[..8]] {
            assert_eq!(service.call(key, "GET", &format!("/v1/batches/{path}"), None, None).await.status, status);
        }
        let listed = service.call(key, "GET", "/v1/batches", None, None).await;
        assert_eq!(listed.body["batches"].as_array().map(Vec::len), Some(1));
        let cancel = service.call(key, "POST", &format!("/v1/batches/{id}/commands/cancel"), None, None).await;
        assert_eq!(cancel.status, status);
    }
    let mut for_others = batch("x");
    for_others["tenant"] = json!("other");
    assert_eq!(create(&acme, "theirs", for_others).await.body["code"], "SF-7003");
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong_and_leave_nothing() {
    let service = Service::new(Limits { body_bytes: 20_000, ..Limits::default() });
    let key = service.key(Role::Operator, "acme").await;
    let with = |name: &str, value: Value| {
        let mut body = batch("x");
        body[name] = value;
        body
    };
    let cases = [
        (json!([]), "SF-6002"),
        (json!({}), "SF-6002"),
        (with("colour", json!("red")), "SF-6002"),
        (with("source", json!({})), "SF-6002"),
        (with("source", json!({"table_name": "a", "upload_id": "b"})), "SF-6002"),
        (with("content", json!("")), "SF-6002"),
        (with("content", json!(7)), "SF-6002"),
        (with("priority", json!(10)), "SF-6002"),
        (with("priority", json!(-1)), "SF-6002"),
        (with("ext_code", json!("12a")), "SF-6002"),
        (with("schedule_time", json!("noon")), "SF-6002"),
        (with("default_region", json!("China")), "SF-6002"),
        (with("late_start", json!("never")), "SF-6002"),
        (with("provider_type", json!("carrier pigeon")), "SF-5008"),
        (with("content", json!("x".repeat(30_000))), "SF-7005"),
    ];
    for (body, code) in cases {
        let said = service.call(&key, "POST", "/v1/batches", Some("k"), Some(body.clone())).await;
        assert_eq!(said.body["code"], code, "{body}: {}", said.body);
        assert!(said.status >= 400 && said.status < 500 && said.body["detail"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let missing = service.call(&key, "POST", "/v1/batches", None, Some(batch("x"))).await;
    assert_eq!(missing.body["code"], "SF-6002", "a key is needed");
    let long = service.call(&key, "POST", "/v1/batches", Some(&"k".repeat(201)), Some(batch("x"))).await;
    assert_eq!(long.body["code"], "SF-6002");
    let numbers = service
        .call(&key, "POST", "/v1/suppressions/commands/add", None, Some(json!({"numbers": ["+8613800138000", "138"]})))
        .await;
    assert!(numbers.body["detail"].as_str().is_some_and(|text| text.contains("number 2")), "{}", numbers.body);
    assert_eq!(service.call(&key, "GET", "/v1/suppressions", None, None).await.body["suppressed"], 0);
    assert_eq!(service.call(&key, "GET", "/v1/batches", None, None).await.body["batches"], json!([]));
}

#[tokio::test]
async fn every_text_of_a_batch_has_a_size() {
    let service = Service::new(Limits::default());
    let key = service.key(Role::Operator, "acme").await;
    let parameters =
        |count: usize| -> Value { (0..count).map(|n| (n.to_string(), json!("v"))).collect::<serde_json::Map<_, _>>().into() };
    let of = |bytes: usize| json!("x".repeat(bytes));
    let page = |bytes: usize| json!(format!("{:a<bytes$}", "https://shop.example/"));
    let list = |bytes: usize| json!({ "table_name": format!("{:a<bytes$}", "/lists/") });
    // Each with the largest value that is taken, and one that is a byte, or one, too much.
    let cases = [
        ("campaign_id", of(256), of(257)),
        ("campaign_name", of(256), of(257)),
        ("marketing_program_id", of(256), of(257)),
        ("task_id", of(256), of(257)),
        ("content_id", of(256), of(257)),
        ("link_base", of(256), of(257)),
        ("number_column", of(256), of(257)),
        ("dialect", of(256), of(257)),
        ("campaign_name", json!("退".repeat(85)), json!("退".repeat(86))),
        ("content_signature", json!("退".repeat(64)), json!("退".repeat(65))),
        ("url", page(2_048), page(2_049)),
        ("source", list(2_048), list(2_049)),
        ("link_parameters", parameters(32), parameters(33)),
        ("link_parameters", json!({ "x".repeat(256): "" }), json!({ "x".repeat(257): "" })),
        ("link_parameters", json!({ "x": "v".repeat(256) }), json!({ "x": "v".repeat(257) })),
    ];
    for (at, (name, fits, long)) in cases.into_iter().enumerate() {
        for (value, status) in [(long, 422), (fits, 200)] {
            let mut wish = batch("x");
            wish[name] = value;
            let said = service.call(&key, "POST", "/v1/batches", Some(&at.to_string()), Some(wish)).await;
            assert_eq!(said.status, status, "{name}: {}", said.body);
            let named = if name == "source" { "table_name" } else { name };
            let says = said.body["detail"].as_str().is_some_and(|text| text.contains(named) && text.contains("at most"));
            assert!(status == 200 || said.body["code"] == "SF-6002" && says, "{}", said.body);
        }
    }
}

#[tokio::test]
async fn a_command_is_carried_out_once_says_what_is_possible_and_leaves_a_trail() {
    let service = Service::new(Limits::default());
    let (operator, admin) = (service.key(Role::Operator, "acme").await, service.key(Role::Admin, "*").await);
    let created = service.call(&operator, "POST", "/v1/batches", Some("k"), Some(batch("x"))).await;
    let id = created.body["batch"]["batch_id"].as_str().expect("an id").to_owned();
    let allowed = |body: &Value| -> Vec<String> {
        let commands = body["commands"].as_array().expect("commands");
        assert!(commands.iter().all(|one| one["allowed"] == true || one["why"].as_str().is_some_and(|why| why.len() > 10)));
        let yes = commands.iter().filter(|one| one["allowed"] == true);
        yes.map(|one| one["command"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert!(allowed(&created.body["batch"]).contains(&"entry_process".to_owned()));
    assert!(!allowed(&created.body["batch"]).contains(&"pause".to_owned()));
    let command = async |word: &str, key: Option<&str>| {
        service.call(&operator, "POST", &format!("/v1/batches/{id}/commands/{word}"), key, None).await
    };
    let refused = command("pause", Some("p0")).await;
    assert_eq!(refused.body["code"], "SF-3003", "nobody asked for it yet");
    assert!(allowed(&refused.body).contains(&"entry_process".to_owned()), "it says what is possible instead");
    // Nothing was done under it, so the same key may name another command.
    let prepare = command("entry_process", Some("p0")).await;
    assert_eq!((prepare.status, prepare.replayed, &prepare.body["already"]), (200, false, &json!(false)), "{}", prepare.body);
    assert!(allowed(&prepare.body["batch"]).contains(&"pause".to_owned()));
    let again = command("entry_process", Some("p0")).await;
    assert_eq!((again.replayed, &again.body), (true, &prepare.body), "the same answer, word for word");
    assert_eq!(command("pause", Some("p0")).await.body["code"], "SF-3001");
    assert_eq!(command("entry_process", None).await.body["already"], true);
    let canceled = command("cancel", Some("c")).await;
    assert_eq!(canceled.body["batch"]["preparation"]["state"], "CANCELED");
    assert_eq!(command("resume", None).await.body["code"], "SF-3003");

    let trail = service.call(&admin, "GET", &format!("/v1/audit?batch={id}&limit=500"), None, None).await;
    let entries = trail.body["entries"].as_array().expect("entries");
    let said: Vec<(&str, &str)> = entries
        .iter()
        .rev()
        .map(|entry| (entry["action"].as_str().expect("an action"), entry["came"].as_str().unwrap_or("refused")))
        .collect();
    let expected = [
        ("batch.create", "asked"),
        ("batch.create", "done"),
        ("batch.pause", "asked"),
        ("batch.pause", "refused"),
        ("batch.entry_process", "asked"),
        ("batch.entry_process", "done"),
        ("batch.entry_process", "asked"),
        ("batch.entry_process", "done"),
        ("batch.cancel", "asked"),
        ("batch.cancel", "done"),
        ("batch.resume", "asked"),
        ("batch.resume", "refused"),
    ];
    assert_eq!(said, expected);
    let cancel = entries.iter().find(|entry| entry["action"] == "batch.cancel" && entry["came"] == "done").expect("an entry");
    assert_eq!((&cancel["before"]["state"], &cancel["after"]["state"]), (&json!("READY"), &json!("CANCELED")));
    assert_eq!((&cancel["role"], &cancel["tenant"]), (&json!("operator"), &json!("acme")));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(service.call(&admin, method, "/v1/audit", None, None).await.body["code"], "SF-7010", "{method}");
    }
}

#[tokio::test]
async fn a_list_is_handed_in_whole_or_not_at_all() {
    let service = Service::new(Limits::default());
    let key = service.key(Role::Operator, "acme").await;
    let list = json!("number\n+8613800138000\n");
    let wrong = service.call(&key, "POST", &format!("/v1/uploads?sha256={}", "0".repeat(64)), None, Some(list.clone())).await;
    assert_eq!((wrong.status, &wrong.body["code"]), (422, &json!("SF-1012")), "{}", wrong.body);
    assert_eq!(service.call(&key, "POST", "/v1/uploads?sha256=12", None, Some(list.clone())).await.body["code"], "SF-6002");
    assert_eq!(service.call(&key, "POST", "/v1/uploads", None, Some(json!("x".repeat(2 << 20)))).await.status, 413);
    let all = service.key(Role::Operator, "*").await;
    assert_eq!(service.call(&all, "GET", "/v1/uploads", None, None).await.body["uploads"], json!([]));
    let kept = service.call(&key, "POST", "/v1/uploads", None, Some(list.clone())).await;
    let id = kept.body["upload_id"].as_str().expect("an id").to_owned();
    let again = service.call(&key, "POST", &format!("/v1/uploads?sha256={id}"), None, Some(list)).await;
    assert_eq!(again.body["upload_id"], json!(id), "the same list is the same upload");
    let from = |source: Value| json!({ "source": source, "content": "Hello" });
    let created = service.call(&key, "POST", "/v1/batches", Some("a"), Some(from(json!({ "upload_id": id })))).await;
    assert_eq!(created.status, 200, "{}", created.body);
    let unknown = from(json!({ "upload_id": "0".repeat(64) }));
    assert_eq!(service.call(&key, "POST", "/v1/batches", Some("b"), Some(unknown)).await.body["code"], "SF-1001");
    let inline = from(json!({ "recipients": [{ "number": "+8613800138000", "name": "A" }] }));
    for _ in 0..2 {
        let created = service.call(&key, "POST", "/v1/batches", Some("c"), Some(inline.clone())).await;
        assert_eq!(created.status, 200, "{}", created.body);
    }
    assert_eq!(service.call(&all, "GET", "/v1/uploads", None, None).await.body["uploads"].as_array().map(Vec::len), Some(2));
    assert_eq!(service.call(&key, "GET", "/v1/uploads", None, None).await.status, 403, "a list's id opens it, to every tenant");
    assert_eq!(service.call(&key, "DELETE", &format!("/v1/uploads/{id}"), None, None).await.status, 200);
    assert_eq!(service.call(&key, "DELETE", &format!("/v1/uploads/{id}"), None, None).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_is_ended_and_nothing_stays() {
    let service = Service::new(Limits::default());
    let key = service.key(Role::Operator, "*").await;
    let (send, pieces) = futures::channel::mpsc::unbounded::<Result<Bytes, std::io::Error>>();
    send.unbounded_send(Ok("number\n+86138".into())).expect("there is room");
    let request = Request::builder().method("POST").uri("/v1/uploads").header("authorization", format!("Bearer {key}"));
    let request = request.body(Body::from_stream(pieces)).expect("a request");
    // The other end stays, and says nothing more.
    let response = service.router.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 408);
    drop(send);
    let kept = service.call(&key, "GET", "/v1/uploads", None, None).await;
    assert_eq!(kept.body["uploads"], json!([]));
}

#[tokio::test]
async fn an_accounts_rate_is_changed_live_and_set_back() {
    let service = Service::new(Limits::default());
    let admin = service.key(Role::Admin, "*").await;
    let change = async |rate: Value| {
        let wish = json!({ "segments_per_second": rate });
        service.call(&admin, "PUT", "/v1/accounts/main/rate", None, Some(wish)).await
    };
    assert_eq!(change(json!(7)).await.body["live_rate"], 7);
    let of_one_tenant = service.key(Role::Admin, "acme").await;
    let wish = json!({ "segments_per_second": 1 });
    let said = service.call(&of_one_tenant, "PUT", "/v1/accounts/main/rate", None, Some(wish)).await;
    assert_eq!(said.status, 403, "nobody slows down the others: {}", said.body);
    assert_eq!(service.call(&admin, "GET", "/v1/accounts/main", None, None).await.body["live_rate"], 7);
    assert_eq!(change(Value::Null).await.body["live_rate"], Value::Null);
    for wrong in [json!(0), json!(-1), json!(2.5), json!(1_000_001), json!("fast")] {
        assert_eq!(change(wrong).await.body["code"], "SF-6002");
    }
    assert_eq!(
        service.call(&admin, "PUT", "/v1/accounts/x/rate", None, Some(json!({"segments_per_second": 1}))).await.status,
        404
    );
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let service = Service::new(Limits { requests_per_second: 5, ..Limits::default() });
    let (busy, quiet) = (service.key(Role::Viewer, "*").await, service.key(Role::Viewer, "*").await);
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(service.call(&busy, "GET", "/v1/batches", None, None).await.status == 429);
    }
    assert!(refused >= 10, "{refused}");
    assert_eq!(service.call(&quiet, "GET", "/v1/batches", None, None).await.status, 200);
}

#[tokio::test]
async fn without_a_fleet_of_its_own_it_tells_what_the_fleets_processes_say_of_the_accounts() {
    let service = Service::new(Limits::default());
    let key = service.key(Role::Viewer, "*").await;
    let live = async || service.call(&key, "GET", "/v1/accounts/main", None, None).await.body["live"].clone();
    assert_eq!(live().await, Value::Null, "nobody sends");
    let at = service.surface.world.clock.now();
    let mut sheet: Sheet = serde_json::from_value(json!({
        "worker": WorkerId(7).to_string(), "role": "deliver", "host": "h", "pid": 3, "version": "1", "started": 0, "at": at,
    }))
    .expect("a sheet");
    sheet.accounts = vec![LiveAccount { account: "main".into(), up: true, sessions: 2, ..LiveAccount::default() }];
    members::write(&service.surface.stores, &sheet).await.expect("it is written");
    let said = live().await;
    assert_eq!((&said["up"], &said["sessions"]), (&json!(true), &json!(2)), "{said}");
}

#[tokio::test]
async fn one_key_is_no_order_for_a_second_number() {
    let service = Service::new(Limits::default());
    let admin = service.key(Role::Admin, "*").await;
    let erase = async |number: &str| service.call(&admin, "POST", &format!("/v1/numbers/{number}/erase"), Some("k"), None).await;
    let first = erase("8613800138000").await;
    assert_eq!((first.status, first.replayed), (200, false), "{}", first.body);
    assert!(erase("8613800138000").await.replayed);
    // Masked, the two read alike.
    let second = erase("8613800238000").await;
    assert_eq!((second.status, &second.body["code"]), (409, &json!("SF-3001")), "{}", second.body);
}

#[tokio::test]
async fn no_side_door_names_another_tenants_batch() {
    let service = Service::new(Limits::default());
    let batch = BatchId(0xabc);
    let lane = LaneKey { batch, lane: 3 };
    let mut sheet = sheet(7, FleetRole::Deliver, service.surface.world.clock.now());
    sheet.lanes = vec![lane];
    members::write(&service.surface.stores, &sheet).await.expect("it is written");
    let why = |tenant: Option<&str>| OptOut {
        origin: Origin::Person,
        since: Timestamp(0),
        account: Some("secret-account".into()),
        batch: Some(batch),
        tenant: tenant.map(str::to_owned),
        campaign_id: "acme-spring".into(),
        note: String::new(),
    };
    // The second as an older version wrote it.
    let numbers = [(Msisdn(8_613_800_138_000), why(Some("acme"))), (Msisdn(8_613_800_138_001), why(None))];
    opt_out::suppress(&service.surface.stores, &numbers).await.expect("stored");
    let doors = [
        ("/v1/fleet", false),
        ("/v1/suppressions/8613800138000", true),
        ("/v1/suppressions/8613800138001", false),
        ("/v1/numbers/8613800138000/history", true),
        ("/v1/numbers/8613800138001/history", false),
    ];
    for (tenant, sees) in [("*", [true; 5]), ("acme", doors.map(|door| door.1)), ("other", [false; 5])] {
        let key = service.key(Role::Operator, tenant).await;
        for ((path, _), sees) in doors.iter().zip(sees) {
            let said = service.call(&key, "GET", path, None, None).await;
            let text = said.body.to_string();
            assert_eq!(said.status, 200, "{path}: {text}");
            assert_eq!(text.contains(&batch.to_string()), sees, "{tenant} at {path}: {text}");
            assert!(sees || !["acme", "secret-account"].iter().any(|word| text.contains(word)), "{tenant} at {path}: {text}");
            assert!(*path == "/v1/fleet" || text.contains(r#""suppressed":true"#), "{tenant} at {path}: {text}");
        }
    }
}
