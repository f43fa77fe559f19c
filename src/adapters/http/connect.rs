//! Connections that are there in time, or not at all.
//!
//! A message is handed over when its request is written, which is when there is a connection. So the time by which it must be
//! handed over bounds connecting too: a request goes out over a connection that was kept, or over a new one made in that time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tower::{BoxError, Layer, Service};

tokio::task_local! {
    /// Until when the request that this task sends may be written. The client makes connections inside the request's own
    /// future and hands nothing of the request to what makes them.
    static BY: Instant;
}

/// Runs a request. If it needs a new connection, and that is not there after `left`, it fails as one that was not connected.
pub async fn connected_within<F: Future>(left: Duration, request: F) -> F::Output {
    match Instant::now().checked_add(left) {
        Some(by) => BY.scope(by, request).await,
        None => request.await,
    }
}

/// Makes connections keep to the time of the request that asks for them.
#[derive(Clone)]
pub struct InTime;

impl<S> Layer<S> for InTime {
    type Service = Connecting<S>;

    fn layer(&self, inner: S) -> Connecting<S> {
        Connecting(inner)
    }
}

/// A connector that keeps to the time of the request that asks for a connection.
#[derive(Clone)]
pub struct Connecting<S>(S);

impl<S, To> Service<To> for Connecting<S>
where
    S: Service<To, Error = BoxError>,
    S::Response: 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, to: To) -> Self::Future {
        let connecting = self.0.call(to);
        let Ok(by) = BY.try_with(|by| *by) else { return Box::pin(connecting) };
        Box::pin(async move {
            match timeout_at(by, connecting).await {
                // A process that stood still finds the connection made, and the time over.
                Ok(connected) if connected.is_err() || Instant::now() < by => connected,
                Ok(_) | Err(_) => Err("no connection before the time of the messages was over".into()),
            }
        })
    }
}
