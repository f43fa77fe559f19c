//! What a process listens with: the network and the local socket, on threads of their own.
//!
//! Tasks of one runtime wait for each other: while fifty batches are sent, a request waited behind everything that the lanes had
//! to do before its turn came, and once more before its answer left. Two threads that mostly sleep are woken by the system when
//! a request comes, however much the others have to do. Health is asked there too, so a fleet that stands still can say so.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use crate::model::code::{Code, Fault};
use crate::runtime::task;
use crate::serve::fleet::Limits;
use crate::serve::{listen, socket};

/// Threads: a long list that one of them reads does not keep the other's requests waiting.
const THREADS: usize = 2;
/// How long what is served may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What listens.
pub struct Serving {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    /// Taken when it is dropped: a runtime that is dropped by a task would have to wait for its threads.
    runtime: Option<Runtime>,
}

impl Serving {
    /// Starts the threads; nothing listens yet.
    ///
    /// # Errors
    /// The system has no threads left.
    pub fn start() -> Result<Serving, Fault> {
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).thread_name("smsfleet-http").enable_all().build();
        let runtime = runtime.map_err(|error| Fault::new(Code::Internal, format!("no threads to serve with: {error}")))?;
        Ok(Serving { stop: CancellationToken::new(), tasks: vec![], runtime: Some(runtime) })
    }

    /// Serves routes on the socket of the data folder.
    ///
    /// # Errors
    /// The folder takes no socket.
    pub fn local(&mut self, config: &Config, routes: Router) -> Result<(), Fault> {
        let folder = config.data_dir.clone();
        let cannot =
            |error: std::io::Error| Fault::new(Code::StoreUnavailable, format!("no socket in {}: {error}", folder.display()));
        let entered = self.runtime.as_ref().map(Runtime::enter);
        let listener = socket::listen(&folder).map_err(cannot)?;
        drop(entered);
        let stop = self.stop.clone();
        self.spawn("local socket", async move {
            if let Err(error) = socket::serve(listener, &folder, routes, stop).await {
                tracing::error!(%error, "the local socket failed");
            }
        });
        Ok(())
    }

    /// Serves routes where the configuration says, if it says so; answers the address.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a certificate that cannot be used.
    pub async fn network(&mut self, config: &Config, routes: Router) -> Result<Option<SocketAddr>, Fault> {
        let Some(address) = config.serve.listen else { return Ok(None) };
        let tls = config.serve.tls.as_ref().map(|tls| listen::tls(&tls.certificate, &tls.key)).transpose()?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(%address, "HTTP is served to the network without TLS: set serve.tls, or put a proxy in front");
        }
        let cannot =
            |error: std::io::Error| Fault::new(Code::InputInvalid, format!("cannot listen on {address} (serve.listen): {error}"));
        let Some(runtime) = &self.runtime else { return Ok(None) };
        // Bound by the threads that serve: theirs are its events.
        let binding = runtime.spawn(TcpListener::bind(address));
        let listener = binding.await.map_err(std::io::Error::other).and_then(|bound| bound).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        self.spawn("network", listen::serve(listener, routes, tls, limits(config), self.stop.clone()));
        Ok(Some(bound))
    }

    fn spawn(&mut self, name: &'static str, serving: impl Future<Output = ()> + Send + 'static) {
        let _entered = self.runtime.as_ref().map(Runtime::enter);
        self.tasks.push(task::spawn(name, serving));
    }

    /// A token that is cancelled when this ends.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Takes no more requests; those under way may end.
    pub async fn end(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            // A client that reads slowly must not keep the process alive.
            let _ = tokio::time::timeout(GRACE, task).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a client may ask of this process.
pub(super) fn limits(config: &Config) -> Limits {
    let serve = &config.serve;
    Limits {
        body_bytes: (serve.body_kb as usize) << 10,
        upload_bytes: u64::from(config.uploads.max_mb) << 20,
        request: serve.request_timeout,
        requests_per_second: serve.requests_per_second,
        connections: serve.connections as usize,
        head: serve.head_timeout,
        stall: serve.stall_timeout,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use axum::routing::get;

    use super::*;

    /// The one thread of this test's runtime waits for the answer itself: only another thread can give it.
    #[tokio::test]
    async fn requests_are_answered_while_the_rest_of_the_process_stands_still() {
        let mut serving = Serving::start().expect("threads");
        let mut config = Config::default();
        config.serve.listen = Some("127.0.0.1:0".parse().expect("an address"));
        let routes = Router::new().route("/healthz", get(async || "alive"));
        let address = serving.network(&config, routes).await.expect("it listens").expect("an address");

        let mut client = std::net::TcpStream::connect(address).expect("a connection");
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        client.write_all(b"GET /healthz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("alive"), "{answer}");
        serving.end().await;
    }
}
