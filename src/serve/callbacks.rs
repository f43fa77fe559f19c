//! What a provider pushes: delivery reports and messages of people, each answered once it is durable.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::extract::{Named, whole};
use super::fleet::{Callback, CallbackKind, CallbackReply, Live, Surface};
use super::problem::Problem;
use crate::model::code::{Code, Fault};

/// A callback that knows its token. The token comes in the query (`token=`) or as a bearer.
async fn admitted(surface: &Surface, kind: CallbackKind, request: Request) -> Result<Callback, Problem> {
    let (mut parts, body) = request.into_parts();
    let Named(account) = Named::from_request_parts(&mut parts, surface).await?;
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let (token, query) = token_of(parts.uri.query().unwrap_or_default());
    let bearer = text(header::AUTHORIZATION).strip_prefix("Bearer ").map(str::to_owned);
    let token = token.or(bearer);
    let content_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let head = Callback { account, token, query, content_type, body: Bytes::new() };
    live(surface)?.admits(kind, &head)?;
    let body = whole(Request::from_parts(parts, body)).await?;
    Ok(Callback { body, ..head })
}

/// The token in a query, and the query without it. What a callback without a body says is its query, which is kept and handed
/// out: whoever read the token there could say what was delivered.
fn token_of(query: &str) -> (Option<String>, String) {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned);
    let others: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("token=")).collect();
    (token, others.join("&"))
}

/// `GET` or `POST /v1/receipts/{account}`.
pub async fn receipts(State(surface): State<Arc<Surface>>, request: Request) -> Result<Response, Problem> {
    let callback = admitted(&surface, CallbackKind::Receipts, request).await?;
    Ok(replied(live(&surface)?.receipts(callback).await?))
}

/// `GET` or `POST /v1/inbound/{account}`.
pub async fn inbound(State(surface): State<Arc<Surface>>, request: Request) -> Result<Response, Problem> {
    let callback = admitted(&surface, CallbackKind::Inbound, request).await?;
    Ok(replied(live(&surface)?.inbound(callback).await?))
}

fn replied(reply: CallbackReply) -> Response {
    ([(header::CONTENT_TYPE, reply.content_type)], reply.body).into_response()
}

/// The fleet of this process.
pub(super) fn live(surface: &Surface) -> Result<&Arc<dyn Live>, Fault> {
    surface.live.as_ref().ok_or_else(|| Fault::new(Code::StoreUnavailable, "no fleet runs in this process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_no_part_of_what_a_callback_says() {
        for (query, token, rest) in [
            ("id=7&token=t0k&status=DELIVRD", Some("t0k"), "id=7&status=DELIVRD"),
            ("token=t0k&id=7&token=other", Some("t0k"), "id=7"),
            ("token=t0k", Some("t0k"), ""),
            ("id=7&mytoken=x", None, "id=7&mytoken=x"),
            ("", None, ""),
        ] {
            assert_eq!(token_of(query), (token.map(str::to_owned), rest.to_owned()), "{query}");
        }
    }
}
