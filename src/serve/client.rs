//! The other end of the surface: over the network, over the socket of the process that holds the folder, or straight into a
//! router.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tower::ServiceExt;

use super::heard::Listening;
use super::problem::Problem;
use super::socket;
use crate::model::code::{Code, Fault};
use crate::runtime::task;

/// The longest answer that is taken as a whole; listings are streamed.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// A way to the surface.
#[derive(Clone)]
pub enum Client {
    /// The process that holds the folder.
    Socket(std::path::PathBuf),
    /// This process.
    Here(Router),
    /// A service on the network.
    Remote(Arc<Remote>),
}

/// A service on the network.
pub struct Remote {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    key: SecretString,
}

impl Remote {
    /// The service at a URL such as `https://sms.example:8080`, opened by an API key. `tls` is used for `https`.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] when the URL is none of ours.
    pub fn new(url: &str, key: &str, tls: Arc<ClientConfig>) -> Result<Remote, Fault> {
        let wrong = |what: &str| Fault::new(Code::InputInvalid, format!("the server {url:?} {what}"));
        let parsed = url::Url::parse(url).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        let plain = parsed.path().trim_matches('/').is_empty() && parsed.query().is_none() && parsed.username().is_empty();
        let host = parsed.host_str().filter(|_| plain).ok_or_else(|| wrong("is not of the form https://host:port"))?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(TlsConnector::from(tls)),
            _ => return Err(wrong("is neither http nor https")),
        };
        let port = parsed.port_or_known_default().ok_or_else(|| wrong("has no port"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Remote { host, port, tls, key: SecretString::from(key.to_owned()) })
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// Bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A request to the surface.
pub struct Call {
    method: Method,
    path: String,
    key: Option<String>,
    body: Body,
}

impl Call {
    /// A request without a body. `path` carries its query.
    pub fn new(method: Method, path: impl Into<String>) -> Call {
        Call { method, path: path.into(), key: None, body: Body::empty() }
    }

    /// With a JSON body.
    pub fn json<T: Serialize>(mut self, value: &T) -> Call {
        self.body = Body::from(serde_json::to_vec(value).unwrap_or_default());
        self
    }

    /// With a body of bytes as they come.
    pub fn body(mut self, body: Body) -> Call {
        self.body = body;
        self
    }

    /// Under an idempotency key.
    pub fn once(mut self, key: impl Into<String>) -> Call {
        self.key = Some(key.into());
        self
    }
}

impl Client {
    /// The process that holds `folder`, when one answers on its socket.
    pub async fn running(folder: &Path) -> Option<Client> {
        let (path, _open) = socket::address(folder, socket::NAME).ok()?;
        UnixStream::connect(path).await.ok()?;
        Some(Client::Socket(folder.to_owned()))
    }

    /// Sends a request.
    async fn send(&self, call: Call) -> Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(call.method).uri(call.path).header("host", "localhost");
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if let Client::Remote(remote) = self {
            request = request.header("authorization", format!("Bearer {}", remote.key.expose_secret()));
        }
        let request = request.body(call.body).map_err(|error| Fault::new(Code::InputInvalid, error.to_string()))?;
        match self {
            Client::Here(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Client::Socket(folder) => {
                let broken = |error: &dyn std::fmt::Display| {
                    Fault::new(Code::FolderInUse, format!("the process that holds the data folder does not answer: {error}"))
                };
                let stream = connect(folder).await.map_err(|error| broken(&error))?;
                exchange(stream, request).await.map_err(|error| broken(&error))
            }
            Client::Remote(remote) => {
                let broken = |error: &dyn std::fmt::Display| {
                    Fault::new(Code::ServerDown, format!("{}:{} does not answer: {error}", remote.host, remote.port))
                };
                let stream = remote.connect().await.map_err(|error| broken(&error))?;
                exchange(stream, request).await.map_err(|error| broken(&error))
            }
        }
    }

    /// Sends a request and reads the JSON answer.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Fault> {
        self.read(self.send(call).await?).await
    }

    /// Reads a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.call(Call::new(Method::GET, path)).await
    }

    /// Streams an answer, piece by piece, into `sink`.
    pub async fn stream<F>(&self, path: &str, mut sink: F) -> Result<(), Fault>
    where
        F: FnMut(Bytes) -> io::Result<()>,
    {
        let response = self.send(Call::new(Method::GET, path)).await?;
        if !response.status().is_success() {
            return self.read::<serde_json::Value>(response).await.map(|_| ());
        }
        let mut pieces = response.into_body().into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Fault::new(Code::StoreUnavailable, format!("the listing broke off: {error}")))?;
            sink(piece).map_err(|error| Fault::new(Code::OutputFailed, error.to_string()))?;
        }
        Ok(())
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, Fault> {
        let status = response.status();
        let bytes = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| Fault::new(Code::StoreUnavailable, format!("the answer broke off: {error}")))?
            .to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| unreadable(status, &error));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(problem.into()),
            Err(error) => Err(unreadable(status, &error)),
        }
    }
}

async fn exchange(stream: impl Stream + 'static, request: Request<Body>) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(Listening(stream))).await?;
    task::spawn("client", async move {
        // A connection that breaks shows in the response that is being read.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?.map(Body::new))
}

async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (path, _open) = socket::address(folder, socket::NAME)?;
    UnixStream::connect(path).await
}

fn unreadable(status: StatusCode, error: &serde_json::Error) -> Fault {
    let text = format!("the answer ({status}) cannot be read: {error}; is the other process of the same version?");
    Fault::new(Code::Internal, text)
}
