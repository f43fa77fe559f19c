//! The other end of the surface: over the socket of the process that holds the folder, or straight into a router.

use std::io;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tower::ServiceExt;

use super::problem::Problem;
use super::socket;
use crate::model::code::{Code, Fault};
use crate::runtime::task;

/// The longest answer that is taken as a whole; listings are streamed.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A way to the surface.
#[derive(Clone)]
pub enum Client {
    /// The process that holds the folder.
    Socket(std::path::PathBuf),
    /// This process.
    Here(Router),
}

impl Client {
    /// The process that holds `folder`, when one answers on its socket.
    pub async fn running(folder: &Path) -> Option<Client> {
        let (path, _open) = socket::address(folder, socket::NAME).ok()?;
        UnixStream::connect(path).await.ok()?;
        Some(Client::Socket(folder.to_owned()))
    }

    /// Sends a request without a body. `path` carries its query.
    async fn send(&self, method: Method, path: &str) -> Result<Response<Body>, Fault> {
        let broken = |error: &dyn std::fmt::Display| {
            Fault::new(Code::FolderInUse, format!("the process that holds the data folder does not answer: {error}"))
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Body::empty())
            .map_err(|error| Fault::new(Code::InputInvalid, error.to_string()))?;
        match self {
            Client::Here(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            Client::Socket(folder) => {
                let stream = connect(folder).await.map_err(|error| broken(&error))?;
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
                task::spawn("socket-client", async move {
                    // A connection that breaks shows in the response that is being read.
                    let _ = connection.await;
                });
                let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
                Ok(response.map(Body::new))
            }
        }
    }

    /// Reads a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.read(self.send(Method::GET, path).await?).await
    }

    /// Posts without a body and reads the JSON answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.read(self.send(Method::POST, path).await?).await
    }

    /// Streams an answer, piece by piece, into `sink`.
    pub async fn stream<F>(&self, path: &str, mut sink: F) -> Result<(), Fault>
    where
        F: FnMut(Bytes) -> io::Result<()>,
    {
        let response = self.send(Method::GET, path).await?;
        if !response.status().is_success() {
            return self.read::<serde_json::Value>(response).await.map(|_| ());
        }
        let mut pieces = response.into_body().into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Fault::new(Code::StoreUnavailable, format!("the listing broke off: {error}")))?;
            sink(piece).map_err(|error| Fault::new(Code::InputInvalid, format!("the output cannot be written: {error}")))?;
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

async fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (path, _open) = socket::address(folder, socket::NAME)?;
    UnixStream::connect(path).await
}

fn unreadable(status: StatusCode, error: &serde_json::Error) -> Fault {
    let text = format!("the answer ({status}) cannot be read: {error}; is the other process of the same version?");
    Fault::new(Code::Internal, text)
}
