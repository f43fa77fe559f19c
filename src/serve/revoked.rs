//! Answers that stream end with the key they were asked for with: who holds a revoked one is shown nothing more.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use futures::{StreamExt, stream};
use tokio::time::{Instant, interval_at};

use crate::access::keys::Keys;
use crate::model::access::Caller;

/// How often the key of a stream is looked at again.
const EVERY: Duration = Duration::from_secs(2);

/// An answer that breaks off once its key opens nothing any more. It has no end then, so that nobody takes it for a whole one. One
/// that stands already stays as it is.
pub fn until_revoked(response: Response, keys: Arc<Keys>, caller: &Caller) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let state = Some((body.into_data_stream(), Box::pin(revoked(keys, caller.key.clone()))));
    let pieces = stream::unfold(state, |state| async move {
        let (mut pieces, mut over) = state?;
        tokio::select! {
            biased;
            () = &mut over => Some((Err(axum::Error::new("the key was revoked or has expired")), None)),
            piece = pieces.next() => piece.map(|piece| (piece, Some((pieces, over)))),
        }
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Comes when the key opens nothing any more. A store that does not answer is no reason.
fn revoked(keys: Arc<Keys>, id: String) -> impl Future<Output = ()> {
    // From now on, also before anybody asks for the first piece.
    let mut every = interval_at(Instant::now() + EVERY, EVERY);
    async move {
        loop {
            every.tick().await;
            if matches!(keys.opens(&id).await, Ok(false)) {
                return;
            }
        }
    }
}
