//! The surface as the command line and providers meet it.

use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::ports::Stores;
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
