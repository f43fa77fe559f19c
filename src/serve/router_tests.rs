//! The surface as the command line and providers meet it.

use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::model::access::Role;
use crate::ports::Stores;
use crate::ports::documents::Shelf;
use crate::serve::client::Client;
use crate::serve::fakes;
use crate::serve::fleet::Limits;
use crate::serve::socket;
use crate::serve::views::{BatchReport, BatchView};
use crate::statistics::tests::Hand;

/// A surface over what a test filled by hand; keys, audit and answers are kept in memory.
fn surface(hand: &Hand) -> Surface {
    let kept = fakes::memory();
    let stores = Stores { documents: kept.documents, journal: kept.journal, ..hand.fake.stores() };
    fakes::surface(stores, hand.accounts.clone(), Limits::default(), std::env::temp_dir())
}

async fn call(router: Router, method: &str, path: &str) -> (u16, String, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
    let response = router.oneshot(request).await.expect("a router always answers");
    let kind = response.headers().get("content-type").map(|v| v.to_str().expect("ASCII").to_owned()).unwrap_or_default();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, kind, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

const ID: &str = "00000000000000000000000000000007";

#[tokio::test]
async fn every_error_is_a_problem_document_with_its_code() {
    let hand = Hand::new(3, 0, 0, vec![]);
    let cases = [
        ("GET", "/v1/batches/ffffffffffffffffffffffffffffffff", 404, "SF-3002"),
        ("GET", "/v1/batches/ffff/report", 404, "SF-3002"),
        ("GET", "/v1/batches/xyz", 422, "SF-6002"),
        ("GET", "/v1/batches/0000/recipients?status=fialed", 422, "SF-6002"),
        ("GET", "/v1/batches/0000/recipients?format=xml", 422, "SF-6002"),
        ("GET", "/v1/batches/0000/explain?number=138", 422, "SF-6002"),
        ("GET", "/v1/batches/0000/explain?number=4915112345678", 404, "SF-3005"),
        ("GET", "/v1/batches?limit=0", 422, "SF-6002"),
        ("GET", "/v1/batches?limit=many", 422, "SF-6002"),
        ("GET", "/v1/batches?colour=red", 422, "SF-6002"),
        ("GET", "/v1/batches?state=running", 422, "SF-6002"),
        ("GET", "/v1/batches?cursor=00", 422, "SF-6002"),
        ("GET", "/v1/batches?since=yesterday", 422, "SF-6002"),
        ("GET", "/v1/audit?cursor=zz", 422, "SF-6002"),
        ("GET", "/v1/accounts/nobody", 404, "SF-7011"),
        ("DELETE", "/v1/keys/nobody", 404, "SF-7007"),
        ("POST", "/v1/batches", 422, "SF-6002"),
        ("POST", "/v1/batches/0000/commands/start", 409, "SF-3003"),
        ("POST", "/v1/batches/0000/commands/explode", 404, "SF-7009"),
        ("POST", "/v1/receipts/a?token=x", 503, "SF-4006"),
        ("GET", "/readyz", 503, "SF-4006"),
        ("GET", "/nothing", 404, "SF-7009"),
        ("DELETE", "/v1/batches", 405, "SF-7010"),
    ];
    for (method, path, status, code) in cases {
        let (answered, kind, body) = call(local(surface(&hand)), method, path).await;
        assert_eq!((answered, kind.as_str()), (status, "application/problem+json"), "{method} {path}: {body}");
        let problem: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())), "{path}");
        assert!(["type", "title", "detail", "advice"].iter().all(|field| problem[field].is_string()), "{body}");
    }
}

