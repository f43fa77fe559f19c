//! What every process serves before, beside and without an API: whether it lives, whether it can work, what it counted.
//!
//! A process listens before it has reached the servers it needs, so that whoever asks is told what it waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower::ServiceExt;

use super::problem::Problem;
use crate::model::code::{Code, Fault};
use crate::runtime::metrics::Exporter;
use crate::runtime::pulse::{self, Pulses};

/// What keeps a process from its work, by part; nothing when it can work.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Health {
    /// A process that cannot work yet, and why.
    pub fn starting(why: impl Into<String>) -> Health {
        let health = Health::default();
        health.fails("start", why);
        health
    }

    /// A part does not work.
    pub fn fails(&self, part: &'static str, why: impl Into<String>) {
        self.lock().insert(part, why.into());
    }

    /// A part works again.
    pub fn works(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// Whether all parts work; else what does not, in one sentence for people.
    ///
    /// # Errors
    /// What does not work.
    pub fn ready(&self) -> Result<(), String> {
        let failing = self.lock();
        if failing.is_empty() {
            return Ok(());
        }
        Err(failing.values().cloned().collect::<Vec<_>>().join("; "))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of a process without an API.
pub fn routes(health: Health, exporter: Exporter) -> Router {
    let not_here =
        || async { Problem::from(Fault::new(Code::NotFound, "this process serves /healthz, /readyz and /metrics only")) };
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(|State(health): State<Health>| async move { readiness(health.ready()) }))
        .route("/metrics", get(move || async move { rendered(exporter.render()) }))
        .fallback(not_here)
        .with_state(health)
}

/// Answers whether this process lives.
pub async fn alive() -> Response {
    liveness(pulse::of_process())
}

/// The answer to whether a process lives: whether all its parts turn. What it waits for outside is no matter of this: a server
/// that is away must not end all processes.
fn liveness(pulses: &Pulses) -> Response {
    match pulses.stall() {
        None => "ok\n".into_response(),
        Some(stall) => {
            let what = format!("the {} has stood still for {} seconds", stall.name, stall.seconds);
            Problem::from(Fault::new(Code::Standstill, what)).into_response()
        }
    }
}

/// The answer to whether a process is ready.
pub fn readiness(ready: Result<(), String>) -> Response {
    match ready {
        Ok(()) => "ready\n".into_response(),
        Err(why) => Problem::from(Fault::new(Code::ServerUnavailable, why)).into_response(),
    }
}

/// The answer with everything that was counted.
pub fn rendered(text: String) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Routes behind one listener that can be exchanged while it listens.
#[derive(Clone)]
pub struct Front(Arc<Mutex<Router>>);

impl Front {
    /// Begins with these routes.
    pub fn new(first: Router) -> Front {
        Front(Arc::new(Mutex::new(first)))
    }

    /// Serves these from now on.
    pub fn show(&self, routes: Router) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// What the listener is given.
    pub fn router(&self) -> Router {
        let front = self.clone();
        Router::new().fallback(move |request: Request| {
            let now = front.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { now.oneshot(request).await.into_response() }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn a_process_with_a_part_that_stands_still_does_not_live_and_says_which_until_it_turns_again() {
        let pulses = Pulses::of_test(120);
        let pulse = pulses.thread("store's writer");
        let router = |pulses: Pulses| Router::new().route("/healthz", get(move || async move { liveness(&pulses) }));
        pulses.pass(119);
        assert_eq!(ask(router(pulses.clone()), "/healthz").await, (StatusCode::OK, "ok\n".into()));
        pulses.pass(1);
        let (status, body) = ask(router(pulses.clone()), "/healthz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("SF-4013") && body.contains("the store's writer has stood still for 120 seconds"), "{body}");
        pulse.turns();
        assert_eq!(ask(router(pulses), "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_process_lives_before_it_is_ready_and_says_what_it_waits_for() {
        let health = Health::starting("waits for Kafka at k:9092 (kafka.brokers)");
        let exporter = Exporter::install("test").expect("no other recorder in the tests");
        let front = Front::new(routes(health.clone(), exporter));
        assert_eq!(ask(front.router(), "/healthz").await.0, StatusCode::OK);
        let (status, body) = ask(front.router(), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("kafka.brokers") && body.contains("SF-4009"), "{body}");
        health.works("start");
        assert_eq!(ask(front.router(), "/readyz").await, (StatusCode::OK, "ready\n".into()));
        health.fails("store", "the store does not answer");
        assert_eq!(ask(front.router(), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(front.router(), "/v1/batches").await.0, StatusCode::NOT_FOUND);
        front.show(Router::new().route("/v1/batches", get(|| async { "all" })));
        assert_eq!(ask(front.router(), "/v1/batches").await.1, "all");
    }
}
