//! The listener as strangers meet it: slow, loud, many, and over TLS.

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

struct Up {
    at: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn up(limits: Limits, tls: Option<TlsAcceptor>) -> Up {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (at, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let router = Router::new().route("/", get(async || "here\n"));
    let serving = tokio::spawn(serve(listener, router, tls, limits, stop.clone()));
    Up { at, stop, serving }
}

impl Up {
    /// Sends bytes and reads until the other side closes.
    async fn said(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.at).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut said = vec![];
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    }

    async fn down(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.serving).await.expect("it ends in time").expect("it does not panic");
    }
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_head_that_is_slow_or_too_large_ends_the_connection_and_others_go_on() {
    let up = up(Limits { head: Duration::from_millis(300), ..Limits::default() }, None).await;
    let began = std::time::Instant::now();
    assert!(!up.said(b"GET / HTTP/1.1\r\nhost: x\r\n").await.contains(" 200 "), "the head never ends");
    assert!(began.elapsed() >= Duration::from_millis(250));
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    assert!(up.said(format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await.contains(" 431 "));
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "y".repeat(100_000));
    assert!(!up.said(long.as_bytes()).await.contains(" 200 "));
    assert!(up.said(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.contains(" 400 "));
    assert!(up.said(ASK).await.ends_with("here\n"));
    up.down().await;
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_their_place() {
    let up = up(Limits { connections: 2, ..Limits::default() }, None).await;
    let mut held = vec![];
    for _ in 0..2 {
        let mut stream = TcpStream::connect(up.at).await.expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("answered");
        held.push(stream);
    }
    let mut waiting = Box::pin(up.said(ASK));
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting.as_mut()).await.is_err(), "there is no place");
    held.pop();
    assert!(waiting.as_mut().await.ends_with("here\n"));
    drop((held, waiting));
    up.down().await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_configured_certificate_and_plain_http_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let fault = tls(&key, &certificate).err().expect("the files are exchanged");
    assert_eq!(fault.code, Code::ConfigInvalid);
    let up = up(Limits { head: Duration::from_secs(1), ..Limits::default() }, Some(tls(&certificate, &key).expect("TLS"))).await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(up.at).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it is the certificate");
    stream.write_all(ASK).await.expect("sent");
    let mut said = vec![];
    let _ = stream.read_to_end(&mut said).await;
    assert!(String::from_utf8_lossy(&said).ends_with("here\n"));
    assert!(!up.said(ASK).await.contains("200"), "plain HTTP is not spoken");
    up.down().await;
}

#[tokio::test]
async fn a_handshake_that_is_slow_is_ended_and_gives_its_place_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let limits = Limits { head: Duration::from_millis(300), connections: 1, ..Limits::default() };
    let up = up(limits, Some(tls(&certificate, &key).expect("TLS"))).await;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(up.at).await.expect("connected");
        let began = std::time::Instant::now();
        // The head of a record that says 512 bytes of a greeting follow.
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("sent");
        // However steadily the rest comes.
        let (mut reading, mut writing) = stream.split();
        let dribble = async {
            while writing.write_all(b"\x00").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut said = vec![];
        let ended = async {
            tokio::select! {
                _ = reading.read_to_end(&mut said) => {}
                () = dribble => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(5), ended).await.expect("it is ended");
        assert!(began.elapsed() >= Duration::from_millis(250), "it had its time");
    }
    up.down().await;
}
