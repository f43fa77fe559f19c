//! Messages of people that a provider pushes: answered once they are durable.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::fleet::{Callback, Surface};
use super::problem::Problem;
use crate::model::code::{Code, Fault};

/// `GET` or `POST /v1/inbound/{account}`. The token comes in the query (`token=`) or as a bearer, as for receipts.
pub async fn take(
    State(surface): State<Arc<Surface>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let live = surface.live.as_ref();
    let live = live.ok_or_else(|| Fault::new(Code::StoreUnavailable, "no fleet runs in this process"))?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let query = query.unwrap_or_default();
    let bearer = text(header::AUTHORIZATION).strip_prefix("Bearer ").map(str::to_owned);
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned).or(bearer);
    let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let reply = live.inbound(Callback { account, token, query, content_type, body }).await?;
    Ok(([(header::CONTENT_TYPE, reply.content_type)], reply.body).into_response())
}
