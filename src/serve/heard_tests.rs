//! Refusals of requests whose bodies are still on their way, over real connections.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use axum::http::{Method, StatusCode};
use axum::routing::post;
use axum::{Router, middleware};
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::code::{Code, Fault};
use crate::serve::client::{Call, Client, Remote};
use crate::serve::fleet::Limits;
use crate::serve::listen;
use crate::serve::problem::Problem;

/// A service that refuses whatever is sent to it, unread, and one that reads it all.
async fn service(stop: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = listener.local_addr().expect("an address");
    let router = Router::new()
        .route("/refused", post(async || (StatusCode::FORBIDDEN, "because")))
        .route("/read", post(async |body: Bytes| body.len().to_string()))
        .layer(middleware::from_fn(hear_out));
    tokio::spawn(listen::serve(listener, router, None, Limits::default(), stop.clone()));
    at
}

/// Sends a head, and its body so late that the answer is there before it; then reads.
async fn said_to_a_slow_one(at: SocketAddr, path: &str, announced: usize, sent: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..sent.div_ceil(1 << 15) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stream.write_all(&[7; 1 << 15]).await?;
    }
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

#[tokio::test]
async fn who_is_refused_before_the_body_came_reads_why_behind_it() {
    let stop = CancellationToken::new();
    let at = service(&stop).await;
    let said = said_to_a_slow_one(at, "/refused", 1 << 20, 1 << 20).await.expect("the connection is not reset");
    assert!(said.contains(" 403 ") && said.ends_with("because"), "{said}");
    let said = said_to_a_slow_one(at, "/read", 1 << 20, 1 << 20).await.expect("it is read by its handler");
    assert!(said.contains(" 200 ") && said.ends_with("1048576"), "{said}");
    // One that stops in the middle is not waited for.
    let said = tokio::time::timeout(UNREAD_WITHIN * 5, said_to_a_slow_one(at, "/refused", 1 << 30, 1 << 15)).await;
    assert!(said.expect("the connection ends").expect("in order").contains(" 403 "));
    stop.cancel();
}

#[tokio::test]
async fn the_command_line_says_what_the_service_said_before_it_closed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    let serving = std::thread::spawn(move || {
        for said in [Some(Problem::from(Fault::new(Code::RoleForbidden, "because"))), None] {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.read_exact(&mut [0; 64]).expect("some of the head");
            std::thread::sleep(Duration::from_millis(100));
            if let Some(problem) = said {
                let body = serde_json::to_string(&problem).expect("JSON");
                let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).expect("sent");
            }
            // Closed upon bytes that nobody read: the connection is reset.
        }
    });
    let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::Remote(Remote::new(&format!("http://{at}"), "key", Arc::new(tls)).expect("a URL").into());
    for expected in [(Code::RoleForbidden, "because"), (Code::ServerDown, "127.0.0.1")] {
        let list = futures::stream::iter(0..4).then(async |piece| {
            if piece == 1 {
                // What came before is sent; answer and end come while this is being read, so that writing finds out first.
                tokio::task::yield_now().await;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok::<_, io::Error>(Bytes::from_static(&[7; 1 << 16]))
        });
        let call = client.call::<serde_json::Value>(Call::new(Method::POST, "/").body(Body::from_stream(list)));
        let waited = tokio::time::timeout(Duration::from_secs(20), call).await;
        let fault = waited.expect("it ends").expect_err("it is refused");
        assert!(fault.code == expected.0 && fault.context.starts_with(expected.1), "{fault:?}");
    }
    serving.join().expect("it served both");
}
