//! Leadership: a lease, trusted only for a part of its time, counted from the moment the attempt to get it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::lease::Lease;
use crate::runtime::metrics;

/// The name of the leader's lease.
const NAME: &str = "smsfleet/leader";

/// How long a lease lasts, and how much of it is not trusted.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Time to live of the lease.
    pub ttl: Duration,
    /// What is left when the leader stops trusting it.
    pub margin: Duration,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { ttl: Duration::from_secs(5), margin: Duration::from_secs(1) }
    }
}

/// Runs `lead` for each term in which this process holds the lease, until `stop`. The token given to `lead` is cancelled
/// when the lease is not trusted any more; `lead` has then to return. The lease is given up when `stop` comes, so that
/// another process leads within a second.
pub async fn run<F, Fut>(lease: Arc<dyn Lease>, token: u64, terms: Terms, stop: CancellationToken, mut lead: F)
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let began = Instant::now();
        if !matches!(lease.acquire(NAME, token, terms.ttl).await, Ok(true)) {
            // So that a lease that is given up is taken within half a second.
            wait(&stop, terms.ttl / 15).await;
            continue;
        }
        metrics::count(&metrics::COORDINATE_LEADER, &[], 1);
        let counted = metrics::Term::begin();
        tracing::info!("this process leads");
        let term = stop.child_token();
        let leading = lead(term.clone());
        tokio::pin!(leading);
        let ended = tokio::select! {
            biased;
            () = keep(&*lease, token, terms, began, &stop) => false,
            () = &mut leading => true,
        };
        term.cancel();
        if !ended {
            leading.await;
        }
        drop(counted);
        tracing::info!("this process does not lead any more");
    }
    if let Err(error) = lease.release(NAME, token).await {
        tracing::warn!(%error, "the leader's lease could not be given up; it ends by itself");
    }
}

/// Renews until the lease is lost, not trusted any more, or `stop` comes. A slow success cannot stretch the trust: it counts
/// from the start of its attempt.
async fn keep(lease: &dyn Lease, token: u64, terms: Terms, began: Instant, stop: &CancellationToken) {
    let mut trusted_until = began + terms.ttl - terms.margin;
    loop {
        wait(stop, terms.ttl / 3).await;
        if stop.is_cancelled() {
            return;
        }
        let attempt = Instant::now();
        match tokio::time::timeout_at(trusted_until, lease.acquire(NAME, token, terms.ttl)).await {
            Ok(Ok(true)) => trusted_until = attempt + terms.ttl - terms.margin,
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "the leader's lease could not be renewed yet"),
        }
        if Instant::now() >= trusted_until {
            return;
        }
    }
}

async fn wait(stop: &CancellationToken, most: Duration) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(most) => {}
    }
}
