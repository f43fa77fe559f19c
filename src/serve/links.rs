//! Short links as visitors open them: `GET` or `HEAD` of a code.
//!
//! A redirect is a 302 and never a 301: browsers remember a permanent one, so later openings would not be seen, and a link
//! could neither expire nor get another target. Nothing of the request becomes part of where it leads.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::extract::Named;
use super::fleet::Surface;
use super::problem::Problem;
use crate::links::{Opened, Redirector, Visit};
use crate::model::click::RequestFacts;
use crate::model::code::{Code, Fault};

/// Headers of one visit, and their bytes, at most.
const HEADERS_MAX: (usize, usize) = (64, 16 * 1024);
/// Bytes of a user agent or an address that are looked at.
const FACT_BYTES: usize = 512;

/// `GET` or `HEAD /{code}`: leads to the batch's long link, to the fallback, or nowhere.
pub async fn open(State(surface): State<Arc<Surface>>, code: Result<Named, Problem>, request: Request) -> Response {
    let redirector = surface.live.as_ref().and_then(|live| live.links());
    let code = code.ok().map(|Named(code)| code).filter(|code| Redirector::is_code(code));
    let Some((redirector, code)) = redirector.zip(code) else {
        return Problem::from(Fault::new(Code::NotFound, "there is no such route")).into_response();
    };
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX.0 || bytes > HEADERS_MAX.1 {
        return page(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Too many headers.\n");
    }
    let purposes = [text(headers, "purpose"), text(headers, "sec-purpose"), text(headers, "x-moz")];
    let purpose = purposes.join(" ");
    let facts = RequestFacts { method: request.method().as_str(), purpose: &purpose, agent: text(headers, "user-agent") };
    let address = address(&redirector, &request);
    let (status, to) = match redirector.resolve(&code, &Visit { facts, address: &address }).await {
        Ok(Opened::Redirect { to } | Opened::Fallback { to }) => (StatusCode::FOUND, to),
        Ok(Opened::Unknown) => return page(StatusCode::NOT_FOUND, "There is no such link.\n"),
        Ok(Opened::Expired) => return page(StatusCode::GONE, "This link has expired.\n"),
        Err(_) => {
            let mut response = page(StatusCode::SERVICE_UNAVAILABLE, "Please try again in a moment.\n");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            return response;
        }
    };
    let mut response = page(status, "");
    // An address is written in ASCII by whoever made it; one that is not leads nowhere.
    match HeaderValue::from_str(&to) {
        Ok(to) => _ = response.headers_mut().insert(header::LOCATION, to),
        Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

/// A short plain answer that nobody keeps, and that tells the page nothing of the code: a code stands for a person.
fn page(status: StatusCode, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, [("x-robots-tag", "noindex, nofollow")], text).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    // `to_str` gives visible ASCII alone, so every byte is a character.
    &text[..text.len().min(FACT_BYTES)]
}

/// The visitor's address: what the proxy in front says when one is configured, else the other end of the connection.
fn address(redirector: &Redirector, request: &Request) -> String {
    if let Some(name) = redirector.address_header() {
        // The last one was written by our own proxy; those before it by anybody.
        return text(request.headers(), name).rsplit(',').next().unwrap_or("").trim().to_owned();
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or_else(String::new, |ConnectInfo(peer)| peer.ip().to_string())
}
