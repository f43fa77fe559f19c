//! Leadership: a lease, trusted only for a part of its time, counted from the moment the attempt to get it began.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::lease::Lease;
use crate::runtime::metrics;

/// The name of the leader's lease.
pub(super) const NAME: &str = "smsfleet/leader";

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
/// when the lease is not trusted any more, and when this is dropped; `lead` has then to return. The lease is given up the
/// moment `stop` comes, whatever `lead` still waits for, so that another process leads within a second.
pub async fn run<F, Fut>(lease: Arc<dyn Lease>, token: u64, terms: Terms, stop: CancellationToken, mut lead: F)
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let began = Instant::now();
        let taken = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            taken = lease.acquire(NAME, token, terms.ttl) => taken,
        };
        if !matches!(taken, Ok(true)) {
            // So that a lease that is given up is taken within half a second.
            wait(&stop, Instant::now() + terms.ttl / 15).await;
            continue;
        }
        metrics::count(&metrics::COORDINATE_LEADER, &[], 1);
        let counted = metrics::Term::begin();
        tracing::info!("this process leads");
        let term = stop.child_token();
        // Dropped where it stands, as by a crash, it leaves nothing behind that goes on in its name.
        let over = term.clone().drop_guard();
        let leading = lead(term);
        tokio::pin!(leading);
        let ended = tokio::select! {
            biased;
            () = keep(&*lease, token, terms, began, &stop) => false,
            () = &mut leading => true,
        };
        drop(over);
        let rest = async {
            if !ended {
                leading.await;
            }
        };
        // The next leader need not wait until the last call to somebody's server has ended.
        let handed_over = async {
            if stop.is_cancelled() {
                give_up(&*lease, token).await;
            }
        };
        tokio::join!(rest, handed_over);
        drop(counted);
        tracing::info!("this process does not lead any more");
    }
    // Again for who led: harmless. An attempt to take or renew it that was under way at the stop may have been carried out.
    give_up(&*lease, token).await;
}

async fn give_up(lease: &dyn Lease, token: u64) {
    if let Err(error) = lease.release(NAME, token).await {
        tracing::warn!(%error, "the leader's lease could not be given up; it ends by itself");
    }
}

/// Renews until the lease is lost, not trusted any more, or `stop` comes. A slow success cannot stretch the trust: it counts
/// from the start of its attempt.
async fn keep(lease: &dyn Lease, token: u64, terms: Terms, began: Instant, stop: &CancellationToken) {
    let mut trusted_until = began + terms.ttl - terms.margin;
    loop {
        wait(stop, trusted_until.min(Instant::now() + terms.ttl / 3)).await;
        let attempt = Instant::now();
        let renewed = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            renewed = tokio::time::timeout_at(trusted_until, lease.acquire(NAME, token, terms.ttl)) => renewed,
        };
        match renewed {
            Ok(Ok(true)) => trusted_until = attempt + terms.ttl - terms.margin,
            Ok(Ok(false)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "the leader's lease could not be renewed yet"),
        }
        if Instant::now() >= trusted_until {
            return;
        }
    }
}

async fn wait(stop: &CancellationToken, until: Instant) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep_until(until) => {}
    }
}
