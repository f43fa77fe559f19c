//! What was answered is heard by whoever still sends.
//!
//! A request can be refused by its head alone, while its body is still on its way. Closing the connection then resets it,
//! and a client that has not read yet may never see why (RFC 9112, section 9.6). The service therefore takes in some of what still
//! comes, and the command line reads the answer where writing broke off.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::runtime::task;

/// Bytes of an answered request that are taken in at most: whoever sends more has had time to read the answer.
const UNREAD_BYTES_MAX: usize = 8 << 20;
/// For how long at most.
const UNREAD_WITHIN: Duration = Duration::from_secs(2);

/// Takes in what the handler left of a request's body, behind its answer.
pub async fn hear_out(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let body = Arc::new(Mutex::new(body));
    let response = next.run(Request::from_parts(parts, Body::new(Lent(body.clone())))).await;
    // Who still reads it for the answer needs nobody to do so.
    if let Some(body) = Arc::into_inner(body) {
        let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !body.is_end_stream() {
            task::spawn("unread body", async move {
                let _ = tokio::time::timeout(UNREAD_WITHIN, take_in(body)).await;
            });
        }
    }
    response
}

async fn take_in(mut body: Body) {
    let mut left = UNREAD_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// A body that its owner gets back.
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// A client's stream that is read on when writing broke: only reading tells whether the other side said why. When it did not,
/// reading ends, or breaks too.
pub(super) struct Listening<S>(pub S);

/// A write that broke waits: whoever reads the stream is woken by its end.
fn unless_broken<T>(written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    if matches!(written, Poll::Ready(Err(_))) { Poll::Pending } else { written }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        unless_broken(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        unless_broken(Pin::new(&mut self.0).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "heard_tests.rs"]
mod tests;
