//! The network's listener: bounded connections, bounded heads, TLS when it is configured.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::fleet::Limits;
use super::places::{Place, Places, Taken};
use crate::model::code::{Code, Fault};

/// Bytes that the head of a request may have.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Headers of a request at most.
const HEADERS_MAX: usize = 64;
/// How long requests under way may go on after the listener was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// TLS for the listener, from a certificate chain and its key as PEM files.
///
/// # Errors
/// [`Code::ConfigInvalid`], naming the file.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Fault> {
    let cannot = |path: &Path, error: &dyn std::fmt::Display| {
        Fault::new(Code::ConfigInvalid, format!("serve.tls: {} cannot be used: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| cannot(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| cannot(certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves the network until `stop`. A connection above the limit waits in the system's queue until another one ends; one of an
/// address that has nearly all places itself is closed.
pub async fn serve(listener: TcpListener, router: Router, tls: Option<TlsAcceptor>, limits: Limits, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let places = Places::new(limits.connections);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room, &places) => accepted,
        };
        let Some((stream, from, place)) = accepted else { continue };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            let stream = Taken::new(stream, limits.stall);
            // A client that breaks off, or speaks something else, is no error of ours.
            match tls {
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(limits.head, tls.accept(stream)).await {
                        connection(stream, from, router, limits, stop).await;
                    }
                }
                None => connection(stream, from, router, limits, stop).await,
            }
        });
    }
    connections.close();
    let _ = tokio::time::timeout(GRACE, connections.wait()).await;
}

type Accepted = (TcpStream, SocketAddr, (tokio::sync::OwnedSemaphorePermit, Place));

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>, places: &Arc<Places>) -> Option<Accepted> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, from)) => {
            let place = places.take(from.ip())?;
            let _ = stream.set_nodelay(true);
            Some((stream, from, (permit, place)))
        }
        Err(error) => {
            // Too many open files, above all: others must end before there is room again.
            if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            None
        }
    }
}

async fn connection<S>(stream: S, from: SocketAddr, router: Router, limits: Limits, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        biased;
        _ = serving.as_mut() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, serving).await;
        }
    }
}

#[cfg(test)]
#[path = "listen_tests.rs"]
mod tests;