#[tokio::test]
async fn what_is_no_text_is_a_problem_document_on_every_route() {
    let hand = Hand::new(3, 0, 0, vec![]);
    let described = serde_json::to_value(document()).expect("it is JSON");
    let mut tried = 0;
    let mut asked = vec![("GET".to_owned(), "/%ff".to_owned(), 404), ("POST".to_owned(), "/v1/inbound/%ff".to_owned(), 422)];
    for (path, methods) in described["paths"].as_object().expect("paths") {
        let Some((front, behind)) = path.split_once('{') else { continue };
        let behind = behind.split_once('}').map_or("", |(_, behind)| behind);
        let methods = methods.as_object().expect("methods").keys();
        asked.extend(methods.map(|method| (method.to_uppercase(), format!("{front}%ff{behind}"), 422)));
    }
    for (method, path, status) in asked {
        let (answered, kind, body) = call(local(surface(&hand)), &method, &path).await;
        assert_eq!((answered, kind.as_str()), (status, "application/problem+json"), "{method} {path}: {body}");
        let problem: Problem = serde_json::from_str(&body).expect("a problem");
        assert_eq!(problem.code, if status == 404 { Code::NotFound } else { Code::InputInvalid }, "{method} {path}: {body}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

#[tokio::test]
async fn one_damaged_key_keeps_nobody_from_revoking_another() {
    let hand = Hand::new(3, 0, 0, vec![]);
    let surface = surface(&hand);
    let made = surface.keys.create("lost", Role::Operator, "acme", None).await.expect("a key").stored.id;
    let damaged = surface.keys.create("odd", Role::Operator, "acme", None).await.expect("a key").stored.id;
    let documents = &surface.stores.documents;
    documents.put(Shelf::ApiKey, &damaged, r#"{"id":"x","secret":1"#).await.expect("stored");
    let all = surface.keys.create("all", Role::Admin, "*", None).await.expect("a key").key;
    let acme = surface.keys.create("acme", Role::Admin, "acme", None).await.expect("a key").key;
    let revoke = async |key: &str, id: &str| {
        let request = Request::builder().method("DELETE").uri(format!("/v1/keys/{id}"));
        let request = request.header("authorization", format!("Bearer {key}")).body(Body::empty()).expect("a request");
        let response = public(surface.clone()).oneshot(request).await.expect("a router always answers");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, body) = revoke(&acme, &made).await;
    assert!(status == 200 && body.contains("\"revoked\":\""), "{body}");
    assert_eq!(surface.keys.opens(&made).await, Ok(false));
    // Whose the damaged one was nobody knows: a tenant's admin is told that there is none, and it stays.
    assert_eq!(revoke(&acme, &damaged).await.0, 404);
    assert!(documents.get(Shelf::ApiKey, &damaged).await.is_ok_and(|row| row.is_some()));
    let (status, body) = revoke(&all, &damaged).await;
    assert!(status == 404 && body.contains("is removed"), "{body}");
    assert_eq!(documents.get(Shelf::ApiKey, &damaged).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_key() {
    // Many lines, and a batch that is not over: neither stream would end soon.
    let hand = Hand::new(20_000, 0, 0, vec![]);
    let surface = surface(&hand);
    for path in ["recipients", "watch"] {
        let key = surface.keys.create("k", Role::Operator, "*", None).await.expect("a key");
        let other = surface.keys.create("k", Role::Operator, "*", None).await.expect("a key");
        let mut bodies = vec![];
        for key in [&key, &other] {
            let request = Request::builder().uri(format!("/v1/batches/{ID}/{path}"));
            let request = request.header("authorization", format!("Bearer {}", key.key)).body(Body::empty()).expect("a request");
            let response = public(surface.clone()).oneshot(request).await.expect("a router always answers");
            assert_eq!(response.status(), 200, "{path}");
            bodies.push(response.into_body());
        }
        let [mine, theirs] = bodies.as_mut_slice() else { panic!("two streams") };
        assert!(mine.frame().await.is_some_and(|piece| piece.is_ok()), "{path}");
        surface.keys.revoke(&key.stored.id).await.expect("it is revoked");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let next = tokio::time::timeout(Duration::from_secs(3), mine.frame()).await.expect("it does not go on silently");
        assert!(next.is_some_and(|piece| piece.is_err()), "{path} breaks off");
        assert!(mine.frame().await.is_none(), "{path} is over");
        assert!(theirs.frame().await.is_some_and(|piece| piece.is_ok()), "{path}: the other key still opens it");
    }
}

#[tokio::test]
async fn all_bodies_together_have_a_bound_and_small_ones_are_always_taken() {
    let hand = Hand::new(3, 0, 0, vec![]);
    let mut surface = surface(&hand);
    // Room for three of these beside what is free.
    (surface.limits.body_bytes, surface.limits.bodies_bytes) = (1 << 20, 3 * ((1 << 20) - (64 << 10)));
    let router = local(surface);
    let body = |bytes: usize| Bytes::from(" ".repeat(bytes));
    // Bodies that have come and do not end: they are held.
    let mut held = vec![];
    for _ in 0..3 {
        let (send, pieces) = futures::channel::mpsc::unbounded::<Result<Bytes, std::io::Error>>();
        send.unbounded_send(Ok(body(1 << 20))).expect("there is room");
        let request = Request::builder().method("POST").uri("/v1/batches").body(Body::from_stream(pieces)).expect("a request");
        let asked = tokio::spawn(router.clone().oneshot(request));
        held.push((send, asked));
    }
    let ask = async |bytes: usize| {
        let request = Request::builder().method("POST").uri("/v1/batches").body(Body::from(body(bytes))).expect("a request");
        let response = router.clone().oneshot(request).await.expect("a router always answers");
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    };
    // They are read by tasks of their own.
    let full = async {
        while ask(1 << 20).await != (429, true) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), full).await.expect("what is held is counted");
    assert_eq!(ask(64 << 10).await, (422, false), "it is read, and says nothing");
    assert_eq!(ask((64 << 10) + 1).await, (429, true));
    assert_eq!(ask((1 << 20) + 1).await.0, 413);
    // One is answered, another's caller hangs up.
    let (send, asked) = held.pop().expect("one of three");
    drop(send);
    assert_eq!(asked.await.expect("it ends").expect("answered").status(), 422);
    assert_eq!(ask(1 << 20).await, (422, false));
    let (_, asked) = held.pop().expect("another");
    asked.abort();
    let _ = asked.await;
    assert_eq!(ask(1 << 20).await, (422, false));
}

#[tokio::test]
async fn a_batch_is_shown_counted_listed_and_commanded() {
    let hand = Hand::new(3, 1, 0, vec![]);
    for path in ["", "/progress", "/report", "/explain"] {
        let (status, _, body) = call(local(surface(&hand)), "GET", &format!("/v1/batches/{ID}{path}")).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (_, _, body) = call(local(surface(&hand)), "GET", "/v1/batches/000000/report").await;
    let report: BatchReport = serde_json::from_str(&body).expect("a report");
    assert_eq!((report.unaccounted, report.settlement.records), (0, 4));
    let (_, kind, body) = call(local(surface(&hand)), "GET", "/v1/batches/0000/recipients?format=csv").await;
    assert_eq!((kind.as_str(), body.lines().count()), ("text/csv; charset=utf-8", 5));
}

#[tokio::test]
async fn the_network_shows_nothing_without_a_key() {
    let hand = Hand::new(3, 0, 0, vec![]);
    let description = serde_json::to_value(document()).expect("it is JSON");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() > 20);
    for (path, methods) in paths {
        for method in methods.as_object().expect("methods").keys() {
            let path = path.replace("{id}", "0000").replace("{name}", "a").replace("{number}", "8613800138000");
            let (status, kind, body) = call(public(surface(&hand)), &method.to_uppercase(), &path).await;
            assert_eq!((status, kind.as_str()), (401, "application/problem+json"), "{method} {path}: {body}");
        }
    }
    assert_eq!(call(public(surface(&hand)), "GET", "/healthz").await.0, 200);
    assert_eq!(call(public(surface(&hand)), "GET", "/openapi.json").await.0, 200);
}

#[tokio::test]
async fn the_socket_answers_like_the_router_and_only_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    // Deeper than a socket's address can say.
    let deep = folder.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).expect("folders");
    for place in [folder.path(), &deep] {
        assert!(Client::running(place).await.is_none(), "nobody is there");
        std::fs::write(place.join(socket::NAME), "left over").expect("a file");
        let listener = socket::listen(place).expect("the left-over file is replaced");
        let mode = std::fs::metadata(place.join(socket::NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let hand = Hand::new(700, 0, 0, vec![]);
        let (stop, router, path) = (CancellationToken::new(), local(surface(&hand)), place.to_owned());
        let serving = {
            let stop = stop.clone();
            tokio::spawn(async move { socket::serve(listener, &path, router, stop).await })
        };
        let client = Client::running(place).await.expect("somebody is there");
        let report: BatchReport = client.get("/v1/batches/0000/report").await.expect("a report");
        assert_eq!(report.settlement.records, 700);
        let fault = client.get::<BatchView>("/v1/batches/ffff").await.expect_err("no such batch");
        assert_eq!(fault.code, Code::BatchNotFound);
        let mut lines = 0;
        let counting = |piece: Bytes| {
            lines += piece.iter().filter(|byte| **byte == b'\n').count();
            Ok(())
        };
        client.stream("/v1/batches/0000/recipients", counting).await.expect("a listing");
        assert_eq!(lines, 700);
        stop.cancel();
        serving.await.expect("it does not panic").expect("it ends in order");
        assert!(!place.join(socket::NAME).exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_may_take_as_long_as_its_batch_is_large() {
    let slow = async || tokio::time::sleep(Duration::from_secs(300)).await;
    let limit = Duration::from_secs(60);
    let router = Router::new()
        .route("/v1/batches/{id}/report", get(slow))
        .route("/v1/batches/{id}", get(slow))
        .layer(middleware::from_fn(move |request, next| in_time(limit, request, next)));
    assert!(document().paths.paths.contains_key("/v1/batches/{id}/report"), "it is the route's own name");
    assert_eq!(call(router.clone(), "GET", "/v1/batches/1/report").await.0, 200);
    assert_eq!(call(router, "GET", "/v1/batches/report").await.0, 408);
}
