//! What a provider pushes: delivery reports and messages of people, each answered once it is durable.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::extract::whole;
use super::fleet::{Callback, CallbackReply, Live, Surface};
use super::problem::Problem;
use crate::model::code::{Code, Fault};

impl<S: Send + Sync> FromRequest<S> for Callback {
    type Rejection = Problem;

    /// The token comes in the query (`token=`) or as a bearer.
    async fn from_request(request: Request, state: &S) -> Result<Callback, Problem> {
        let (mut parts, body) = request.into_parts();
        let Path(account) = Path::<String>::from_request_parts(&mut parts, state)
            .await
            .map_err(|refused| Fault::new(Code::InputInvalid, refused.body_text()))?;
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let bearer = text(header::AUTHORIZATION).strip_prefix("Bearer ").map(str::to_owned);
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned).or(bearer);
        let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let body: Bytes = whole(Request::from_parts(parts, body), state).await?;
        Ok(Callback { account, token, query, content_type, body })
    }
}

/// `GET` or `POST /v1/receipts/{account}`.
pub async fn receipts(State(surface): State<Arc<Surface>>, callback: Callback) -> Result<Response, Problem> {
    Ok(replied(live(&surface)?.receipts(callback).await?))
}

/// `GET` or `POST /v1/inbound/{account}`.
pub async fn inbound(State(surface): State<Arc<Surface>>, callback: Callback) -> Result<Response, Problem> {
    Ok(replied(live(&surface)?.inbound(callback).await?))
}

fn replied(reply: CallbackReply) -> Response {
    ([(header::CONTENT_TYPE, reply.content_type)], reply.body).into_response()
}

/// The fleet of this process.
pub(super) fn live(surface: &Surface) -> Result<&Arc<dyn Live>, Fault> {
    surface.live.as_ref().ok_or_else(|| Fault::new(Code::StoreUnavailable, "no fleet runs in this process"))
}
