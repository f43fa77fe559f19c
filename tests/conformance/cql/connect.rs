//! What a start says when it cannot reach the store, or may not enter it.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smsfleet::adapters::scylla::config::ScyllaTls;
use smsfleet::adapters::scylla::{Cql, ScyllaConfig};
use smsfleet::adapters::secret::Secret;
use smsfleet::model::code::{Code, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::conformance::fixture::Keyspace;
use crate::servers;

fn at(address: &str) -> ScyllaConfig {
    ScyllaConfig { nodes: vec![address.to_owned()], ..Keyspace::named().config.clone() }
}

async fn refused(config: &ScyllaConfig) -> Fault {
    match Cql::connect(config).await {
        Ok(_) => panic!("it connects"),
        Err(fault) => fault,
    }
}

fn says(fault: &Fault, code: Code, words: &[&str]) {
    assert_eq!(fault.code, code, "{fault}");
    for word in words {
        assert!(fault.context.contains(word), "{word:?} is missing in: {fault}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_the_address_and_the_setting() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").to_string();
    says(&refused(&at(&closed)).await, Code::ServerUnavailable, &[&closed, "scylla.nodes"]);
    says(&refused(&at("no.such.host.invalid:9042")).await, Code::ServerUnavailable, &["no.such.host", "scylla.nodes"]);
    let server = servers::cql();
    let missing = at(&server);
    says(&refused(&missing).await, Code::ServerSchema, &[&server, &missing.keyspace, "smsfleet migrate"]);
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let config = ScyllaConfig { connect_timeout: Duration::from_millis(300), ..at(&address) };
    let fault = tokio::time::timeout(Duration::from_secs(20), refused(&config)).await.expect("it is not waited for without end");
    says(&fault, Code::ServerUnavailable, &[&address, "scylla.nodes"]);
}

#[tokio::test]
async fn a_datacenter_that_the_cluster_does_not_have_is_named() {
    let keyspace = Keyspace::empty().await;
    let config = |name: &str| ScyllaConfig { datacenter: Some(name.into()), ..keyspace.config.clone() };
    says(&refused(&config("nowhere")).await, Code::ConfigInvalid, &["scylla.datacenter", "nowhere", "datacenter1"]);
    keyspace.connect_by(&config("datacenter1")).await.stores().meta.put("a", "b").await.expect("it is stored");
}

/// A server that asks for a password and takes one only.
async fn guarded() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(guard(stream));
        }
    });
    address
}

/// Answers frames of CQL's native protocol, version 4, as far as a login goes.
async fn guard(mut stream: TcpStream) -> Option<()> {
    const AUTHENTICATOR: &str = "org.apache.cassandra.auth.PasswordAuthenticator";
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize];
        stream.read_exact(&mut body).await.ok()?;
        let (opcode, body) = match head[4] {
            5 => (6, vec![0, 0]),
            1 => (3, text(AUTHENTICATOR)),
            // 0x0100: bad credentials.
            _ => (0, [vec![0, 0, 1, 0], text("Provided username u and/or password are incorrect")].concat()),
        };
        let answer = [&[0x84, 0, head[2], head[3], opcode][..], &(body.len() as u32).to_be_bytes(), &body].concat();
        stream.write_all(&answer).await.ok()?;
    }
}

#[tokio::test]
async fn a_refused_login_names_the_user_and_never_the_password() {
    let address = guarded().await;
    says(&refused(&at(&address)).await, Code::ServerLogin, &[&address, "scylla.username"]);
    let config = ScyllaConfig { username: "u".into(), password: Secret::new("geheim"), ..at(&address) };
    let fault = refused(&config).await;
    says(&fault, Code::ServerLogin, &[&address, "\"u\"", "scylla.username", "scylla.password"]);
    assert!(!fault.context.contains("geheim"));
}

/// The server behind TLS, with a certificate for these names; the certificate's own authority in a file.
struct Encrypted {
    address: String,
    authority: tempfile::NamedTempFile,
}

async fn encrypted(names: Vec<rcgen::SanType>) -> Encrypted {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = names;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut authority = tempfile::NamedTempFile::new().expect("a file");
    authority.write_all(certificate.pem().as_bytes()).expect("it is written");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(servers::cql()).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Encrypted { address, authority }
}

#[tokio::test]
async fn connections_are_encrypted_and_only_with_whom_the_authorities_vouch_for() {
    let keyspace = Keyspace::empty().await;
    let here = || rcgen::SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let server = encrypted(vec![here()]).await;
    let by = |address: &str, ca_file: PathBuf, verify_host| ScyllaConfig {
        nodes: vec![address.to_owned()],
        tls: ScyllaTls { enabled: true, ca_file: Some(ca_file), verify_host, ..ScyllaTls::default() },
        ..keyspace.config.clone()
    };
    let authority = |server: &Encrypted| server.authority.path().to_owned();
    let store = keyspace.connect_by(&by(&server.address, authority(&server), true)).await;
    store.stores().meta.put("a", "encrypted").await.expect("it is stored");
    assert_eq!(keyspace.connect().await.stores().meta.get("a").await, Ok(Some("encrypted".into())));

    let stranger = encrypted(vec![here()]).await;
    for verify_host in [true, false] {
        let fault = refused(&by(&server.address, authority(&stranger), verify_host)).await;
        says(&fault, Code::ServerTls, &[&server.address, "scylla.tls.ca_file"]);
    }
    let elsewhere = encrypted(vec![rcgen::SanType::IpAddress(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)))]).await;
    let fault = refused(&by(&elsewhere.address, authority(&elsewhere), true)).await;
    says(&fault, Code::ServerTls, &[&elsewhere.address]);
    keyspace.connect_by(&by(&elsewhere.address, authority(&elsewhere), false)).await;
    // A port without TLS, and TLS where none is expected.
    let fault = refused(&by(&servers::cql(), authority(&server), true)).await;
    assert!(matches!(fault.code, Code::ServerTls | Code::ServerUnavailable), "{fault}");
    let plain = ScyllaConfig { connect_timeout: Duration::from_secs(2), ..at(&server.address) };
    says(&refused(&plain).await, Code::ServerUnavailable, &[&server.address, "scylla.tls.enabled"]);
}
