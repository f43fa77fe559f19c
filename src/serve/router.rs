//! The routes: the whole API, on the local socket for the owner of the folder, on the network for who has a key; and what
//! needs no key.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;

use super::access::{Pace, as_owner, with_key};
use super::api;
use super::callbacks::{self, live};
use super::fleet::{Limits, Surface};
use super::flight::{Bodies, bounded};
use super::health;
use super::heard::hear_out;
use super::links;
use super::problem::Problem;
use crate::model::code::{Code, Fault};
use crate::runtime::metrics::{SERVE_LATENCY, SERVE_REQUESTS, count, observe};

/// All routes: for the local socket, whose file only its owner can open.
pub fn local(surface: Surface) -> Router {
    let surface = Arc::new(surface);
    let (api, _) = api::routes().split_for_parts();
    finish(api.layer(middleware::from_fn(as_owner)), surface)
}

/// All routes for the network: the API behind its keys, providers' receipts behind their tokens.
pub fn public(surface: Surface) -> Router {
    let surface = Arc::new(surface);
    let (api, _) = api::routes().split_for_parts();
    let pace = Arc::new(Pace::new(surface.limits.requests_per_second));
    finish(api.layer(middleware::from_fn_with_state((surface.clone(), pace), with_key)), surface)
}

/// The description as it is served: made once, at the first request for it.
static DESCRIBED: LazyLock<Bytes> = LazyLock::new(|| serde_json::to_vec(&document()).unwrap_or_default().into());

/// The description of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = api::routes().split_for_parts().1;
    // Handlers of several files share their names; an operation's name is its own.
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for (method, operation) in ["get", "put", "post", "delete"].into_iter().zip(operations) {
            let words = path.split(['/', '{', '}', '-']).filter(|word| !word.is_empty() && *word != "v1");
            if let Some(operation) = operation {
                operation.operation_id = Some(words.fold(method.to_owned(), |name, word| format!("{name}_{word}")));
            }
        }
    }
    document
}

/// Where lists are handed in: larger, and slower, than anything else.
const UPLOADS: &str = "/v1/uploads";
/// How long a report may be counted: every record of the batch, from the store.
const REPORT_WITHIN: Duration = Duration::from_secs(20 * 60);

/// Routes that need no key.
fn open_routes() -> Router<Arc<Surface>> {
    Router::new()
        .route("/v1/receipts/{account}", post(callbacks::receipts).get(callbacks::receipts))
        .route("/v1/inbound/{account}", post(callbacks::inbound).get(callbacks::inbound))
        .route("/{code}", get(links::open))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(api::DOCUMENT, get(async || ([(header::CONTENT_TYPE, "application/json")], DESCRIBED.clone())))
}

fn finish(api: Router<Arc<Surface>>, surface: Arc<Surface>) -> Router {
    let limits = surface.limits;
    // One body must always have room.
    let bodies = Bodies::new(limits.bodies_bytes.max(limits.body_bytes));
    api.merge(open_routes())
        .fallback(|| async { Problem::from(Fault::new(Code::NotFound, "there is no such route")) })
        .method_not_allowed_fallback(|| async {
            Problem::from(Fault::new(Code::MethodUnknown, "the route does not take this method"))
        })
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(middleware::from_fn(move |request, next| within_size(limits, request, next)))
        .layer(middleware::from_fn(move |request, next| in_time(limits.request, request, next)))
        .layer(middleware::from_fn(move |request, next| bounded(bodies.clone(), request, next)))
        .layer(middleware::from_fn(counted))
        .layer(middleware::from_fn(hear_out))
        .with_state(surface)
}

/// Refuses a body that says itself that it is too large, before any of it is read.
async fn within_size(limits: Limits, request: Request, next: Next) -> Response {
    let most = if request.uri().path() == UPLOADS { limits.upload_bytes } else { limits.body_bytes as u64 };
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > most) {
        let code = if request.uri().path() == UPLOADS { Code::UploadTooLarge } else { Code::BodyTooLarge };
        return Problem::from(Fault::new(code, format!("a body here has at most {most} bytes"))).into_response();
    }
    next.run(request).await
}

/// Ends a request that takes too long to be answered. An answer that streams has been given once it begins; a list that is
/// handed in may take as long as it does not stand still.
async fn in_time(limit: Duration, request: Request, next: Next) -> Response {
    if request.uri().path() == UPLOADS {
        return next.run(request).await;
    }
    let is_report = request.uri().path().strip_prefix("/v1/batches/").is_some_and(|of| of.ends_with("/report"));
    let limit = if is_report { limit.max(REPORT_WITHIN) } else { limit };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::from(Fault::new(Code::TooSlow, format!("no answer within {} seconds", limit.as_secs()))).into_response()
        }
    }
}

async fn counted(request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    let response = next.run(request).await;
    count(&SERVE_REQUESTS, &[response.status().as_str()], 1);
    observe(&SERVE_LATENCY, &[], began.elapsed());
    response
}

async fn ready(State(surface): State<Arc<Surface>>) -> Result<Response, Problem> {
    Ok(health::readiness(live(&surface)?.ready()))
}

async fn metrics(State(surface): State<Arc<Surface>>) -> Response {
    health::rendered(surface.exporter.as_ref().map(|exporter| exporter.render()).unwrap_or_default())
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
